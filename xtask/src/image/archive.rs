//! A container image of one layer, from plain files, without a container engine: the archive that `docker save`
//! writes and that containerd, Docker and Podman import.
//!
//! The same files give the same bytes: entries are sorted, and owners, times and modes are fixed.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// A tar archive is made of these.
const BLOCK_BYTES: usize = 512;

/// Longest path in an entry's header.
const MAX_NAME_BYTES: usize = 100;

/// What an image consists of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Image {
    /// By path without leading slash; directories end with one.
    entries: BTreeMap<String, Entry>,
    /// The command that runs.
    pub(crate) entrypoint: Vec<String>,
    /// Numeric user, and group behind a colon; `None`: root.
    pub(crate) user: Option<String>,
}

#[derive(Clone, Debug)]
enum Entry {
    Directory { mode: u32 },
    File { mode: u32, from: Source },
}

#[derive(Clone, Debug)]
enum Source {
    Path(PathBuf),
    Text(String),
}

impl Image {
    /// An empty one.
    pub(crate) fn new(entrypoint: &[&str]) -> Self {
        let entrypoint = entrypoint.iter().map(|word| (*word).to_owned()).collect();
        Self { entries: BTreeMap::new(), entrypoint, user: None }
    }

    /// A file of this machine, at an absolute path of the image. Its directories come with it.
    pub(crate) fn file(&mut self, from: impl Into<PathBuf>, to: &str, mode: u32) {
        self.insert(to, Entry::File { mode, from: Source::Path(from.into()) });
    }

    /// A file with this text.
    pub(crate) fn text(&mut self, text: &str, to: &str) {
        self.insert(to, Entry::File { mode: 0o644, from: Source::Text(text.to_owned()) });
    }

    /// An empty directory.
    pub(crate) fn directory(&mut self, to: &str, mode: u32) {
        self.insert(&format!("{}/", to.trim_end_matches('/')), Entry::Directory { mode });
    }

    fn insert(&mut self, to: &str, entry: Entry) {
        let to = to.trim_start_matches('/');
        for (at, _) in to.trim_end_matches('/').match_indices('/') {
            let parent = to.get(..=at).unwrap_or_default().to_owned();
            self.entries.entry(parent).or_insert(Entry::Directory { mode: 0o755 });
        }
        self.entries.insert(to.to_owned(), entry);
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// When a file can't be read or the archive can't be written.
    pub(crate) fn write(&self, names: &[&str], to: &Path) -> Result<()> {
        let layer = self.layer()?;
        let layer_id = hex(&layer);
        let config = self.config(&layer_id).to_string().into_bytes();
        let config_name = format!("{}.json", hex(&config));
        let layer_name = format!("{layer_id}.tar");
        let manifest = json!([{ "Config": config_name, "RepoTags": names, "Layers": [layer_name] }]);
        let mut archive = Vec::with_capacity(layer.len().saturating_add(1 << 16));
        append(&mut archive, &config_name, 0o644, &config)?;
        append(&mut archive, &layer_name, 0o644, &layer)?;
        append(&mut archive, "manifest.json", 0o644, manifest.to_string().as_bytes())?;
        end(&mut archive);
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(to, archive).with_context(|| format!("cannot write {}", to.display()))
    }

    /// Writes its files into a directory, made if need be.
    ///
    /// # Errors
    /// When a file can't be read or written.
    pub(crate) fn unpack(&self, root: &Path) -> Result<()> {
        std::fs::create_dir_all(root).with_context(|| format!("cannot make {}", root.display()))?;
        for (name, entry) in &self.entries {
            let to = root.join(name);
            let mode = match entry {
                Entry::Directory { mode } => {
                    std::fs::create_dir_all(&to)?;
                    mode
                }
                Entry::File { mode, from } => {
                    std::fs::write(&to, from.read()?)?;
                    mode
                }
            };
            std::fs::set_permissions(&to, Permissions::from_mode(*mode))?;
        }
        Ok(())
    }

    fn config(&self, layer_id: &str) -> Value {
        let mut config =
            json!({ "Entrypoint": self.entrypoint, "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"] });
        if let (Some(user), Some(fields)) = (&self.user, config.as_object_mut()) {
            fields.insert("User".into(), json!(user));
        }
        json!({
            "architecture": architecture(),
            "os": "linux",
            "config": config,
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer_id}")] },
        })
    }

    fn layer(&self) -> Result<Vec<u8>> {
        let mut layer = Vec::new();
        for (name, entry) in &self.entries {
            match entry {
                Entry::Directory { mode } => append(&mut layer, name, *mode, &[])?,
                Entry::File { mode, from } => append(&mut layer, name, *mode, &from.read()?)?,
            }
        }
        end(&mut layer);
        Ok(layer)
    }
}

