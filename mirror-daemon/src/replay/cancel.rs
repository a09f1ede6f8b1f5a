//! Tells a shadow request how its original went on after it was whole.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::oneshot;

/// The captured side. Dropped without a word, it says that the original's answer is at its end, or that nobody
/// watches it any more.
#[derive(Debug)]
pub struct Canceller(oneshot::Sender<OriginalEnd>);

/// The shadow's side.
#[derive(Debug)]
pub struct Original(oneshot::Receiver<OriginalEnd>);

/// How an original ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginalEnd {
    /// The client wanted no more of its answer.
    Cancelled,
    /// Its connection was closed. Whether it had been answered to its end is not always seen.
    Gone,
    /// It was answered, or is not watched any more.
    Over,
}

/// Both sides for one request.
#[must_use]
pub fn original() -> (Canceller, Original) {
    let (sender, receiver) = oneshot::channel();
    (Canceller(sender), Original(receiver))
}

impl Canceller {
    /// The original was cancelled. Never waits.
    pub fn cancel(self) {
        // Nobody listens any more: the shadow has answered.
        let _ = self.0.send(OriginalEnd::Cancelled);
    }

    /// The original's connection was closed. Never waits.
    pub fn leave(self) {
        let _ = self.0.send(OriginalEnd::Gone);
    }

    /// True once nobody listens any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.is_closed()
    }
}

impl Original {
    /// Ready once the original has ended, and not to be asked again then; else wakes `cx` when it has.
    pub fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<OriginalEnd> {
        Pin::new(&mut self.0).poll(cx).map(|told| told.unwrap_or(OriginalEnd::Over))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    #[test]
    fn ends_of_originals_are_told_apart() {
        let mut cx = Context::from_waker(Waker::noop());
        let (canceller, mut told) = original();
        assert_eq!(told.poll_end(&mut cx), Poll::Pending);
        canceller.cancel();
        assert_eq!(told.poll_end(&mut cx), Poll::Ready(OriginalEnd::Cancelled));
        let (canceller, mut told) = original();
        canceller.leave();
        assert_eq!(told.poll_end(&mut cx), Poll::Ready(OriginalEnd::Gone));
        let (canceller, mut told) = original();
        drop(canceller);
        assert_eq!(told.poll_end(&mut cx), Poll::Ready(OriginalEnd::Over));
    }
}
