//! The way to a file: each directory that is passed, through all symbolic links, and the name looked up in it.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Most symbolic links that are followed, as in the kernel (path_resolution(7)).
const MAX_LINKS: usize = 40;
/// Most steps; a longer way is cut off.
const MAX_STEPS: usize = 256;

/// One look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// A directory without symbolic links in it.
    pub(super) directory: PathBuf,
    /// The name looked up there; `None`: every name.
    pub(super) name: Option<OsString>,
}

/// Most directories of a tree that are watched.
const MAX_DIRECTORIES: usize = 1024;

/// The steps to the directory `path`, and all names in it and in the directories below it.
pub(super) fn tree_steps(path: &Path) -> Vec<Step> {
    let mut steps = steps(path);
    let Ok(root) = path.canonicalize() else { return steps };
    let mut ahead = vec![root];
    let mut count = 0_usize;
    while let Some(directory) = ahead.pop() {
        count = count.saturating_add(1);
        if count > MAX_DIRECTORIES {
            break;
        }
        let below = fs::read_dir(&directory).into_iter().flatten().flatten();
        let below = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let mut below: Vec<PathBuf> = below.map(|entry| entry.path()).collect();
        below.sort_unstable();
        ahead.append(&mut below);
        steps.push(Step { directory, name: None });
    }
    steps
}

/// The steps to `path`, which must be absolute. Ends at the first name that does not exist, or is no directory.
pub(super) fn steps(path: &Path) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut directory = PathBuf::from("/");
    let mut ahead: VecDeque<OsString> = names(path);
    let mut links = 0_usize;
    while let Some(name) = ahead.pop_front() {
        if name == ".." {
            directory.pop();
            continue;
        }
        let place = directory.join(&name);
        steps.push(Step { directory: directory.clone(), name: Some(name) });
        if steps.len() >= MAX_STEPS {
            break;
        }
        match fs::read_link(&place) {
            Ok(target) => {
                links = links.saturating_add(1);
                if links > MAX_LINKS {
                    break;
                }
                if target.is_absolute() {
                    directory = PathBuf::from("/");
                }
                for name in names(&target).into_iter().rev() {
                    ahead.push_front(name);
                }
            }
            Err(_) if place.is_dir() => directory = place,
            Err(_) => break,
        }
    }
    steps
}

fn names(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn trail_passes_through_links_of_files_and_directories() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("mount/..2024")).unwrap();
        fs::write(root.join("mount/..2024/c.toml"), "").unwrap();
        symlink("..2024", root.join("mount/..data")).unwrap();
        symlink("..data/c.toml", root.join("mount/c.toml")).unwrap();
        symlink(root.join("mount"), root.join("etc")).unwrap();
        let step =
            |directory: &str, name: &str| Step { directory: root.join(directory), name: Some(name.into()) };
        let found = steps(&root.join("etc/../etc/c.toml"));
        let tail: Vec<_> = found.into_iter().filter(|step| step.directory.starts_with(&root)).collect();
        let mount = |name| step("mount", name);
        let expected = [
            step("", "etc"),
            mount("c.toml"),
            mount("..data"),
            mount("..2024"),
            step("mount/..2024", "c.toml"),
        ];
        for step in &expected {
            assert!(tail.contains(step), "{step:?} is not in {tail:#?}");
        }
    }

    #[test]
    fn trail_ends_where_nothing_is_and_where_links_go_round() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        assert_eq!(steps(&root.join("a/b/c")).last().unwrap().name, Some("a".into()));
        symlink("round", root.join("round")).unwrap();
        assert!(steps(&root.join("round/x")).len() < MAX_STEPS);
    }
}
