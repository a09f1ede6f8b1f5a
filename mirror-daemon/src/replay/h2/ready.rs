//! Tells one task which of its parts have to be looked at.

use super::MAX_STREAMS;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

/// One mark for each stream's slot, and one for the connection itself.
const MARKS: usize = MAX_STREAMS + 1;
const WORDS: usize = MARKS.div_ceil(64);
/// The mark of the connection.
pub(super) const CONNECTION: usize = MAX_STREAMS;

/// The marks of one connection. While the task runs, marking wakes nobody.
#[derive(Debug, Default)]
pub(super) struct Ready {
    words: [AtomicU64; WORDS],
    task: Mutex<Option<Waker>>,
}

impl Ready {
    /// A waker that sets the mark `number`.
    pub(super) fn waker(self: &Arc<Self>, number: usize) -> Waker {
        Waker::from(Arc::new(Mark { number, ready: Arc::clone(self) }))
    }

    /// Sets a mark, and wakes the task if it waits.
    pub(super) fn mark(&self, number: usize) {
        let Some(word) = self.words.get(number / 64) else { return };
        word.fetch_or(1 << (number % 64), Ordering::AcqRel);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            task.wake();
        }
    }

    /// The marks that are set, each once; clears them.
    pub(super) fn take(&self) -> impl Iterator<Item = usize> + use<> {
        let mut words = [0_u64; WORDS];
        for (taken, word) in words.iter_mut().zip(&self.words) {
            *taken = word.swap(0, Ordering::AcqRel);
        }
        (0..MARKS)
            .filter(move |number| words.get(number / 64).is_some_and(|word| word >> (number % 64) & 1 == 1))
    }

    pub(super) fn is_marked(&self) -> bool {
        self.words.iter().any(|word| word.load(Ordering::Acquire) != 0)
    }

    /// The task runs: it will look at the marks itself.
    pub(super) fn disarm(&self) {
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The task goes to wait; woken at once if there is a mark.
    pub(super) fn arm(&self, task: &Waker) {
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task.clone());
        if self.is_marked() {
            self.disarm();
            task.wake_by_ref();
        }
    }
}

#[derive(Debug)]
struct Mark {
    number: usize,
    ready: Arc<Ready>,
}

impl Wake for Mark {
    fn wake(self: Arc<Self>) {
        self.ready.mark(self.number);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.mark(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn marks_are_told_once_and_wake_only_a_task_that_waits() {
        let (ready, count) = (Arc::new(Ready::default()), Arc::new(Count::default()));
        let task = Waker::from(Arc::clone(&count));
        let wakers = [0, 63, 64, CONNECTION].map(|number| ready.waker(number));
        wakers.iter().for_each(Waker::wake_by_ref);
        wakers.iter().for_each(Waker::wake_by_ref);
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        assert_eq!(ready.take().collect::<Vec<_>>(), [0, 63, 64, CONNECTION]);
        assert!(!ready.is_marked());
        ready.arm(&task);
        wakers.iter().for_each(Waker::wake_by_ref);
        assert_eq!(count.0.load(Ordering::Relaxed), 1, "one wake-up for all");
        ready.arm(&task);
        assert_eq!(count.0.load(Ordering::Relaxed), 2, "marked before it waited");
    }
}
