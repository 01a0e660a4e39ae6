//! A progress bar that appears when a call takes long, and is replaced in place where that is
//! possible.

use std::time::{Duration, Instant};

use super::content::{Content, escape};
use super::new_id;
use super::outlet::Outlet;

/// Silence before the first sign.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two updates in place.
const REDRAW: Duration = Duration::from_millis(200);
/// Between two lines, where nothing can be replaced: a quarter of the time so far, within these.
const LINES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));

/// Counts what is done, and says how far it is, how fast and how long it will take: nothing in the
/// first two seconds; then one bar, replaced in place at most five times a second, in thalweg's kernel;
/// elsewhere a line now and then, in a program on standard error. In the end it says how it ended.
///
/// ```
/// use thalweg::Bar;
/// let mut bar = Bar::new("reading", 3).unit("files");
/// for _ in 0..3 {
///     bar.add(1);
/// }
/// assert_eq!(bar.line(), "reading: 3 files");
/// ```
#[derive(Debug)]
pub struct Bar {
    name: String,
    unit: String,
    /// How many of what is counted make one unit.
    size: f64,
    done: usize,
    total: Option<usize>,
    /// All is done, however much that was.
    ended: bool,
    start: Instant,
    told: Option<Told>,
}

/// When and where the bar was last told.
#[derive(Debug)]
struct Told {
    at: Instant,
    outlet: Outlet,
    id: String,
}

impl Bar {
    /// `total` may be `None`, where nobody knows.
    pub fn new(name: &str, total: impl Into<Option<usize>>) -> Self {
        Bar {
            name: name.to_owned(),
            unit: String::new(),
            size: 1.0,
            done: 0,
            total: total.into(),
            ended: false,
            start: Instant::now(),
            told: None,
        }
    }

    /// What is counted, in the plural.
    pub fn unit(mut self, unit: &str) -> Self {
        self.unit = unit.to_owned();
        self
    }

    /// Counts bytes and shows them as MB.
    pub(crate) fn bytes(mut self) -> Self {
        self.size = 1e6;
        self.unit("MB")
    }

    /// So many more are done.
    pub fn add(&mut self, n: usize) {
        self.done += n;
        let now = Instant::now();
        let due = match &self.told {
            None => now - self.start > PATIENCE && self.total != Some(self.done),
            Some(told) if told.outlet.replaces() => now - told.at >= REDRAW,
            Some(told) => now - told.at >= ((now - self.start) / 4).clamp(LINES.0, LINES.1),
        };
        if due {
            self.tell(&self.line());
        }
    }

    /// All is done.
    pub fn finish(mut self) {
        self.ended = true;
    }

    /// How far it is: "sweep: 412 of 3000 plans, 137 plans/s, 19 s left".
    pub fn line(&self) -> String {
        let elapsed = self.start.elapsed();
        let mut line = format!("{}: {}", self.name, self.count());
        if self.is_complete() {
            return line;
        }
        if let Some(rate) = rate(self.done as f64 / self.size, &self.unit, elapsed) {
            line += &format!(", {rate}");
        }
        if let (Some(total), true) = (self.total, self.done > 0) {
            let left = elapsed.mul_f64(total.saturating_sub(self.done) as f64 / self.done as f64);
            line += &format!(", {} left", duration(left));
        }
        line
    }

    fn is_complete(&self) -> bool {
        self.ended || self.total.is_some_and(|total| self.done >= total)
    }

    /// "412 of 3000 plans"
    fn count(&self) -> String {
        let number = |n: usize| format!("{:.0}", n as f64 / self.size);
        let done = match self.total {
            Some(total) if !self.is_complete() => {
                format!("{} of {}", number(self.done), number(total))
            }
            _ => number(self.done),
        };
        format!("{done} {}", self.unit).trim_end().to_owned()
    }

    fn tell(&mut self, line: &str) {
        let (content, update, at) = (self.content(line), self.told.is_some(), Instant::now());
        let new = || Told { at, outlet: Outlet::here(), id: new_id() };
        let told = self.told.get_or_insert_with(new);
        told.at = at;
        match told.outlet.replaces() {
            true => told.outlet.show(&content, &told.id, update),
            false => told.outlet.tell(line),
        }
    }

    fn content(&self, line: &str) -> Content {
        let bar = match self.total {
            Some(total) if total > 0 => format!(
                "<progress value=\"{}\" max=\"{total}\" style=\"width:20em\"></progress> ",
                self.done.min(total)
            ),
            _ => String::new(),
        };
        let html = format!("<div class=\"thalweg-progress\">{bar}{}</div>", escape(line));
        Content::text(line).with("text/html", html)
    }
}

impl Drop for Bar {
    /// What was told of is told how it ended.
    fn drop(&mut self) {
        if self.told.is_none() {
            return;
        }
        let took = duration(self.start.elapsed());
        let line = match self.is_complete() {
            true => format!("{}: {} in {took}", self.name, self.count()),
            false => format!("{}: stopped at {} after {took}", self.name, self.count()),
        };
        self.tell(&line);
    }
}

/// The items, with a [`Bar`] beside them if they take long.
///
/// ```
/// use thalweg::progress;
/// let mut sum = 0;
/// for n in progress(0..100, "adding") {
///     sum += n;
/// }
/// assert_eq!(sum, 4950);
/// ```
pub fn progress<I: IntoIterator>(items: I, name: &str) -> Tracked<I::IntoIter> {
    let items = items.into_iter();
    let total = match items.size_hint() {
        (least, Some(most)) if least == most => Some(most),
        _ => None,
    };
    let bar = Bar::new(name, total);
    Tracked { items, bar, begun: false }
}

/// Items that are counted as they are used.
#[derive(Debug)]
pub struct Tracked<I> {
    items: I,
    bar: Bar,
    begun: bool,
}

impl<I> Tracked<I> {
    /// What the items are, in the plural.
    pub fn unit(mut self, unit: &str) -> Self {
        self.bar = self.bar.unit(unit);
        self
    }
}

impl<I: Iterator> Iterator for Tracked<I> {
    type Item = I::Item;

    /// The next one; the one before is done.
    fn next(&mut self) -> Option<I::Item> {
        if self.begun {
            self.bar.add(1);
        }
        let next = self.items.next();
        self.begun = next.is_some();
        self.bar.ended |= next.is_none();
        next
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.items.size_hint()
    }
}

/// "137 plans/s", or "3.1 s each"; absent before the first.
pub(crate) fn rate(done: f64, unit: &str, elapsed: Duration) -> Option<String> {
    let per_second = done / elapsed.as_secs_f64();
    if !per_second.is_finite() || per_second <= 0.0 {
        return None;
    }
    let space = if unit.is_empty() { "" } else { " " };
    Some(match per_second {
        ..1.0 => format!("{:.1} s each", 1.0 / per_second),
        ..10.0 => format!("{per_second:.1}{space}{unit}/s"),
        _ => format!("{per_second:.0}{space}{unit}/s"),
    })
}

/// "1.4 s", "19 s", "3 min 20 s", "2 h 5 min"
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64().round() as u64;
    match seconds {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}
