//! Manifests in a directory, as far as they can be read.

use crate::kube::{Finding, MAX_MANIFEST_BYTES, Objects, documents};
use serde_json::Value;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Most files below one directory.
const MAX_FILES: usize = 10_000;
/// Most bytes of all of them.
const MAX_TOTAL_BYTES: usize = 64 * 1024 * 1024;
/// How deep directories may be nested.
const MAX_DEPTH: usize = 16;

/// Why a directory can't be read as a whole.
#[derive(Debug, thiserror::Error)]
pub(super) enum ManifestsError {
    /// The file system says so.
    #[error("{} can't be read", path.display())]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// More files or bytes than anyone has.
    #[error("{} holds more than {what}", path.display())]
    TooLarge {
        /// The directory.
        path: PathBuf,
        /// The bound.
        what: String,
    },
}

/// All objects in the manifests (`*.yaml`, `*.yml`, `*.json`) below `directory`. Names that start with a dot
/// are passed over: what they hold is reached by other names in a mounted ConfigMap.
///
/// # Errors
/// A file or directory can't be read, or there is too much: half of the rules would be other rules.
pub(super) fn read(directory: &Path) -> Result<(Objects, Vec<Finding>), ManifestsError> {
    let mut files = Vec::new();
    collect(directory, MAX_DEPTH, &mut files)?;
    if files.len() > MAX_FILES {
        let what = format!("{MAX_FILES} manifests");
        return Err(ManifestsError::TooLarge { path: directory.to_owned(), what });
    }
    let (mut values, mut findings, mut bytes): (Vec<Value>, _, usize) = (vec![], vec![], 0);
    for path in files {
        let text = read_text(&path)?;
        bytes = bytes.saturating_add(text.len());
        if bytes > MAX_TOTAL_BYTES {
            let what = format!("{MAX_TOTAL_BYTES} bytes of manifests");
            return Err(ManifestsError::TooLarge { path: directory.to_owned(), what });
        }
        match documents(&text, &path.display().to_string()) {
            Ok(found) => values.extend(found),
            Err(finding) => findings.push(finding),
        }
    }
    let (objects, more) = Objects::from_documents(values);
    findings.extend(more);
    Ok((objects, findings))
}

/// Links to files are followed, links to directories are not: they may go round.
fn collect(directory: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), ManifestsError> {
    let unreadable = |source| ManifestsError::Unreadable { path: directory.to_owned(), source };
    let Some(depth) = depth.checked_sub(1) else {
        let what = format!("{MAX_DEPTH} directories in one another");
        return Err(ManifestsError::TooLarge { path: directory.to_owned(), what });
    };
    let mut entries =
        fs::read_dir(directory).map_err(unreadable)?.collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    entries.sort_unstable_by_key(fs::DirEntry::file_name);
    for entry in entries {
        if files.len() > MAX_FILES {
            break;
        }
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if entry.file_type().map_err(unreadable)?.is_dir() {
            collect(&path, depth, files)?;
        } else if is_manifest(&path) && path.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ["yaml", "yml", "json"].iter().any(|known| ending == *known))
}

/// Bytes that are no UTF-8 are replaced; the parser says where it stumbles over them.
fn read_text(path: &Path) -> Result<String, ManifestsError> {
    let unreadable = |source| ManifestsError::Unreadable { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    // One byte more than is allowed tells that there is too much.
    let most = u64::try_from(MAX_MANIFEST_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path).map_err(unreadable)?.take(most).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn manifests_below_a_directory_are_read_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let service = |name: &str| format!("apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir_all(root.join("..2026")).unwrap();
        fs::write(root.join("one.yaml"), service("one")).unwrap();
        fs::write(root.join("a/b/two.yml"), service("two")).unwrap();
        fs::write(
            root.join("a/three.json"),
            r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"three"}}"#,
        )
        .unwrap();
        fs::write(root.join("..2026/four.yaml"), service("four")).unwrap();
        fs::write(root.join("README.md"), "a: [").unwrap();
        fs::write(root.join("bad.yaml"), "a: [").unwrap();
        symlink("..2026/four.yaml", root.join("four.yaml")).unwrap();
        symlink(".", root.join("round")).unwrap();
        let (objects, findings) = read(root).unwrap();
        assert_eq!(objects.len(), 4);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].object.to_string().ends_with("bad.yaml"), "{findings:?}");
    }

    #[test]
    fn directory_that_is_not_there_is_an_error() {
        assert!(matches!(read(Path::new("/nowhere/at/all")), Err(ManifestsError::Unreadable { .. })));
    }
}
