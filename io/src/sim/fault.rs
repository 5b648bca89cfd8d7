//! What goes wrong, and at which operation.

use std::path::{Path, PathBuf};

/// Kinds of operation that faults can meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Reading bytes.
    Read,
    /// Writing bytes.
    Write,
    /// Making a file's bytes durable.
    Sync,
    /// Changing a file's length, or punching it.
    Resize,
    /// Opening or creating a file.
    Open,
    /// Making, listing, renaming or removing names.
    Name,
    /// Making names durable.
    SyncDir,
    /// Any of them.
    Any,
}

/// What a failed sync keeps of what it covered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Nothing: it is gone for good.
    Nothing,
    /// All of it.
    All,
    /// Each write by dice.
    Some,
}

/// What an operation meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is refused with this error number and changes nothing, but for some first blocks of a write. `EINTR` and
    /// `EAGAIN` pass when tried again.
    Error(i32),
    /// It fails with this error number after it was done.
    ErrorAfter(i32),
    /// A transfer moves only so many bytes at its first try.
    Short(usize),
    /// A sync fails with this error number.
    SyncFails(i32, Kept),
    /// A sync reports success and keeps nothing.
    SyncLies,
    /// A write lands so many bytes away from where it should, whole blocks, and reports success.
    Misdirected(i64),
    /// A write reports success and lands nowhere.
    Lost,
    /// A read gives the bytes from so many bytes away, whole blocks.
    MisdirectedRead(i64),
    /// A read gives what a sync had kept last, not what was written since.
    Stale,
    /// A read gives the right bytes but for this bit, counted from its first.
    Flipped(u64),
    /// Only time passes, in nanoseconds.
    Slow(u64),
}

/// One thing that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Operations it can meet.
    pub what: What,
    /// Only on files whose name contains this.
    pub file: Option<&'static str>,
    /// The operation it meets: how many of its kind come before.
    pub after: u64,
    /// It meets all later ones too.
    pub sticky: bool,
    /// What happens.
    pub fault: Fault,
}

/// Everything that goes wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FaultPlan {
    /// The first rule that applies is taken.
    pub rules: Vec<Rule>,
    /// No operation from this one on does anything: the power is off.
    pub power_off_after: Option<u64>,
    /// Bytes the disk has room for; beyond, writes are refused with `ENOSPC`.
    pub room_bytes: Option<u64>,
}

/// A fault that happened: the atlas of a run is a list of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injected {
    /// The operation's number.
    pub operation: u64,
    /// Its kind.
    pub what: What,
    /// The file or directory.
    pub path: PathBuf,
    /// Where in the file.
    pub offset: u64,
    /// How many bytes were asked for.
    pub len: usize,
    /// What happened.
    pub fault: Fault,
}

/// Counts operations and picks their faults.
#[derive(Debug, Default)]
pub(super) struct Faults {
    plan: FaultPlan,
    /// Operations each rule could have met so far.
    seen: Vec<u64>,
    pub(super) operations: u64,
    pub(super) atlas: Vec<Injected>,
}

impl Faults {
    pub(super) fn new(plan: FaultPlan) -> Self {
        Self {
            seen: vec![0; plan.rules.len()],
            plan,
            ..Self::default()
        }
    }

    pub(super) fn room_bytes(&self) -> Option<u64> {
        self.plan.room_bytes
    }

    pub(super) fn is_off(&self) -> bool {
        let off = self.plan.power_off_after;
        off.is_some_and(|after| self.operations >= after)
    }

    /// The next operation, and what it meets.
    pub(super) fn next(
        &mut self,
        what: What,
        path: &Path,
        offset: u64,
        len: usize,
    ) -> Result<Option<Fault>, i32> {
        if self.is_off() {
            return Err(libc::EIO);
        }
        self.operations += 1;
        let mut met = None;
        for (rule, seen) in self.plan.rules.iter().zip(&mut self.seen) {
            let named = rule
                .file
                .is_none_or(|part| path.to_string_lossy().contains(part));
            if !named || (rule.what != What::Any && rule.what != what) {
                continue;
            }
            let due = *seen == rule.after || (rule.sticky && *seen > rule.after);
            *seen += 1;
            // Enough for all of it: no fault.
            let whole = matches!(rule.fault, Fault::Short(most) if most >= len);
            if due && met.is_none() && !whole {
                met = Some(rule.fault);
            }
        }
        if let Some(fault) = met {
            self.atlas.push(Injected {
                operation: self.operations,
                what,
                path: path.to_owned(),
                offset,
                len,
                fault,
            });
        }
        Ok(met)
    }
}
