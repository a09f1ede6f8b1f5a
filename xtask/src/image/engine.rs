//! Making the image with a container engine, and looking into what it made.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::NAMES;
use super::archive::{self, Image};
use crate::run;

/// The first of these that works is taken.
const ENGINES: [&str; 2] = ["docker", "podman"];

/// Path to mode and, of a file, the hash of its bytes.
type Listing = BTreeMap<String, (u32, Option<String>)>;

/// A container engine that answers; docker's program alone is none.
pub(super) fn find() -> Option<String> {
    let works = |name: &&str| run::ask(Command::new(name).arg("info")).is_some_and(|said| !said.is_empty());
    ENGINES.into_iter().find(works).map(str::to_owned)
}

/// Builds deploy/Dockerfile and saves the image.
///
/// # Errors
/// When the engine fails.
pub(super) fn build(engine: &str, to: &Path) -> Result<()> {
    let mut build = Command::new(engine);
    build.current_dir(run::root()).args(["build", "--file", "deploy/Dockerfile"]);
    build.args(NAMES.iter().flat_map(|name| ["--tag", name])).arg(".");
    run::run(&mut build)?;
    std::fs::create_dir_all(to.parent().context("an archive has a directory")?)?;
    drop(std::fs::remove_file(to));
    run::run(Command::new(engine).args(["save", "--output"]).arg(to).args(NAMES))
}

/// Compares an image with one from files. The same files with the same modes must be there; other bytes in one
/// are told (another compiler builds another program), and are no failure.
///
/// # Errors
/// When there are other files.
pub(super) fn compare(archive: &Path, image: &Image) -> Result<()> {
    let (there, here) = (list(archive)?, list_of(image)?);
    let modes = |listing: &Listing| -> BTreeMap<String, u32> {
        listing.iter().map(|(name, (mode, _))| (name.clone(), *mode)).collect()
    };
    if modes(&there) != modes(&here) {
        bail!("the images differ:\n  by the engine {:?}\n  from files {:?}", modes(&there), modes(&here));
    }
    for (name, file) in here.iter().filter(|(name, file)| there.get(*name) != Some(file)) {
        println!("  note: {name} has other bytes ({:?}): is it another compiler?", file.1);
    }
    println!("  both images have the same {} files and directories", here.len());
    Ok(())
}

fn list_of(image: &Image) -> Result<Listing> {
    let dir = tempfile::tempdir()?;
    image.unpack(dir.path())?;
    let mut listing = Listing::new();
    list_below(dir.path(), dir.path(), &mut listing)?;
    Ok(listing)
}

/// What is in the layers of an archive.
fn list(archive: &Path) -> Result<Listing> {
    let (image, root) = (tempfile::tempdir()?, tempfile::tempdir()?);
    run::run(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(image.path()))?;
    let manifest = std::fs::read(image.path().join("manifest.json")).context("no manifest in the image")?;
    let manifest: Value = serde_json::from_slice(&manifest)?;
    let layers = manifest.pointer("/0/Layers").and_then(Value::as_array).context("no layers in the image")?;
    for layer in layers.iter().filter_map(Value::as_str) {
        let layer = image.path().join(layer);
        run::run(Command::new("tar").arg("-pxf").arg(layer).arg("-C").arg(root.path()))?;
    }
    let mut listing = Listing::new();
    list_below(root.path(), root.path(), &mut listing)?;
    Ok(listing)
}

fn list_below(root: &Path, dir: &Path, listing: &mut Listing) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let mode = path.symlink_metadata()?.permissions().mode() & 0o7777;
        let name = path.strip_prefix(root)?.display().to_string();
        let hash = if path.is_dir() { None } else { Some(archive::hex(&std::fs::read(&path)?)) };
        listing.insert(name, (mode, hash));
        if path.is_dir() {
            list_below(root, &path, listing)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(text: &str) -> Image {
        let mut image = Image::new(&["/bin/hello"]);
        image.text(text, "/bin/hello");
        image.directory("/tmp", 0o1777);
        image
    }

    #[test]
    fn image_that_has_another_file_differs() {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("image.tar");
        image("hello").write(&["localhost/hello:dev"], &archive).unwrap();
        compare(&archive, &image("hello")).unwrap();
        // Other bytes are told and no more.
        compare(&archive, &image("good-bye")).unwrap();
        let mut more = image("hello");
        more.text("", "/etc/more");
        assert!(compare(&archive, &more).is_err());
    }
}
