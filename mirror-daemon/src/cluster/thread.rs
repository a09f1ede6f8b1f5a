//! The thread on which everything runs that talks to the API server.

use std::io;
use std::thread::JoinHandle;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// A thread with an async runtime of its own. Its tasks end with it, and it ends when this is dropped.
#[derive(Debug)]
pub struct ClusterThread {
    handle: Handle,
    /// To the thread: its end, by being dropped.
    end_tx: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ClusterThread {
    /// Starts it.
    ///
    /// # Errors
    /// There is no memory, thread or descriptor left for it.
    pub fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end_tx, end_rx) = oneshot::channel();
        let thread = std::thread::Builder::new().name("cluster".to_owned()).spawn(move || {
            // An error is the sender's end, which is what is waited for.
            let _ = runtime.block_on(end_rx);
        })?;
        Ok(Self { handle, end_tx: Some(end_tx), thread: Some(thread) })
    }

    /// Where tasks are spawned.
    #[must_use]
    pub const fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for ClusterThread {
    fn drop(&mut self) {
        drop(self.end_tx.take());
        if let Some(thread) = self.thread.take() {
            // A panic has told its message already.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn tasks_of_the_thread_end_with_it() {
        let thread = ClusterThread::start().unwrap();
        let alive = Arc::new(());
        let held = Arc::clone(&alive);
        let (started_tx, started_rx) = std::sync::mpsc::channel();
        thread.handle().spawn(async move {
            started_tx.send(()).unwrap();
            std::future::pending::<()>().await;
            drop(held);
        });
        started_rx.recv().unwrap();
        assert_eq!(Arc::strong_count(&alive), 2);
        drop(thread);
        assert_eq!(Arc::strong_count(&alive), 1);
    }
}
