//! I/O. Tells when cgroups of pods appear and vanish.
//!
//! The directories in which a kubelet makes them are watched by inotify; all of the tree is looked through every
//! [`SCAN_INTERVAL`], which finds a kubelet that starts later below a prefix of its own. Where inotify has no instance
//! or watch left, that is done every [`POLL_INTERVAL`].

use crate::kube::PodCgroup;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};

const SCAN_INTERVAL: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_secs(2);
const EVENT_BUFFER_BYTES: usize = 16 * 1024;
/// Directories of the cgroup tree that one scan looks at, at most.
const MAX_DIRECTORIES: usize = 20_000;
/// How deep below the mount pods lie, at most: a prefix of the kubelet's own, four levels of slices.
const MAX_DEPTH: usize = 8;
/// Directories that are watched, at most. A kubelet has three.
const MAX_WATCHES: usize = 256;
/// What a kubelet calls its part of the tree, under every driver.
const KUBEPODS: &str = "kubepods";

/// What happened to cgroups of pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// These are all; `None`: there is no cgroup v2 here.
    All(Option<Vec<PodCgroup>>),
    Appeared(PodCgroup),
    Vanished(PodCgroup),
}

/// Watches the cgroups of all pods.
#[derive(Debug)]
pub(super) struct CgroupWatch {
    roots: Vec<PathBuf>,
    inotify: Option<AsyncFd<OwnedFd>>,
    /// By watch descriptor.
    watched: HashMap<i32, PathBuf>,
    scan_at: Instant,
}

/// What a tree holds.
#[derive(Debug, Default)]
struct Found {
    pods: Vec<PodCgroup>,
    /// Directories in which pods' cgroups are made, and those above them.
    leading: HashSet<PathBuf>,
}

impl CgroupWatch {
    /// Needs a Tokio runtime.
    pub(super) fn new(roots: Vec<PathBuf>) -> Self {
        let inotify = open_inotify()
            .inspect_err(|error| {
                tracing::warn!(%error, "cgroups can't be watched: new pods are looked for every 2 s");
            })
            .ok();
        Self { roots, inotify, watched: HashMap::new(), scan_at: Instant::now() }
    }

    /// Waits for the next changes; the first time, tells all there is. May be given up at any time.
    pub(super) async fn next(&mut self) -> Vec<Change> {
        loop {
            let scan_at = self.scan_at;
            tokio::select! {
                biased;
                () = sleep_until(scan_at) => return vec![self.scan()],
                () = readable(self.inotify.as_mut()) => {
                    let changes = self.read_events();
                    if !changes.is_empty() {
                        return changes;
                    }
                }
            }
        }
    }

    /// Looks through the whole tree.
    fn scan(&mut self) -> Change {
        let interval = if self.inotify.is_some() { SCAN_INTERVAL } else { POLL_INTERVAL };
        self.scan_at = Instant::now().checked_add(interval).unwrap_or_else(Instant::now);
        if self.roots.is_empty() {
            return Change::All(None);
        }
        let mut found = Found::default();
        for root in self.roots.clone() {
            found.leading.insert(root.clone());
            self.look_through(&root, &mut found);
        }
        self.forget_all_but(&found.leading);
        Change::All(Some(found.pods))
    }

    /// Collects what is below `top`. What is watched is watched before it is looked at, so that nothing is missed.
    fn look_through(&mut self, top: &Path, found: &mut Found) {
        let mut seen = 0_usize;
        let mut open = vec![(top.to_owned(), 0_usize)];
        while let Some((directory, depth)) = open.pop() {
            if found.leading.contains(&directory) || holds_pods(&directory) {
                self.watch(&directory);
                found.leading.insert(directory.clone());
            }
            for path in directories_in(&directory) {
                seen = seen.saturating_add(1);
                match PodCgroup::of(&path) {
                    Some(pod) => found.pods.push(pod),
                    None if depth < MAX_DEPTH && seen < MAX_DIRECTORIES => {
                        if holds_pods(&path) {
                            // A kubelet that starts anew makes its directories anew.
                            let above = path.ancestors().skip(1).take_while(|above| above.starts_with(top));
                            for above in above {
                                self.watch(above);
                                found.leading.insert(above.to_owned());
                            }
                        }
                        open.push((path, depth.saturating_add(1)));
                    }
                    None => {}
                }
            }
        }
    }

