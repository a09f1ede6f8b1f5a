//! PURE. How long things take, in buckets.

use std::time::Duration;

/// Upper bounds of the buckets, in seconds.
pub const ATTACH_BUCKETS_SECONDS: [f64; 10] = [0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];

/// How long things took. All of it only grows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Latency {
    /// Sum, in seconds.
    pub sum_seconds: f64,
    /// Of all.
    pub count: u64,
    /// Those in each bucket of [`ATTACH_BUCKETS_SECONDS`], and not in an earlier one.
    pub buckets: [u64; ATTACH_BUCKETS_SECONDS.len()],
}

impl Latency {
    /// Counts one.
    pub fn add(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        self.sum_seconds += seconds;
        self.count = self.count.saturating_add(1);
        let bucket =
            ATTACH_BUCKETS_SECONDS.iter().zip(&mut self.buckets).find(|(bound, _)| seconds <= **bound);
        if let Some((_, count)) = bucket {
            *count = count.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_in_the_first_bucket_that_holds_it() {
        let mut latency = Latency::default();
        for milliseconds in [10, 50, 51, 40_000] {
            latency.add(Duration::from_millis(milliseconds));
        }
        assert_eq!((latency.count, latency.buckets[0], latency.buckets[1]), (4, 2, 1));
        assert_eq!(latency.buckets.iter().sum::<u64>(), 3);
        assert!((latency.sum_seconds - 40.111).abs() < 1e-9);
    }
}
