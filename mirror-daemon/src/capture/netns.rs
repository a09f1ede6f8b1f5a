//! Work in another network namespace, on a thread of its own.

use super::error::{CaptureError, NETNS_CAPABILITIES};
use super::place::open_namespace;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

/// The network namespace of the calling thread; others may be elsewhere for a moment.
pub(crate) const OF_THIS_THREAD: &str = "/proc/thread-self/ns/net";

/// Runs `work` in the namespace at `path`, or here when `path` is `None`. The calling thread stays where it is.
///
/// # Errors
/// When the namespace cannot be opened or entered, and whatever `work` says.
pub(crate) fn within<T: Send>(
    path: Option<&Path>,
    work: impl FnOnce() -> Result<T, CaptureError> + Send,
) -> Result<T, CaptureError> {
    let Some(path) = path else { return work() };
    let refused = |source: io::Error| {
        if source.kind() == io::ErrorKind::PermissionDenied {
            return CaptureError::NotPermitted {
                what: "enter a network namespace",
                capabilities: NETNS_CAPABILITIES,
                source: Box::new(source),
            };
        }
        CaptureError::Netns { path: path.to_owned(), source }
    };
    let namespace = open_namespace(path).map_err(refused)?;
    std::thread::scope(|scope| {
        let worker = scope.spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|errno| refused(errno.into()))?;
            work()
        });
        worker.join().unwrap_or_else(|_| Err(refused(io::Error::other("the thread in it panicked"))))
    })
}

/// `path` in words, for messages.
pub(crate) fn in_words(path: Option<&Path>) -> String {
    path.map_or_else(|| "this network namespace".to_owned(), |path| path.display().to_string())
}
