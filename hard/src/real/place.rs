//! Small file systems of every kind: an image in a temporary directory, made, mounted, and unmounted again.
//! Images are in memory where there is a place for that.
//!
//! Mounts are made in a mount namespace of this process's own: when it ends, however it ends, the kernel unmounts them
//! and lets go of their loop devices.
//!
//! - Failure: what is missing here (rights, tools, a file system in the kernel) is [`NoPlace::Missing`]; all else that
//!   goes wrong is a failure of the harness.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags};
use nix::sched::CloneFlags;
use tempfile::TempDir;

use crate::tally::Tally;
use crate::{During, Failure};

/// A kind of file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// In memory.
    Tmpfs,
    /// With a journal; blocks are overwritten in place.
    Ext4,
    /// With a journal of metadata; allocates late.
    Xfs,
    /// Copies on write, with checksums.
    Btrfs,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Tmpfs, Self::Ext4, Self::Xfs, Self::Btrfs];

    /// The kernel's name of it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tmpfs => "tmpfs",
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// The smallest that its tools make, in MiB.
    #[must_use]
    pub const fn least_mib(self) -> u64 {
        match self {
            Self::Tmpfs | Self::Ext4 => 32,
            Self::Xfs => 300,
            Self::Btrfs => 128,
        }
    }

    /// Makes an empty one in an image or on a device. Memory needs none.
    ///
    /// # Errors
    /// [`NoPlace::Missing`] when there is no tool for it.
    pub fn format(self, image: &Path) -> Result<(), NoPlace> {
        let words: &[&str] = match self {
            Self::Tmpfs => return Ok(()),
            Self::Ext4 => &["mkfs.ext4", "-q", "-F", "-E", "nodiscard"],
            Self::Xfs => &["mkfs.xfs", "-q", "-f", "-K"],
            Self::Btrfs => &["mkfs.btrfs", "-q", "-f", "-K", "--mixed"],
        };
        let words = words.iter().map(OsStr::new);
        tool(&words.chain([image.as_os_str()]).collect::<Vec<_>>())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why there is no place.
#[derive(Debug)]
pub enum NoPlace {
    /// This machine or this user has not what it takes.
    Missing(String),
    /// It should have worked.
    Failed(Failure),
}

impl From<Failure> for NoPlace {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// What was made; or nothing, with the reason in the tally.
///
/// # Errors
/// What should have worked and did not.
pub fn or_skip<T>(
    made: Result<T, NoPlace>,
    tally: &mut Tally,
    what: &str,
) -> Result<Option<T>, Failure> {
    match made {
        Ok(made) => Ok(Some(made)),
        Err(NoPlace::Missing(why)) => {
            tally.skip(what, &why);
            Ok(None)
        }
        Err(NoPlace::Failed(failure)) => Err(failure),
    }
}

/// From now on, mounts of this thread and of what it starts are its own.
///
/// # Errors
/// [`NoPlace::Missing`] without the right to mount.
pub fn own_mounts() -> Result<(), NoPlace> {
    let none: Option<&str> = None;
    nix::sched::unshare(CloneFlags::CLONE_NEWNS)
        .and_then(|()| {
            let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            nix::mount::mount(none, "/", none, flags, none)
        })
        .map_err(|errno| NoPlace::Missing(format!("mounts of its own are refused: {errno}")))
}

/// A mounted file system.
#[derive(Debug)]
pub struct Place {
    kind: Kind,
    /// Holds the image and the directory it is mounted on.
    root: TempDir,
    image: PathBuf,
    mounted: bool,
}

impl Place {
    /// A new, empty file system of so many MiB. Needs [`own_mounts`].
    ///
    /// # Errors
    /// [`NoPlace::Missing`] when this machine has none.
    pub fn make(kind: Kind, mib: u64) -> Result<Self, NoPlace> {
        if !known(kind.name()) {
            let why = format!("this kernel has no {kind}");
            return Err(NoPlace::Missing(why));
        }
        let place = Self::unmounted(kind)?;
        let mib = mib.max(kind.least_mib());
        if kind != Kind::Tmpfs {
            empty_image(&place.image, mib)?;
            kind.format(&place.image)?;
        }
        let size = format!("size={mib}m");
        place.mount(match kind {
            Kind::Tmpfs => &size,
            Kind::Ext4 | Kind::Xfs => "loop",
            // What was written over is free again with the next transaction only: within half a minute, as is usual, a small one is full,
            // and may end read-only.
            Kind::Btrfs => "loop,commit=1",
        })
    }

    /// The file system in an image that exists.
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub fn of_image(kind: Kind, image: &Path) -> Result<Self, NoPlace> {
        if kind == Kind::Btrfs {
            // The kernel remembers what it saw last under the same number, and refuses an earlier state of it.
            let words: [&OsStr; 4] = [
                "btrfs".as_ref(),
                "device".as_ref(),
                "scan".as_ref(),
                "--forget".as_ref(),
            ];
            tool(&words)?;
        }
        let mut place = Self::unmounted(kind)?;
        place.image = image.to_owned();
        place.mount("loop")
    }

    fn unmounted(kind: Kind) -> Result<Self, Failure> {
        let root = TempDir::with_prefix_in("nshard-place-", near());
        let root = root.during("make a directory")?;
        std::fs::create_dir(root.path().join("on")).during("make a directory")?;
        Ok(Self {
            kind,
            image: root.path().join("image"),
            root,
            mounted: false,
        })
    }

    fn mount(mut self, options: &str) -> Result<Self, NoPlace> {
        let on = self.path();
        let what = match self.kind {
            Kind::Tmpfs => PathBuf::from("tmpfs"),
            Kind::Ext4 | Kind::Xfs | Kind::Btrfs => self.image.clone(),
        };
        let words: [&OsStr; 7] = [
            "mount".as_ref(),
            "-t".as_ref(),
            self.kind.name().as_ref(),
            "-o".as_ref(),
            options.as_ref(),
            what.as_ref(),
            on.as_ref(),
        ];
        tool(&words)?;
        self.mounted = true;
        Ok(self)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.root.path().join("on")
    }

    /// Nothing can be written from now on.
    ///
    /// # Errors
    /// The system's.
    pub fn read_only(&self) -> Result<(), Failure> {
        let none: Option<&str> = None;
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        patiently(|| nix::mount::mount(none, &self.path(), none, flags, none))
            .during("mount again for reading only")
    }

    /// Adds to a failure where what is on the file system was copied to.
    #[must_use]
    pub fn keep(&self, failure: &Failure) -> Failure {
        let kept = TempDir::with_prefix("nshard-kept-").map(TempDir::keep);
        let kept = kept.ok().filter(|kept| {
            let from = self.path().join(".");
            let words: [&OsStr; 4] = ["cp".as_ref(), "-a".as_ref(), from.as_ref(), kept.as_ref()];
            tool(&words).is_ok()
        });
        let kept = kept.map_or_else(|| "nowhere".to_owned(), |kept| kept.display().to_string());
        Failure::Broken(format!(
            "{}\n  on {}; all of it was copied to {kept}",
            crate::chain(failure),
            self.kind
        ))
    }

    /// Unmounts it.
    ///
    /// # Errors
    /// The system's.
    pub fn close(mut self) -> Result<(), Failure> {
        self.mounted = false;
        unmount(&self.path()).during("unmount")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.mounted && unmount(&self.path()).is_err() {
            nix::mount::umount2(&self.path(), MntFlags::MNT_DETACH).ok();
        }
    }
}

/// Where images are kept: in memory if it can be, for nothing of them has to be durable.
#[must_use]
pub fn near() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    }
}

