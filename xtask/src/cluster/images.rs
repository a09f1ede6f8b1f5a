//! The images of a cluster, each made of files that are there: there is no registry to ask.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::binaries;
use super::layout::Layout;
use crate::image::archive::Image;
use crate::run;
use crate::setup;

const PAUSE_SOURCE: &str = include_str!("files/pause.c");

/// For programs that ask who they are.
const USERS: &str = "root:x:0:0:root:/:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n";
const GROUPS: &str = "root:x:0:\nnogroup:x:65534:\n";

/// What pods need whatever they do, and the app of the K8sGateway guide.
pub(crate) const BASE: [&str; 3] = ["pause", "coredns", "go-httpbin"];

/// How images are named in the cluster.
pub(crate) fn reference(name: &str) -> String {
    format!("localhost/{name}:dev")
}

/// Writes an image's archive into the cluster's state and gives its path.
///
/// # Errors
/// When a file of it is missing, or there is no such image.
pub(crate) fn write(layout: &Layout, name: &str) -> Result<PathBuf> {
    let dir = layout.state().join("images");
    let archive = dir.join(format!("{name}.tar"));
    image(name, &dir)?.write(&[&reference(name)], &archive)?;
    Ok(archive)
}

fn image(name: &str, dir: &Path) -> Result<Image> {
    match name {
        "pause" => pause(dir),
        "coredns" | "go-httpbin" | "envoy-gateway" => go_program(name),
        "nginx" => nginx(),
        "envoy" => envoy(),
        _ => bail!("there is no image {name}"),
    }
}

fn pause(dir: &Path) -> Result<Image> {
    std::fs::create_dir_all(dir)?;
    let (source, program) = (dir.join("pause.c"), dir.join("pause"));
    std::fs::write(&source, PAUSE_SOURCE)?;
    let mut compile = Command::new("cc");
    run::run(compile.args(["-static", "-Os", "-s", "-o"]).args([&program, &source]))?;
    let mut image = Image::new(&["/pause"]);
    image.file(program, "/pause", 0o755);
    // Kubernetes runs it as nobody elsewhere, too.
    image.user = Some("65534:65534".to_owned());
    Ok(image)
}

/// A static program and nothing else.
fn go_program(name: &str) -> Result<Image> {
    let path = format!("/{name}");
    let mut image = Image::new(&[&path]);
    image.file(binaries::dir()?.join(name), &path, 0o755);
    Ok(image)
}

/// Debian's nginx. Its configuration comes from the pod.
fn nginx() -> Result<Image> {
    let mut image = Image::new(&["/usr/sbin/nginx", "-e", "/dev/stderr", "-c", "/etc/nginx/nginx.conf"]);
    let program = run::find("nginx").context("nginx is not installed")?;
    with_libraries(&mut image, &program, "/usr/sbin/nginx")?;
    users(&mut image);
    for dir in ["/var/lib/nginx", "/var/log/nginx", "/etc/nginx"] {
        image.directory(dir, 0o755);
    }
    Ok(image)
}

/// Envoy as PyPI has it.
fn envoy() -> Result<Image> {
    let mut image = Image::new(&["/usr/local/bin/envoy"]);
    let program = setup::envoy().context("Envoy is not installed")?;
    with_libraries(&mut image, &program, "/usr/local/bin/envoy")?;
    users(&mut image);
    Ok(image)
}

fn users(image: &mut Image) {
    image.text(USERS, "/etc/passwd");
    image.text(GROUPS, "/etc/group");
    image.directory("/tmp", 0o1777);
    image.directory("/run", 0o755);
}

/// A program with its loader and libraries, at the paths where the loader looks for them here, too.
fn with_libraries(image: &mut Image, program: &Path, to: &str) -> Result<()> {
    let program = program.canonicalize().with_context(|| format!("no {}", program.display()))?;
    let listed = run::output(Command::new("ldd").arg(&program))?;
    for library in libraries(&listed) {
        image.file(library, library, 0o755);
    }
    image.file(program, to, 0o755);
    Ok(())
}

/// The paths in what ldd says: `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x...)`, `/lib64/ld-linux... (0x...)`.
fn libraries(listed: &str) -> Vec<&str> {
    listed.lines().filter_map(library).collect()
}

fn library(line: &str) -> Option<&str> {
    let (path, _) = line.trim().rsplit_once(" (")?;
    let path = path.rsplit_once("=> ").map_or(path, |(_, path)| path);
    path.starts_with('/').then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_found_in_what_ldd_says() {
        let listed = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(libraries(listed), ["/lib/x86_64-linux-gnu/libz.so.1", "/lib64/ld-linux-x86-64.so.2"]);
        assert!(libraries("\tstatically linked\n").is_empty());
    }
}
