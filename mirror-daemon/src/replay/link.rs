//! One connection to a shadow: the stream, and what is kept from one request to the next.

use bytes::{Buf, Bytes, BytesMut};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future as _;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_rustls::client::TlsStream;

/// Bytes of an answer read by one system call; one buffer per thread, for answers are thrown away at once.
const READ_BYTES: usize = 64 * 1024;
/// Most pieces written by one system call.
const MAX_SLICES: usize = 32;

thread_local! {
    static READ_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

/// The stream, with or without TLS.
#[derive(Debug)]
pub(super) enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

#[derive(Debug)]
pub(super) struct Link {
    transport: Transport,
    pub(super) peer: SocketAddr,
    /// The addresses that `peer` was last seen among.
    pub(super) generation: u64,
    /// Exchanges that came to their end on it; with one, it is a pooled connection.
    pub(super) exchanges: u64,
    /// Bytes still to be written, in order.
    pub(super) outgoing: VecDeque<Bytes>,
    /// Where chunk size lines are made.
    pub(super) chunk_lines: BytesMut,
    /// A recent moment; saves asking the clock where a coarse answer will do.
    pub(super) now: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Link {
    pub(super) fn new(transport: Transport, peer: SocketAddr, generation: u64) -> Self {
        let now = Instant::now();
        Self {
            transport,
            peer,
            generation,
            exchanges: 0,
            outgoing: VecDeque::new(),
            chunk_lines: BytesMut::new(),
            now,
            timer: Box::pin(sleep_until(now)),
        }
    }

    /// Writes from `outgoing`; returns how many bytes were accepted.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let mut count = 0_usize;
        for (slot, piece) in slices.iter_mut().zip(&self.outgoing) {
            *slot = IoSlice::new(piece);
            count = count.saturating_add(1);
        }
        let slices = slices.get(..count).unwrap_or_default();
        let written = match (&mut self.transport, slices) {
            (Transport::Plain(stream), [one]) => Pin::new(stream).poll_write(cx, one),
            (Transport::Plain(stream), many) => Pin::new(stream).poll_write_vectored(cx, many),
            (Transport::Tls(stream), many) => Pin::new(stream).poll_write_vectored(cx, many),
        };
        let written = ready!(written)?;
        self.advance(written);
        Poll::Ready(Ok(written))
    }

    /// Hands on what TLS still holds.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(_) => Poll::Ready(Ok(())),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    /// Reads once and shows what came to `take`; empty at the end of the stream.
    pub(super) fn poll_read<R>(
        &mut self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&[u8]) -> R,
    ) -> Poll<io::Result<R>> {
        READ_BUFFER.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            let read = match &mut self.transport {
                Transport::Plain(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
                Transport::Tls(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
            };
            ready!(read)?;
            Poll::Ready(Ok(take(buffer.filled())))
        })
    }

    /// Ready once `deadline` has passed. The timer underneath is only set anew when it must ring earlier, or
    /// has rung: a deadline that moves on with each request costs nothing.
    pub(super) fn poll_deadline(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        if deadline < self.timer.deadline() {
            self.timer.as_mut().reset(deadline);
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            if deadline <= self.timer.deadline() {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(deadline);
        }
    }

    fn advance(&mut self, mut written: usize) {
        while written > 0 {
            let Some(piece) = self.outgoing.front_mut() else { return };
            if written < piece.len() {
                piece.advance(written);
                return;
            }
            written = written.saturating_sub(piece.len());
            self.outgoing.pop_front();
        }
    }
}