/// A file of so many MiB that holds nothing.
///
/// # Errors
/// The system's.
pub fn empty_image(path: &Path, mib: u64) -> Result<(), Failure> {
    let image = std::fs::File::create(path).during("make an image")?;
    image.set_len(mib << 20).during("size an image")
}

/// Unmounts.
///
/// # Errors
/// The system's.
pub fn unmount(path: &Path) -> std::io::Result<()> {
    patiently(|| nix::mount::umount2(path, MntFlags::empty()))
}

/// What a killed process had in flight may hold a file system for a moment.
fn patiently(act: impl Fn() -> nix::Result<()>) -> std::io::Result<()> {
    let mut tries = 0;
    loop {
        match act() {
            Err(Errno::EBUSY) if tries < 250 => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(20));
            }
            done => return done.map_err(Into::into),
        }
    }
}

/// The kernel knows a file system of that name.
fn known(name: &str) -> bool {
    let all = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    all.split_whitespace().any(|word| word == name)
}

/// Runs a tool of the system to its end.
///
/// # Errors
/// [`NoPlace::Missing`] when it is not installed.
pub fn tool(words: &[&OsStr]) -> Result<(), NoPlace> {
    let Some((program, arguments)) = words.split_first() else {
        return Ok(());
    };
    let output = command(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    let said = match output {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let why = format!("{} is not installed", program.display());
            return Err(NoPlace::Missing(why));
        }
        Err(error) => error.to_string(),
    };
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    Err(Failure::Broken(format!("{}: {said}", words.join(" "))).into())
}

/// A command that is looked for where administrators keep theirs, too.
#[must_use]
pub fn command(program: &OsStr) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(program);
    command.env("PATH", format!("{path}:/usr/sbin:/sbin:/usr/local/sbin"));
    command
}
