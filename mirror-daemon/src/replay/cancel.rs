//! Tells a shadow request that its original was cancelled.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::oneshot;

/// The captured side: dropped without a word, it cancels nothing.
#[derive(Debug)]
pub struct Canceller(oneshot::Sender<()>);

/// The shadow's side.
#[derive(Debug)]
pub struct Original(Option<oneshot::Receiver<()>>);

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
        let _ = self.0.send(());
    }

    /// True once nobody listens any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.is_closed()
    }
}

impl Original {
    /// Ready once the original was cancelled; else wakes `cx` when it is.
    pub fn poll_cancelled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(receiver) = &mut self.0 else { return Poll::Pending };
        match Pin::new(receiver).poll(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(()),
            Poll::Ready(Err(_)) => {
                self.0 = None;
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    #[test]
    fn cancelled_original_is_told_of_and_a_forgotten_one_is_not() {
        let mut cx = Context::from_waker(Waker::noop());
        let (canceller, mut told) = original();
        assert_eq!(told.poll_cancelled(&mut cx), Poll::Pending);
        canceller.cancel();
        assert_eq!(told.poll_cancelled(&mut cx), Poll::Ready(()));
        let (canceller, mut told) = original();
        drop(canceller);
        assert_eq!(told.poll_cancelled(&mut cx), Poll::Pending);
    }
}
