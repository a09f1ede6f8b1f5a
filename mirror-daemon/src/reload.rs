//! I/O. Tells when the configuration file, or the manifests in a directory, may have changed: "look again", nothing more.
//!
//! A configuration file changes in many ways: written in place, replaced by a rename, behind a symbolic link that
//! is swapped (a Kubernetes ConfigMap: `config.toml -> ..data/config.toml`, `..data -> ..2024_05_01`), in a
//! directory that appears later. So every directory on the way to the file is watched, through all links, for
//! the one name that matters in it (`trail`); the trail is found again after each change. Where inotify has
//! no instance or watch left, the file is looked at every [`POLL_INTERVAL`] instead.
//!
//! The kernel's inotify is used directly: the usual crates also ask for every *opening* of a file, and on a node
//! where programs open files in `/etc` all day that would wake an idle daemon.

mod trail;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::time::{self, Instant};
use trail::Step;

/// How long the file must be quiet before it is worth a look.
pub const DEBOUNCE: Duration = Duration::from_millis(200);
/// How long changes that do not cease can put off a look.
pub const MAX_DEBOUNCE: Duration = Duration::from_secs(2);
/// How often the file is looked at where it can't be watched.
pub const POLL_INTERVAL: Duration = Duration::from_secs(5);

const EVENT_BUFFER_BYTES: usize = 4096;
/// How often the trail is looked at anew when it changes while watches are set; each change is an event too.
const MAX_LOOKS: usize = 8;

/// Why the configuration should be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadCause {
    /// The file may have changed.
    File,
    /// SIGHUP.
    Signal,
}

/// Watches one file. Make it before the file is read for the first time: then no change is missed.
#[derive(Debug)]
pub struct ConfigWatch {
    target: Target,
    watches: Option<Watches>,
    seen: Fingerprint,
    /// Something happened that no call of [`ConfigWatch::changed`] has told yet.
    is_pending: bool,
}

/// What is watched.
#[derive(Debug)]
struct Target {
    path: PathBuf,
    /// A directory, with all that is below it.
    is_tree: bool,
}

impl Target {
    fn steps(&self) -> Vec<Step> {
        if self.is_tree { trail::tree_steps(&self.path) } else { trail::steps(&self.path) }
    }

    fn fingerprint(&self) -> Fingerprint {
        if !self.is_tree {
            return fingerprint(&self.path).into_iter().collect();
        }
        let names = self.steps().into_iter().filter(|step| step.name.is_none());
        let entries = names.flat_map(|step| std::fs::read_dir(step.directory)).flatten().flatten();
        let mut all: Fingerprint = entries.filter_map(|entry| fingerprint(&entry.path())).collect();
        all.sort_unstable();
        all
    }
}

/// Names to look out for, by watch descriptor; `None` among them stands for every name.
type Names = HashMap<i32, Vec<Option<OsString>>>;

#[derive(Debug)]
struct Watches {
    inotify: AsyncFd<OwnedFd>,
    names: Names,
}

/// What tells two states of files apart without reading them; empty: no such file.
type Fingerprint = Vec<[i64; 6]>;

impl ConfigWatch {
    /// Watches `path`, which need not exist yet. Needs a Tokio runtime.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self::of(path, false)
    }

    /// Watches all that is below the directory `path`, which need not exist yet. Needs a Tokio runtime.
    #[must_use]
    pub fn of_tree(path: &Path) -> Self {
        Self::of(path, true)
    }

    fn of(path: &Path, is_tree: bool) -> Self {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let target = Target { path, is_tree };
        let seen = target.fingerprint();
        let watches = Watches::new()
            .and_then(|mut watches| watches.follow(&target).map(|()| watches))
            .inspect_err(|error| {
                let path = target.path.display();
                tracing::warn!(%path, %error, "the configuration can't be watched; it is polled instead");
            })
            .ok();
        Self { target, watches, seen, is_pending: false }
    }

    /// Returns when the file may have changed and has been quiet for [`DEBOUNCE`]. What happens between two calls
    /// is not missed, nor is it when a call is given up.
    pub async fn changed(&mut self) {
        while !self.is_pending {
            match &mut self.watches {
                Some(watches) => {
                    watches.next_relevant(&self.target).await;
                    self.is_pending = true;
                }
                None => {
                    time::sleep(POLL_INTERVAL).await;
                    self.is_pending = self.target.fingerprint() != self.seen;
                }
            }
        }
        self.settle().await;
        self.seen = self.target.fingerprint();
        self.is_pending = false;
    }

    /// Sends [`ReloadCause::File`] for each change, until the receiver is gone. One is enough when several wait.
    pub async fn report(mut self, reload_tx: mpsc::Sender<ReloadCause>) {
        loop {
            tokio::select! {
                () = self.changed() => {
                    let _ = reload_tx.try_send(ReloadCause::File);
                }
                () = reload_tx.closed() => return,
            }
        }
    }

    /// Waits until nothing has happened for [`DEBOUNCE`], at most [`MAX_DEBOUNCE`].
    async fn settle(&mut self) {
        let Some(watches) = &mut self.watches else { return };
        let latest = Instant::now().checked_add(MAX_DEBOUNCE).unwrap_or_else(Instant::now);
        loop {
            let wait = DEBOUNCE.min(latest.saturating_duration_since(Instant::now()));
            let more = watches.next_relevant(&self.target);
            if time::timeout(wait, more).await.is_err() || Instant::now() >= latest {
                return;
            }
        }
    }
}

