//! Tells a shadow request that its original was cancelled, or that its connection is gone.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::sync::oneshot;

/// What became of an original that was whole, before its answer is known to have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginalEnd {
    /// The client wanted no more of the answer.
    Cancelled,
    /// The connection was closed. Whether the answer had come to its end is not always seen.
    Gone,
}

/// The captured side: dropped without a word, it ends nothing.
#[derive(Debug)]
pub struct Canceller(oneshot::Sender<OriginalEnd>);

/// The shadow's side.
#[derive(Debug)]
pub struct Original(Option<oneshot::Receiver<OriginalEnd>>);

/// Both sides for one request.
#[must_use]
pub fn original() -> (Canceller, Original) {
    let (sender, receiver) = oneshot::channel();
    (Canceller(sender), Original(Some(receiver)))
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
    /// Ready, once, when the original has come to an end; else wakes `cx` when it does.
    pub fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<OriginalEnd> {
        let Some(receiver) = &mut self.0 else { return Poll::Pending };
        let told = ready!(Pin::new(receiver).poll(cx));
        self.0 = None;
        told.map_or(Poll::Pending, Poll::Ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    #[test]
    fn end_of_an_original_is_told_of_once_and_a_forgotten_one_is_not() {
        let mut cx = Context::from_waker(Waker::noop());
        for (end, tell) in [
            (OriginalEnd::Cancelled, Canceller::cancel as fn(Canceller)),
            (OriginalEnd::Gone, Canceller::leave),
        ] {
            let (canceller, mut told) = original();
            assert_eq!(told.poll_end(&mut cx), Poll::Pending);
            tell(canceller);
            assert_eq!(told.poll_end(&mut cx), Poll::Ready(end));
            assert_eq!(told.poll_end(&mut cx), Poll::Pending, "once");
        }
        let (canceller, mut told) = original();
        drop(canceller);
        assert_eq!(told.poll_end(&mut cx), Poll::Pending);
    }
}
