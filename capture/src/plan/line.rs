//! Batches on their way through stages, and the closed form of how long they take.

/// One stage that every batch passes.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// What happens in it.
    pub name: &'static str,
    /// Seconds for a batch.
    pub seconds: f64,
}

/// Workers beside each other, each with its own stages one after the other; then a stage that all of
/// them share. Between two stages waits a bounded queue.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Workers; batch `i` is worker `i % workers`'s.
    pub workers: usize,
    /// Stages of each worker, in order; one at least.
    pub own: Vec<Stage>,
    /// The stage they share (the disk).
    pub shared: Stage,
}

impl Line {
    /// Batches a second once the line is full: those of the slowest stage.
    pub fn rate(&self) -> f64 {
        let own = self.workers as f64 / self.slowest().seconds;
        own.min(1.0 / self.shared.seconds)
    }

    /// The stage that sets the rate.
    pub fn bottleneck(&self) -> &Stage {
        let slowest = self.slowest();
        let shared = self.shared.seconds * self.workers as f64 >= slowest.seconds;
        if shared { &self.shared } else { slowest }
    }

    /// Seconds for `batches` of equal batches, filling and draining included. Exact, whatever the
    /// queues' length: with equal batches no queue but that of the slowest stage ever fills.
    pub fn seconds(&self, batches: usize) -> f64 {
        if batches == 0 {
            return 0.0;
        }
        let fill: f64 = self.own.iter().map(|stage| stage.seconds).sum();
        let (slowest, shared) = (self.slowest().seconds, self.shared.seconds);
        let rounds = batches.div_ceil(self.workers);
        if shared * self.workers as f64 >= slowest {
            // The shared stage begins when the first batch arrives, and never waits again.
            return fill + batches as f64 * shared;
        }
        // Each round arrives `slowest` after the one before; the last may be short.
        let last = batches - (rounds - 1) * self.workers;
        fill + (rounds - 1) as f64 * slowest + last as f64 * shared
    }

    fn slowest(&self) -> &Stage {
        self.own.iter().fold(&self.own[0], |slowest, stage| {
            if stage.seconds > slowest.seconds { stage } else { slowest }
        })
    }
}
