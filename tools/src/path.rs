//! Paths and other bytes: how the command line gives them, and how they are shown.
//!
//! A path is any bytes. What JSON says of one can be given again: text as it is, other bytes as hex digits.

use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;

use serde_json::{Value, json};

use crate::Failure;

/// A path, as the command line gives it.
#[derive(Debug, clap::Args)]
pub(crate) struct Given {
    /// The path, as it is: `scan --json` gives it as `path`, or as `path_hex`
    path: OsString,
    /// The path is given as hex digits, as JSON has it in `path_hex`
    #[arg(long)]
    hex: bool,
}

impl Given {
    pub(crate) fn bytes(&self) -> Result<Vec<u8>, Failure> {
        given(&self.path, self.hex)
    }
}

/// The bytes that were given: as they are, or as hex digits.
pub(crate) fn given(word: &OsStr, is_hex: bool) -> Result<Vec<u8>, Failure> {
    let word = word.as_bytes();
    if !is_hex {
        return Ok(word.to_vec());
    }
    let bytes = word.chunks(2).map(|pair| match *pair {
        [high, low] => {
            let digit = |digit: u8| char::from(digit).to_digit(16);
            u8::try_from(digit(high)? << 4 | digit(low)?).ok()
        }
        _ => None,
    });
    bytes.collect::<Option<_>>().ok_or_else(|| {
        Failure::Use(format!(
            "{} is not made of hex digits, two a byte",
            shown(word)
        ))
    })
}

/// Text as it is, without what a terminal would act on: control characters, and bytes that are no text, as `\xNN`.
pub(crate) fn shown(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let escape = |text: &mut String, bytes: &[u8]| {
        for byte in bytes {
            // A string takes all that is written to it.
            write!(text, "\\x{byte:02x}").ok();
        }
    };
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            match char.is_control() {
                true => escape(&mut text, char.encode_utf8(&mut [0; 4]).as_bytes()),
                false => text.push(char),
            }
        }
        escape(&mut text, chunk.invalid());
    }
    text
}

/// Adds bytes to a JSON object: as text called `name`, or as `name_hex` where they are none, or none that can be given as a word.
pub(crate) fn with(name: &str, bytes: &[u8], mut row: Value) -> Value {
    if let Some(fields) = row.as_object_mut() {
        match std::str::from_utf8(bytes) {
            Ok(text) if !bytes.contains(&0) => fields.insert(name.to_owned(), text.into()),
            Ok(_) | Err(_) => fields.insert(format!("{name}_hex"), hex(bytes).into()),
        };
    }
    row
}

/// Bytes in JSON: text where they are text.
pub(crate) fn content(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!({ "text": text }),
        Err(_) => json!({ "hex": hex(bytes) }),
    }
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('?');
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}
