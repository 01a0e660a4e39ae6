//! How far a sweep is, and whether it should go on.

use std::fmt;
use std::io::Write;
use std::time::{Duration, Instant};

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
        write!(f, "{} of {} plans, {:.0} plans/s", self.done, self.total, self.per_second())?;
        match self.left() {
            Some(left) => write!(f, ", {:.0} s left", left.as_secs_f64()),
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
}

impl<'a> SweepOptions<'a> {
    /// The defaults: at most half of the free memory; progress on standard error.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes that the kept stream, keys and values and the batches may take together.
    pub fn cap(mut self, bytes: u64) -> Self {
        self.cap = Some(bytes);
        self
    }

    /// Calls a function after each batch in place of the line on standard error; when it returns
    /// false the sweep stops and returns what it has.
    pub fn watch(mut self, watcher: impl FnMut(Progress) -> bool + 'a) -> Self {
        self.watch = Some(Box::new(watcher));
        self
    }
}

impl fmt::Debug for SweepOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SweepOptions {{ cap {:?}, watched {} }}", self.cap, self.watch.is_some())
    }
}

/// Silence for this long, and between two lines.
const PATIENCE: Duration = Duration::from_secs(2);

/// Counts what is done and tells.
pub(super) struct Watch<'a> {
    options: SweepOptions<'a>,
    done: usize,
    total: usize,
    start: Instant,
    told: Instant,
    stopped: bool,
}

impl<'a> Watch<'a> {
    pub(super) fn new(total: usize, options: SweepOptions<'a>) -> Self {
        let now = Instant::now();
        Watch { options, done: 0, total, start: now, told: now, stopped: false }
    }

    /// So many more plans are done.
    pub(super) fn add(&mut self, n: usize) {
        self.done += n;
        let (done, total, elapsed) = (self.done, self.total, self.start.elapsed());
        let progress = Progress { done, total, elapsed };
        if let Some(watch) = &mut self.options.watch {
            self.stopped |= !watch(progress);
        } else if self.told.elapsed() > PATIENCE && done < total {
            // Nobody is told where standard error is closed, and no sweep fails for that.
            let _ = writeln!(std::io::stderr(), "sweep: {progress}");
            self.told = Instant::now();
        }
    }

    /// Whether the watcher wants no more.
    pub(super) fn stopped(&self) -> bool {
        self.stopped
    }
}
