//! What must be stored: the version of each row, noted as commits are acknowledged and compared with a scan of everything.
//!
//! Where several threads wrote a row, the last write of each is possible, and nothing else: what the scan finds is the truth
//! from then on. Spec: BV-004.

use std::collections::BTreeMap;

use crate::content::Content;
use crate::error::{Error, Result};
use crate::rival::Session;

const ABSENT: u32 = u32::MAX;

/// What one thread wrote: the last version of each row.
pub(crate) type Writes = BTreeMap<u64, u32>;

/// The versions.
#[derive(Debug)]
pub(crate) struct Ledger {
    content: Content,
    versions: Vec<u32>,
    possible: BTreeMap<u64, Vec<u32>>,
    highest: u32,
    is_changed: bool,
}

impl Ledger {
    /// Nothing is stored.
    pub(crate) fn empty(content: Content) -> Self {
        Self {
            content,
            versions: Vec::new(),
            possible: BTreeMap::new(),
            highest: 0,
            is_changed: false,
        }
    }

    /// The first `n` rows are stored in version 0.
    pub(crate) fn loaded(content: Content, n: u64) -> Self {
        Self {
            versions: vec![0; n as usize],
            ..Self::empty(content)
        }
    }

    /// Rows that are or were there.
    pub(crate) fn len(&self) -> u64 {
        self.versions.len() as u64
    }

    /// Rows that are there.
    pub(crate) fn present(&self) -> u64 {
        self.versions
            .iter()
            .filter(|version| **version != ABSENT)
            .count() as u64
    }

    /// Whether anything was written since the last comparison.
    pub(crate) fn is_changed(&self) -> bool {
        self.is_changed
    }

    /// Whether row `i` is there.
    pub(crate) fn has(&self, i: u64) -> bool {
        self.versions
            .get(i as usize)
            .is_some_and(|version| *version != ABSENT)
    }

    /// A version that no row has had.
    pub(crate) fn fresh(&self) -> u32 {
        self.highest + 1
    }

    /// Row `i` has been put in `version`, or deleted, by one thread after another.
    pub(crate) fn set(&mut self, i: u64, version: Option<u32>) {
        let at = i as usize;
        if at >= self.versions.len() {
            self.versions.resize(at + 1, ABSENT);
        }
        self.versions[at] = version.unwrap_or(ABSENT);
        self.is_changed = true;
        self.highest = self.highest.max(version.unwrap_or(0));
    }

    /// Threads have written at the same time.
    pub(crate) fn merge(&mut self, threads: impl IntoIterator<Item = Writes>) {
        for (i, version) in threads.into_iter().flatten() {
            self.set(i, Some(version));
            self.possible.entry(i).or_default().push(version);
        }
    }

    /// Threads have raised versions by one, so many times in all.
    pub(crate) fn raise(&mut self, threads: impl IntoIterator<Item = Writes>) {
        for (i, times) in threads.into_iter().flatten() {
            let old = self.versions.get(i as usize).copied().unwrap_or(0);
            self.set(i, Some(old + times));
        }
    }

    /// Compares everything that is stored with what must be, row by row in key order; gives how many rows there are.
    ///
    /// # Errors
    /// [`Error::Wrong`] for the first row that is missing, that nobody put, or that has another value.
    pub(crate) fn check(&mut self, session: &mut dyn Session) -> Result<u64> {
        let mut order: Vec<u64> = (0..self.len()).filter(|i| self.has(*i)).collect();
        if !self.content.is_rising() {
            order.sort_by_key(|i| self.content.key(*i));
        }
        let (mut found, mut fault, mut wanted_value) = (0_usize, None, Vec::new());
        session.read(&mut |snapshot| {
            snapshot.scan(&[0; 16], &mut |key, value| {
                let Some(i) = order.get(found).copied() else {
                    fault = Some(Error::Wrong(format!("there are more than {found} rows")));
                    return false;
                };
                found += 1;
                fault = self.fault(i, key, value, &mut wanted_value);
                fault.is_none()
            })
        })?;
        if let Some(fault) = fault {
            return Err(fault);
        }
        if found != order.len() {
            let wanted = order.len();
            return Err(Error::Wrong(format!(
                "there are {found} rows, expected {wanted}"
            )));
        }
        self.possible.clear();
        self.is_changed = false;
        Ok(found as u64)
    }

    /// What is wrong with a row where row `i` is due. Of several possible versions the found one is kept.
    fn fault(&mut self, i: u64, key: &[u8], value: &[u8], wanted: &mut Vec<u8>) -> Option<Error> {
        if key != self.content.key(i) {
            return Some(Error::Wrong(format!(
                "where row {i} is due, another key stands"
            )));
        }
        let version = match self.content.version(i, Some(value)) {
            Ok(version) => version,
            Err(error) => return Some(error),
        };
        let noted = &mut self.versions[i as usize];
        let possible = match self.possible.get(&i) {
            Some(several) => several.contains(&version),
            None => *noted == version,
        };
        if !possible {
            let noted = *noted;
            return Some(Error::Wrong(format!(
                "row {i} is stored in version {version}, acknowledged was {noted}"
            )));
        }
        *noted = version;
        self.content.value_into(i, version, wanted);
        (wanted.as_slice() != value)
            .then(|| Error::Wrong(format!("row {i}: its value is damaged behind its head")))
    }
}
