//! Answers with an end: in time for their head, in bytes for their body.

use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::{Request, Response};
use std::error::Error;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tower::{BoxError, Service};

/// Most bytes of an answer that is no watch, e.g. of one page of a list.
pub const MAX_PAGE_BYTES: usize = 8 * 1024 * 1024;
/// Most bytes of one event of a watch. API servers store no object above 1.5 MiB.
pub const MAX_LINE_BYTES: usize = 4 * 1024 * 1024;

/// An answer was longer than is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the API server's answer has more than {most} bytes in one {of}")]
pub struct TooLarge {
    /// What is allowed, in bytes.
    pub most: usize,
    /// In what: a page, or an event of a watch.
    pub of: &'static str,
}

impl TooLarge {
    /// Whether this is the cause of `error`.
    #[must_use]
    pub fn caused(error: &(dyn Error + 'static)) -> bool {
        /// How far causes are followed.
        const MAX_DEPTH: usize = 16;
        let causes = std::iter::successors(Some(error), |error| inner(*error));
        causes.take(MAX_DEPTH).any(|cause| cause.is::<Self>())
    }
}

/// What caused `error`. An error within an `io::Error` is not its source.
fn inner<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

/// The head of an answer did not come in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the API server did not answer within {} s", .0.as_secs())]
pub(super) struct NoAnswer(Duration);

/// A client whose answers are bounded.
#[derive(Clone, Debug)]
pub(super) struct Bounded<S> {
    inner: S,
    head_timeout: Duration,
}

impl<S> Bounded<S> {
    pub(super) const fn new(inner: S, head_timeout: Duration) -> Self {
        Self { inner, head_timeout }
    }
}

type Answering<B> = Pin<Box<dyn Future<Output = Result<Response<BoundedBody<B>>, BoxError>> + Send>>;

impl<S, Q, B> Service<Request<Q>> for Bounded<S>
where
    S: Service<Request<Q>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError> + 'static,
    B: Send + 'static,
{
    type Response = Response<BoundedBody<B>>;
    type Error = BoxError;
    type Future = Answering<B>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        let is_watch = super::is_watch(request.uri());
        let (answering, head_timeout) = (self.inner.call(request), self.head_timeout);
        Box::pin(async move {
            let answer =
                tokio::time::timeout(head_timeout, answering).await.map_err(|_| NoAnswer(head_timeout))?;
            Ok(answer.map_err(Into::into)?.map(|body| BoundedBody { inner: body, is_watch, bytes: 0 }))
        })
    }
}

/// A body with a bound: a watch's for each line, all others' for the whole.
#[derive(Debug)]
pub(super) struct BoundedBody<B> {
    inner: B,
    is_watch: bool,
    /// Since the start of the line, or of the body.
    bytes: usize,
}

impl<B> BoundedBody<B> {
    fn count(&mut self, chunk: &[u8]) -> Result<(), TooLarge> {
        let (most, of) = if self.is_watch { (MAX_LINE_BYTES, "event") } else { (MAX_PAGE_BYTES, "page") };
        let mut lines = chunk.split(|byte| self.is_watch && *byte == b'\n');
        let first = lines.next().unwrap_or_default();
        self.bytes = self.bytes.saturating_add(first.len());
        for line in lines {
            if self.bytes > most {
                break;
            }
            self.bytes = line.len();
        }
        if self.bytes > most { Err(TooLarge { most, of }) } else { Ok(()) }
    }
}

impl<B> Body for BoundedBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(frame) = ready!(Pin::new(&mut self.inner).poll_frame(context)) else {
            return Poll::Ready(None);
        };
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => return Poll::Ready(Some(Err(error.into()))),
        };
        let counted = frame.data_ref().map_or(Ok(()), |chunk| self.count(chunk));
        Poll::Ready(Some(counted.map(|()| frame).map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(is_watch: bool) -> BoundedBody<()> {
        BoundedBody { inner: (), is_watch, bytes: 0 }
    }

    #[test]
    fn a_page_is_bounded_as_a_whole() {
        let mut page = body(false);
        assert_eq!(page.count(&vec![b'\n'; MAX_PAGE_BYTES]), Ok(()));
        assert!(page.count(b"x").is_err());
    }

    #[test]
    fn a_watch_is_bounded_by_the_line() {
        let mut watch = body(true);
        let line = vec![b'x'; MAX_LINE_BYTES];
        for _ in 0..3 {
            assert_eq!(watch.count(&line), Ok(()));
            assert_eq!(watch.count(b"\n"), Ok(()));
        }
        assert_eq!(watch.count(&line), Ok(()));
        assert!(watch.count(b"x\n").is_err(), "the line that ends here is too long");
        let mut watch = body(true);
        let mut chunk = b"short\n".to_vec();
        chunk.extend(&line);
        assert_eq!(watch.count(&chunk), Ok(()));
        assert!(watch.count(b"x").is_err());
    }

    #[test]
    fn cause_is_found_below_other_errors() {
        let error = io::Error::other(TooLarge { most: 1, of: "page" });
        let error = io::Error::other(error);
        assert!(TooLarge::caused(&error));
        assert!(!TooLarge::caused(&io::Error::other("else")));
    }
}