impl Source {
    fn read(&self) -> Result<Vec<u8>> {
        match self {
            Self::Path(path) => {
                std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
            }
            Self::Text(text) => Ok(text.clone().into_bytes()),
        }
    }
}

/// As image configurations name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One entry, in the ustar form of POSIX.1-1988: header, contents, zeros up to the next block.
fn append(archive: &mut Vec<u8>, name: &str, mode: u32, contents: &[u8]) -> Result<()> {
    if name.len() > MAX_NAME_BYTES {
        bail!("a path of more than {MAX_NAME_BYTES} bytes: {name}");
    }
    let kind = if name.ends_with('/') { b'5' } else { b'0' };
    let size = contents.len();
    let fields: [(usize, &[u8]); 9] = [
        (0, name.as_bytes()),
        (100, &octal(u64::from(mode), 7)),
        (108, &octal(0, 7)),
        (116, &octal(0, 7)),
        (124, &octal(u64::try_from(size)?, 11)),
        (136, &octal(0, 11)),
        (148, b"        "),
        (156, &[kind]),
        (257, b"ustar\x0000"),
    ];
    let mut header = [0_u8; BLOCK_BYTES];
    for (at, bytes) in fields {
        put(&mut header, at, bytes)?;
    }
    // The sum is taken with blanks in its own field.
    let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
    put(&mut header, 148, &octal(sum, 6))?;
    put(&mut header, 154, b"\0 ")?;
    archive.extend_from_slice(&header);
    archive.extend_from_slice(contents);
    archive.resize(archive.len().next_multiple_of(BLOCK_BYTES), 0);
    Ok(())
}

fn put(header: &mut [u8; BLOCK_BYTES], at: usize, bytes: &[u8]) -> Result<()> {
    let field = header.get_mut(at..at.saturating_add(bytes.len())).context("a field beyond its header")?;
    field.copy_from_slice(bytes);
    Ok(())
}

fn octal(number: u64, digits: usize) -> Vec<u8> {
    format!("{number:0digits$o}").into_bytes()
}

/// Two blocks of zeros end an archive.
fn end(archive: &mut Vec<u8>) {
    archive.resize(archive.len().saturating_add(2 * BLOCK_BYTES), 0);
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::run;

    fn image() -> Image {
        let mut image = Image::new(&["/bin/hello"]);
        image.text("hello\n", "/bin/hello");
        image.directory("/tmp", 0o1777);
        image
    }

    #[test]
    fn same_files_give_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("1.tar"), dir.path().join("2.tar"));
        image().write(&["localhost/hello:dev"], &first).unwrap();
        image().write(&["localhost/hello:dev"], &second).unwrap();
        assert_eq!(std::fs::read(first).unwrap(), std::fs::read(second).unwrap());
    }

    #[test]
    fn archive_and_layer_are_read_by_tar_and_hashes_are_right() {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("image.tar");
        image().write(&["localhost/hello:dev"], &archive).unwrap();
        run::output(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(dir.path())).unwrap();
        let manifest = std::fs::read(dir.path().join("manifest.json")).unwrap();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        let config_name = manifest[0]["Config"].as_str().unwrap();
        let config = std::fs::read(dir.path().join(config_name)).unwrap();
        assert_eq!(format!("{}.json", hex(&config)), config_name);
        let layer = dir.path().join(manifest[0]["Layers"][0].as_str().unwrap());
        let config: Value = serde_json::from_slice(&config).unwrap();
        let layer_id = format!("sha256:{}", hex(&std::fs::read(&layer).unwrap()));
        assert_eq!(config["rootfs"]["diff_ids"][0], layer_id);
        let listed = run::output(Command::new("tar").arg("-tvf").arg(&layer)).unwrap();
        let lines: Vec<&str> = listed.lines().collect();
        assert_eq!(lines.len(), 3, "{listed}");
        assert!(lines[0].starts_with("drwxr-xr-x") && lines[0].ends_with("bin/"), "{listed}");
        assert!(lines[1].starts_with("-rw-r--r--") && lines[1].ends_with("bin/hello"), "{listed}");
        assert!(lines[2].starts_with("drwxrwxrwt"), "{listed}");
    }

    #[test]
    fn path_that_no_header_holds_is_refused() {
        let mut image = Image::new(&["/x"]);
        image.text("", &"x".repeat(MAX_NAME_BYTES + 1));
        assert!(image.layer().is_err());
    }
}
