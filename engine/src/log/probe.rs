//! Which way of making a write durable is fastest here: asked of the device, not guessed.
//!
//! No method wins everywhere: the same call is first on drives with power-loss protection and last on others. So
//! each is tried on the log's own file, in turns so that a busy moment hits all alike, and the best median wins.
//!
//! - Cost: [`ROUNDS`] durable writes per method, tens of milliseconds at the most on flash; the caller keeps the
//!   result with the [`fingerprint`] of the place and asks again only when that changes.
//! - Failure: a method the kernel refuses is left out; a failing device is an error, and the log must not go on.

use std::io::ErrorKind;
use std::path::Path;

use northstar_io::{Buf, IoError, SyncMethod};

use super::{LogError, LogWriter};
use crate::format::checksum::crc32c;
use crate::limits::LOG_BLOCK_BYTES;

/// Durable writes per method: enough for a median that one slow write does not move.
const ROUNDS: usize = 16;
/// Writes take 1 to this many blocks in turn, as small groups do.
const BLOCKS_MAX: usize = 4;

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Probe {
    /// The method with the best median.
    pub(crate) best: SyncMethod,
    /// Median nanoseconds of each method that works, in the order asked.
    pub(crate) medians_ns: Vec<(SyncMethod, u64)>,
}

/// Tries each of `methods` with small durable writes and lets `log` use the best from now on.
///
/// Writes zeros where the log has not been yet, over zeros or stale groups: the stream is unchanged. `clock` gives
/// nanoseconds. A later method must win by a twentieth, so list the preferred one first.
///
/// # Errors
/// The device's, and the last refusal if no method works.
pub(crate) fn probe(
    log: &mut LogWriter,
    methods: &[SyncMethod],
    clock: &dyn Fn() -> u64,
) -> Result<Probe, LogError> {
    let mut samples: Vec<(SyncMethod, Vec<u64>)> = methods
        .iter()
        .map(|method| (*method, Vec::with_capacity(ROUNDS)))
        .collect();
    let zeros = Buf::zeroed(BLOCKS_MAX * LOG_BLOCK_BYTES);
    let (file, from, to) = log.unused(zeros.len() as u64)?;
    let mut refused = None;
    let mut at = from;
    for round in 0..ROUNDS {
        let len = (1 + round % BLOCKS_MAX) * LOG_BLOCK_BYTES;
        samples.retain_mut(|(method, times)| {
            if at + len as u64 > to {
                at = from;
            }
            let begin = clock();
            let written = file.write_durable(at, &zeros, len, *method);
            times.push(clock().saturating_sub(begin));
            at += len as u64;
            written.map_err(|error| refused = Some(error)).is_ok()
        });
        if let Some(error) = refused.take_if(|error| !is_refusal(error)) {
            return Err(LogError::Io(error));
        }
    }
    let mut medians_ns: Vec<(SyncMethod, u64)> = Vec::new();
    for (method, mut times) in samples {
        times.sort_unstable();
        medians_ns.push((
            method,
            times.get(times.len() / 2).copied().unwrap_or(u64::MAX),
        ));
    }
    let best = medians_ns.iter().copied().reduce(|best, next| {
        if next.1 < best.1 - best.1 / 20 {
            next
        } else {
            best
        }
    });
    let Some((best, _)) = best else {
        return Err(refused.map_or(LogError::Halted, LogError::Io));
    };
    log.set_method(best);
    Ok(Probe { best, medians_ns })
}

/// True if the kernel does not know the method; anything else is the device failing.
fn is_refusal(error: &IoError) -> bool {
    matches!(
        error.cause(),
        ErrorKind::Unsupported | ErrorKind::InvalidInput
    )
}

/// Tells kernels and devices apart: a remembered probe holds only where this is unchanged. 0 where unknown.
pub(crate) fn fingerprint(dir: &Path) -> u64 {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    (u64::from(crc32c(kernel.trim().as_bytes())) << 32) | u64::from(device(dir))
}

#[cfg(unix)]
fn device(dir: &Path) -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(dir).map_or(0, |found| crc32c(&found.dev().to_le_bytes()))
}

#[cfg(not(unix))]
fn device(_: &Path) -> u32 {
    0
}
