//! What a process can be denied: system calls through seccomp, and resources.
//!
//! A limit is put on this process by itself and cannot be taken back. The filter names few calls; all others are
//! allowed.
//!
//! - Spec: HD-014.

use std::collections::BTreeMap;

use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use crate::{During, Failure, alloc};

/// The user that owns nothing.
pub const NOBODY: u32 = 65_534;

/// What is denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// `io_uring` is forbidden, as containers do it: `EPERM`.
    RingForbidden,
    /// There is no `io_uring`, as in an old kernel: `ENOSYS`.
    RingMissing,
    /// `O_DIRECT` is refused: `EINVAL`.
    NoDirect,
    /// Neither.
    NoRingNoDirect,
    /// Memory cannot be locked, and the process is not privileged.
    NoLockedMemory,
    /// So many open files at most.
    OpenFiles(u64),
    /// An allocation fails.
    Allocation {
        /// Which, from now on; the next is the first.
        nth: u64,
        /// All after it fail as well.
        for_good: bool,
    },
    /// So many bytes of address space at most.
    AddressSpace(u64),
}

impl Limit {
    /// Those under which everything must work.
    pub const BEARABLE: [Self; 5] = [
        Self::RingForbidden,
        Self::RingMissing,
        Self::NoDirect,
        Self::NoRingNoDirect,
        Self::NoLockedMemory,
    ];

    /// From its word.
    ///
    /// # Errors
    /// If there is none of that word.
    pub fn of(word: &str) -> Result<Self, Failure> {
        if let Some((kind, many)) = word.split_once('=')
            && let Ok(many) = many.parse()
        {
            return Self::of_number(kind, many);
        }
        let found = Self::BEARABLE
            .into_iter()
            .find(|limit| limit.word() == word);
        found.ok_or_else(|| Failure::Broken(format!("there is no limit {word:?}")))
    }

    fn of_number(kind: &str, many: u64) -> Result<Self, Failure> {
        match kind {
            "files" => Ok(Self::OpenFiles(many)),
            "space" => Ok(Self::AddressSpace(many)),
            "allocation" | "allocations-from" => Ok(Self::Allocation {
                nth: many,
                for_good: kind == "allocations-from",
            }),
            _ => Err(Failure::Broken(format!("there is no limit on {kind:?}"))),
        }
    }

    /// Its word on a command line.
    #[must_use]
    pub fn word(self) -> String {
        match self {
            Self::RingForbidden => "ring-forbidden".to_owned(),
            Self::RingMissing => "ring-missing".to_owned(),
            Self::NoDirect => "no-direct".to_owned(),
            Self::NoRingNoDirect => "no-ring-no-direct".to_owned(),
            Self::NoLockedMemory => "no-locked-memory".to_owned(),
            Self::OpenFiles(many) => format!("files={many}"),
            Self::AddressSpace(many) => format!("space={many}"),
            Self::Allocation { nth, for_good } => {
                let kind = if for_good {
                    "allocations-from"
                } else {
                    "allocation"
                };
                format!("{kind}={nth}")
            }
        }
    }

    /// Puts this process under it.
    ///
    /// # Errors
    /// When the system refuses to be so strict.
    pub fn accept(self) -> Result<(), Failure> {
        match self {
            Self::RingForbidden => deny(rings(), libc::EPERM),
            Self::RingMissing => deny(rings(), libc::ENOSYS),
            Self::NoDirect => deny(direct()?, libc::EINVAL),
            Self::NoRingNoDirect => {
                deny(rings(), libc::EPERM)?;
                deny(direct()?, libc::EINVAL)
            }
            Self::NoLockedMemory => {
                let limited = setrlimit(Resource::RLIMIT_MEMLOCK, 0, 0);
                limited
                    .map_err(std::io::Error::from)
                    .during("limit locked memory")?;
                become_nobody()
            }
            Self::OpenFiles(many) => {
                let limited = setrlimit(Resource::RLIMIT_NOFILE, many, many);
                limited
                    .map_err(std::io::Error::from)
                    .during("limit open files")
            }
            Self::AddressSpace(many) => {
                take_stack();
                let limited = setrlimit(Resource::RLIMIT_AS, many, many);
                limited
                    .map_err(std::io::Error::from)
                    .during("limit address space")
            }
            Self::Allocation { nth, for_good } => {
                alloc::fail_at(nth, for_good);
                Ok(())
            }
        }
    }
}

/// Takes as much of this thread's stack as it may need: where there is no address space left for it, a process ends in a way
/// that looks like a wild access.
fn take_stack() {
    let taken = [0u8; 2 << 20];
    std::hint::black_box(&taken);
}

/// Gives up the rights of the superuser, who is above some limits. Others have nothing to give up.
fn become_nobody() -> Result<(), Failure> {
    if !Uid::effective().is_root() {
        return Ok(());
    }
    nix::unistd::setgroups(&[])
        .and_then(|()| nix::unistd::setgid(Gid::from_raw(NOBODY)))
        .and_then(|()| nix::unistd::setuid(Uid::from_raw(NOBODY)))
        .map_err(std::io::Error::from)
        .during("become nobody")
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn rings() -> Rules {
    let calls = [
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
    ];
    calls.into_iter().map(|call| (call, Vec::new())).collect()
}

/// Direct files: asked for when they are opened, or by changing their flags later.
fn direct() -> Result<Rules, Failure> {
    let wanted = u64::from(libc::O_DIRECT.cast_unsigned());
    let asks = |argument| {
        let has = SeccompCmpOp::MaskedEq(wanted);
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, has, wanted)
    };
    let sets = u64::from(libc::F_SETFL.cast_unsigned());
    let sets = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, sets);
    let made = || -> Result<Rules, seccompiler::BackendError> {
        Ok(Rules::from([
            (libc::SYS_openat, vec![SeccompRule::new(vec![asks(2)?])?]),
            (
                libc::SYS_fcntl,
                vec![SeccompRule::new(vec![sets?, asks(2)?])?],
            ),
        ]))
    };
    made().map_err(|error| Failure::Broken(format!("make a filter: {error}")))
}

/// These calls end with an error number from now on.
fn deny(rules: Rules, errno: i32) -> Result<(), Failure> {
    let made = || -> Result<(), Box<dyn std::error::Error>> {
        let filter = SeccompFilter::new(
            rules,
            SeccompAction::Allow,
            SeccompAction::Errno(errno.cast_unsigned()),
            std::env::consts::ARCH.try_into()?,
        )?;
        let program: BpfProgram = filter.try_into()?;
        Ok(seccompiler::apply_filter_all_threads(&program)?)
    };
    made().map_err(|error| Failure::Broken(format!("deny system calls: {error}")))
}
