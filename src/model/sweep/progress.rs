//! How far a sweep is, and whether it should go on.

use std::fmt;
use std::time::{Duration, Instant};

use crate::interrupt;
use crate::show::{self, Bar};

/// How far a sweep is.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// Plans done.
    pub done: usize,
    /// Plans in all.
    pub total: usize,
    /// Since the sweep began.
    pub elapsed: Duration,
}

impl Progress {
    /// Plans a second so far; 0 before the first.
    pub fn per_second(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { self.done as f64 / seconds } else { 0.0 }
    }

    /// Time left at this pace; absent before the first plan is done.
    pub fn left(&self) -> Option<Duration> {
        let pace = self.per_second();
        let left = (self.total - self.done) as f64;
        (pace > 0.0).then(|| Duration::from_secs_f64(left / pace))
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} plans", self.done, self.total)?;
        if let Some(rate) = show::rate(self.done as f64, "plans", self.elapsed) {
            write!(f, ", {rate}")?;
        }
        match self.left() {
            Some(left) => write!(f, ", {} left", show::duration(left)),
            None => Ok(()),
        }
    }
}

/// Decides after each batch whether a sweep goes on.
type Watcher<'a> = Box<dyn FnMut(Progress) -> bool + 'a>;

/// What may be asked of a sweep beyond its plans.
///
/// ```
/// use thalweg::SweepOptions;
/// let mut seen = 0;
/// let options = SweepOptions::new().cap(1 << 30).watch(|progress| {
///     seen = progress.done;
///     progress.elapsed.as_secs() < 60 // stops after a minute, and returns what is done
/// });
/// # drop(options);
/// ```
#[derive(Default)]
pub struct SweepOptions<'a> {
    pub(super) cap: Option<u64>,
    watch: Option<Watcher<'a>>,
    within: Option<&'a mut Bar>,
}

impl<'a> SweepOptions<'a> {
    /// The defaults: at most half of the free memory; a [`Bar`] where it takes long.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes that the kept stream, keys and values and the batches may take together.
    pub fn cap(mut self, bytes: u64) -> Self {
        self.cap = Some(bytes);
        self
    }

    /// Calls a function after each batch, in place of the bar; when it returns false the sweep stops
    /// and returns what it has.
    pub fn watch(mut self, watcher: impl FnMut(Progress) -> bool + 'a) -> Self {
        self.watch = Some(Box::new(watcher));
        self
    }

    /// Counts on this bar in place of its own: the sweep is one of several.
    pub(crate) fn within(mut self, bar: &'a mut Bar) -> Self {
        self.within = Some(bar);
        self
    }
}

impl fmt::Debug for SweepOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SweepOptions {{ cap {:?}, watched {} }}", self.cap, self.watch.is_some())
    }
}

/// Counts what is done and tells.
pub(super) struct Watch<'a> {
    options: SweepOptions<'a>,
    own: Bar,
    done: usize,
    total: usize,
    start: Instant,
    stopped: bool,
}

impl<'a> Watch<'a> {
    pub(super) fn new(total: usize, options: SweepOptions<'a>) -> Self {
        let own = Bar::new("sweep", total).unit("plans");
        Watch { options, own, done: 0, total, start: Instant::now(), stopped: false }
    }

    /// So many more plans are done.
    pub(super) fn add(&mut self, n: usize) {
        self.done += n;
        let progress =
            Progress { done: self.done, total: self.total, elapsed: self.start.elapsed() };
        match (&mut self.options.watch, &mut self.options.within) {
            (Some(watch), _) => self.stopped |= !watch(progress),
            (None, Some(bar)) => bar.add(n),
            (None, None) => self.own.add(n),
        }
    }

    /// Whether the watcher wants no more.
    pub(super) fn stopped(&self) -> bool {
        self.stopped
    }

    /// An error of a batch; an interrupt says how far the sweep came.
    pub(super) fn retold(&self, error: anyhow::Error) -> anyhow::Error {
        let (done, total) = (self.done, self.total);
        interrupt::retold(error, || format!("sweep: interrupted after {done} of {total} plans"))
    }
}