    fn read_events(&mut self) -> Vec<Change> {
        let mut events = Vec::new();
        let mut is_overrun = false;
        if let Some(inotify) = &self.inotify {
            let mut buffer = [MaybeUninit::uninit(); EVENT_BUFFER_BYTES];
            let mut reader = inotify::Reader::new(inotify.get_ref(), &mut buffer);
            while let Ok(event) = reader.next() {
                is_overrun |= event.events().contains(ReadFlags::QUEUE_OVERFLOW);
                let name = event.file_name().and_then(|name| name.to_str().ok()).map(str::to_owned);
                events.push((event.wd(), event.events(), name));
            }
        }
        if is_overrun {
            return vec![self.scan()];
        }
        events.into_iter().flat_map(|(wd, flags, name)| self.changes_of(wd, flags, name)).collect()
    }

    fn changes_of(&mut self, wd: i32, flags: ReadFlags, name: Option<String>) -> Vec<Change> {
        if flags.contains(ReadFlags::IGNORED) {
            self.watched.remove(&wd);
            return vec![];
        }
        let (Some(directory), Some(name)) = (self.watched.get(&wd), name) else { return vec![] };
        let path = directory.join(name);
        let is_here = flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO);
        match (PodCgroup::of(&path), is_here) {
            (Some(pod), true) => vec![Change::Appeared(pod)],
            (Some(pod), false) => vec![Change::Vanished(pod)],
            (None, true) if holds_pods(&path) => {
                let mut found = Found::default();
                self.look_through(&path, &mut found);
                found.pods.into_iter().map(Change::Appeared).collect()
            }
            (None, _) => vec![],
        }
    }

    fn watch(&mut self, directory: &Path) {
        let Some(inotify) = &self.inotify else { return };
        let mask = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::ONLYDIR;
        if self.watched.len() >= MAX_WATCHES {
            return;
        }
        match inotify::add_watch(inotify.get_ref(), directory, mask) {
            Ok(watch) => {
                self.watched.insert(watch, directory.to_owned());
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => {}
            Err(error) => {
                tracing::warn!(%error, "cgroups can't be watched: new pods are looked for every 2 s");
                self.inotify = None;
                self.watched.clear();
                self.scan_at = Instant::now();
            }
        }
    }

    fn forget_all_but(&mut self, leading: &HashSet<PathBuf>) {
        let Some(inotify) = &self.inotify else { return };
        self.watched.retain(|watch, directory| {
            let is_kept = leading.contains(directory);
            if !is_kept {
                // The kernel has removed it already where its directory is gone.
                let _ = inotify::remove_watch(inotify.get_ref(), *watch);
            }
            is_kept
        });
    }
}

/// Where cgroup v2 is mounted, each tree once, from the lines of `/proc/self/mounts`.
pub(crate) fn cgroup2_roots(mounts: &str) -> Vec<PathBuf> {
    let mut seen = HashSet::new();
    let places = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let place = words.next()?;
        (words.next()? == "cgroup2").then(|| PathBuf::from(place))
    });
    let identity = |path: &PathBuf| fs::metadata(path).ok().map(|there| (there.dev(), there.ino()));
    places.filter(|path| identity(path).is_some_and(|id| seen.insert(id))).collect()
}

/// Every pod's cgroup below `roots`, in order.
pub(crate) fn pods_below(roots: &[PathBuf]) -> Vec<PodCgroup> {
    let mut looking =
        CgroupWatch { roots: vec![], inotify: None, watched: HashMap::new(), scan_at: Instant::now() };
    let mut found = Found::default();
    for root in roots {
        looking.look_through(root, &mut found);
    }
    found.pods.sort();
    found.pods.dedup_by(|one, other| one.uid == other.uid);
    found.pods
}

/// Whether pods' cgroups are made in this directory: `kubepods`, `kubepods/burstable`,
/// `kubepods.slice/kubepods-besteffort.slice`, and the like.
fn holds_pods(path: &Path) -> bool {
    let names = |path: Option<&Path>| {
        path.and_then(Path::file_name).is_some_and(|name| name.to_string_lossy().contains(KUBEPODS))
    };
    PodCgroup::of(path).is_none() && (names(Some(path)) || names(path.parent()))
}

fn directories_in(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
}

fn open_inotify() -> io::Result<AsyncFd<OwnedFd>> {
    let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    #[expect(
        deprecated,
        reason = "unsound only for types whose descriptor may change; an OwnedFd's can't, and the \
                  replacement would need unsafe code"
    )]
    AsyncFd::new(inotify)
}