impl Watches {
    fn new() -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        #[expect(
            deprecated,
            reason = "unsound only for types whose descriptor may change; an OwnedFd's can't, and the \
                      replacement would need unsafe code"
        )]
        let inotify = AsyncFd::new(inotify)?;
        Ok(Self { inotify, names: Names::new() })
    }

    /// Watches every directory on the trail of `target`, and no other.
    fn follow(&mut self, target: &Target) -> io::Result<()> {
        let mut steps = target.steps();
        for _ in 0..MAX_LOOKS {
            self.watch(&steps)?;
            let now = target.steps();
            if now == steps {
                break;
            }
            // Something came to be, or went, between the look and the watches.
            steps = now;
        }
        Ok(())
    }

    fn watch(&mut self, steps: &[Step]) -> io::Result<()> {
        let mask = WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        let mut names = Names::new();
        for step in steps {
            match inotify::add_watch(&self.inotify, &step.directory, mask) {
                Ok(watch) => names.entry(watch).or_default().push(step.name.clone()),
                // Gone between two looks, or not ours to read: an earlier step tells when that changes.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => {}
                Err(error) => return Err(error.into()),
            }
        }
        for watch in self.names.keys().filter(|watch| !names.contains_key(watch)) {
            // The kernel has removed it already where its directory is gone.
            let _ = inotify::remove_watch(&self.inotify, *watch);
        }
        self.names = names;
        Ok(())
    }

    /// Returns once something happened to a name on the trail. What happens to other names in the same
    /// directories, say a busy `/tmp`, costs one read and nothing else.
    async fn next_relevant(&mut self, target: &Target) {
        loop {
            let Ok(mut ready) = self.inotify.readable_mut().await else {
                // The runtime ends.
                return std::future::pending().await;
            };
            let is_relevant = drain_events(ready.get_inner(), &self.names);
            ready.clear_ready();
            drop(ready);
            if is_relevant {
                if let Err(error) = self.follow(target) {
                    tracing::warn!(%error, "a directory of the configuration can't be watched");
                }
                return;
            }
        }
    }
}

/// Reads all events there are; true when one of them matters.
fn drain_events(inotify: &OwnedFd, names: &Names) -> bool {
    let mut buffer = [MaybeUninit::uninit(); EVENT_BUFFER_BYTES];
    let mut reader = inotify::Reader::new(inotify, &mut buffer);
    let mut is_relevant = false;
    while let Ok(event) = reader.next() {
        let lost = event.events().intersects(ReadFlags::QUEUE_OVERFLOW);
        let own = event.events().intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF);
        let named = event.file_name().is_some_and(|name| {
            let wanted = names.get(&event.wd());
            let is_it = |wanted: &Option<OsString>| {
                wanted.as_ref().is_none_or(|wanted| wanted.as_bytes() == name.to_bytes())
            };
            wanted.is_some_and(|wanted| wanted.iter().any(is_it))
        });
        is_relevant |= lost || own || named;
    }
    is_relevant
}

fn fingerprint(path: &Path) -> Option<[i64; 6]> {
    let metadata = std::fs::metadata(path).ok()?;
    Some([
        metadata.dev().cast_signed(),
        metadata.ino().cast_signed(),
        metadata.size().cast_signed(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime().wrapping_mul(1_000_000_000).wrapping_add(metadata.ctime_nsec()),
    ])
}

#[cfg(test)]
mod tests;
