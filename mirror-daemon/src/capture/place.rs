//! Opens the two kinds of file that a capture point names: a directory of cgroup v2, and a network namespace.
//!
//! Their paths come from the parser, which is taken for hostile: nothing else is opened by them, nothing is opened for
//! writing, and a path is looked at before it is really opened, for opening some files has effects.

use rustix::fs::{FsWord, Mode, OFlags, fstatfs, open, openat};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// `CGROUP2_SUPER_MAGIC`, linux/magic.h.
const CGROUP2: FsWord = 0x6367_7270;
/// `NSFS_MAGIC`, linux/magic.h.
const NSFS: FsWord = 0x6e73_6673;

/// # Errors
/// When it is not there, or is something else.
pub(super) fn open_cgroup(path: &Path) -> io::Result<File> {
    let found = look(path, OFlags::DIRECTORY)?;
    if fstatfs(&found)?.f_type != CGROUP2 {
        return Err(io::Error::other("it is no directory of cgroup v2"));
    }
    Ok(openat(&found, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?.into())
}

/// Of any kind; entering it as a network namespace fails when it is none.
///
/// # Errors
/// When it is not there, or is something else.
pub(super) fn open_namespace(path: &Path) -> io::Result<File> {
    let found = look(path, OFlags::empty())?;
    if fstatfs(&found)?.f_type != NSFS {
        return Err(io::Error::other("it is no network namespace"));
    }
    File::open(format!("/proc/self/fd/{}", found.as_raw_fd()))
}

/// A descriptor by which nothing can be read, written or caused.
fn look(path: &Path, more: OFlags) -> io::Result<OwnedFd> {
    Ok(open(path, OFlags::PATH | OFlags::CLOEXEC | more, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(opened: io::Result<File>) -> String {
        opened.unwrap_err().to_string()
    }

    #[test]
    fn only_namespaces_and_cgroups_are_opened() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "x").unwrap();
        assert!(open_namespace(Path::new("/proc/self/ns/net")).is_ok());
        for other in [&file, Path::new("/dev/null"), Path::new("/proc/self/status"), directory.path()] {
            assert_eq!(refusal(open_namespace(other)), "it is no network namespace");
            assert!(open_cgroup(other).is_err(), "{other:?}");
        }
        assert_eq!(refusal(open_cgroup(directory.path())), "it is no directory of cgroup v2");
        assert_eq!(open_cgroup(Path::new("/no/such")).unwrap_err().kind(), io::ErrorKind::NotFound);
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
        let mounted = mounts.lines().find_map(|line| {
            let mut words = line.split(' ').skip(1);
            let place = words.next()?;
            (words.next()? == "cgroup2").then_some(place)
        });
        if let Some(mounted) = mounted {
            assert!(open_cgroup(Path::new(mounted)).is_ok());
        }
    }

    #[test]
    fn pipe_without_a_writer_is_refused_and_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert!(open_namespace(&pipe).is_err() && open_cgroup(&pipe).is_err());
    }
}