/// Returns once there is something to read, which clears the readiness: whoever waits must read all there is.
async fn readable(inotify: Option<&mut AsyncFd<OwnedFd>>) {
    match inotify {
        Some(inotify) => match inotify.readable_mut().await {
            Ok(mut ready) => ready.clear_ready(),
            // The runtime ends.
            Err(_) => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";

    fn pod(path: PathBuf) -> PodCgroup {
        PodCgroup { uid: UID.to_owned(), path }
    }

    async fn next(watch: &mut CgroupWatch) -> Vec<Change> {
        tokio::time::timeout(Duration::from_secs(20), watch.next()).await.expect("an event")
    }

    #[test]
    fn pods_are_found_below_a_prefix_of_the_kubelets_own() {
        let tree = tempfile::tempdir().unwrap();
        let found = tree.path().join(format!("node-1/kubepods/burstable/pod{UID}"));
        fs::create_dir_all(found.join("container")).unwrap();
        fs::create_dir_all(tree.path().join("system.slice")).unwrap();
        assert_eq!(pods_below(&[tree.path().to_owned()]), [pod(found)]);
    }

    #[test]
    fn only_directories_of_a_kubelet_hold_pods() {
        for yes in ["/c/kubepods", "/c/kubepods/burstable", "/c/kubepods.slice/kubepods-besteffort.slice"] {
            assert!(holds_pods(Path::new(yes)), "{yes}");
        }
        let slice = format!("/c/kubepods.slice/kubepods-pod{}.slice", UID.replace('-', "_"));
        let container = format!("/c/kubepods/burstable/pod{UID}/0123");
        for no in ["/c", "/c/system.slice", slice.as_str(), container.as_str()] {
            assert!(!holds_pods(Path::new(no)), "{no}");
        }
    }

    #[test]
    fn mounts_of_one_tree_count_once() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let line = |path: &Path| format!("none {} cgroup2 rw 0 0\n", path.display());
        let mounts = [line(one.path()), line(one.path()), line(other.path()), line(Path::new("/no/such"))];
        let mounts = format!("tmpfs /tmp tmpfs rw 0 0\n{}", mounts.concat());
        assert_eq!(cgroup2_roots(&mounts), [one.path(), other.path()]);
    }

    #[tokio::test]
    async fn pods_appear_and_vanish_without_a_scan() {
        let tree = tempfile::tempdir().unwrap();
        let kubepods = tree.path().join("kubepods");
        let mut watch = CgroupWatch::new(vec![tree.path().to_owned()]);
        assert_eq!(next(&mut watch).await, [Change::All(Some(vec![]))]);

        // A kubelet that starts, with a first pod at once.
        let first = kubepods.join(format!("burstable/pod{UID}"));
        fs::create_dir_all(&first).unwrap();
        assert_eq!(next(&mut watch).await[0], Change::Appeared(pod(first.clone())));
        let second = kubepods.join(format!("pod{UID}"));
        fs::create_dir(&second).unwrap();
        fs::create_dir(second.join("container")).unwrap();
        let mut seen = Vec::new();
        while !seen.contains(&Change::Appeared(pod(second.clone()))) {
            seen.extend(next(&mut watch).await);
        }
        fs::remove_dir(&first).unwrap();
        assert_eq!(next(&mut watch).await, [Change::Vanished(pod(first.clone()))]);

        // The whole tree goes, and comes again.
        fs::remove_dir_all(&kubepods).unwrap();
        let mut seen = Vec::new();
        while !seen.contains(&Change::Vanished(pod(second.clone()))) {
            seen.extend(next(&mut watch).await);
        }
        fs::create_dir_all(&first).unwrap();
        let mut seen = Vec::new();
        while !seen.contains(&Change::Appeared(pod(first.clone()))) {
            seen.extend(next(&mut watch).await);
        }
        assert!(watch.watched.len() <= 4, "{:?}", watch.watched);
    }

    #[tokio::test(start_paused = true)]
    async fn kubelet_below_a_prefix_that_is_made_later_is_found_by_the_scan() {
        let tree = tempfile::tempdir().unwrap();
        let prefix = tree.path().join("node-1");
        fs::create_dir(&prefix).unwrap();
        let mut watch = CgroupWatch::new(vec![tree.path().to_owned()]);
        assert_eq!(watch.next().await, [Change::All(Some(vec![]))]);
        let found = prefix.join(format!("kubepods/pod{UID}"));
        fs::create_dir_all(&found).unwrap();
        assert_eq!(watch.next().await, [Change::All(Some(vec![pod(found)]))]);
        assert_eq!(watch.watched.len(), 3, "{:?}", watch.watched);
    }

    #[tokio::test]
    async fn without_cgroups_that_is_said() {
        let mut watch = CgroupWatch::new(vec![]);
        assert_eq!(watch.next().await, [Change::All(None)]);
    }
}
