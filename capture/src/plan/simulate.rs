//! The same line found a second time, by discrete events: batches move when there is room, and wait
//! where there is none.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use thalweg::rng::Rng;

use super::Line;

/// How the seconds of one batch in one stage differ from the stage's mean.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Jitter {
    /// Not at all.
    None,
    /// Evenly within this share of the mean.
    Uniform(f64),
    /// Exponentially, as in the theory of queues.
    Exponential,
}

impl Jitter {
    fn draw(self, mean: f64, rng: &mut Rng) -> f64 {
        mean * match self {
            Jitter::None => 1.0,
            Jitter::Uniform(share) => 1.0 + share * (2.0 * rng.uniform() - 1.0),
            Jitter::Exponential => -(1.0 - rng.uniform()).ln(),
        }
    }
}

/// What a simulation saw.
#[derive(Debug, Clone, PartialEq)]
pub struct Simulated {
    /// When the last batch was done.
    pub seconds: f64,
    /// When each batch was done, in the order in which they were.
    pub done: Vec<f64>,
    /// Each batch, in the order in which they were done.
    pub order: Vec<usize>,
    /// The longest that each stage's queue was: the workers' stages, then the shared one.
    pub longest: Vec<usize>,
    /// Seconds that each stage worked, all workers together; the shared one last.
    pub busy: Vec<f64>,
    /// The most batches that were begun and not done, of any worker.
    pub under_way: usize,
}

impl Simulated {
    /// Batches a second between the first quarter and the last, without filling and draining.
    pub fn rate(&self) -> f64 {
        let (from, to) = (self.done.len() / 4, self.done.len() * 3 / 4);
        (to - from) as f64 / (self.done[to] - self.done[from])
    }
}

/// Sends `batches` through a line whose queues hold `room` batches each. A stage that is done keeps
/// its batch, and stands still, until the next queue has room: so backpressure reaches the first
/// stage, which begins a batch only when it is free.
pub fn simulate(line: &Line, batches: usize, room: usize, jitter: Jitter, seed: u64) -> Simulated {
    let mut state = State::new(line, batches, room);
    let mut rng = Rng::new(seed);
    let own = line.own.len();
    // The same batch takes the same seconds in the same stage, whatever the queues do.
    let lasts: Vec<Vec<f64>> = (0..batches)
        .map(|_| {
            let all = line.own.iter().chain([&line.shared]);
            all.map(|stage| jitter.draw(stage.seconds, &mut rng)).collect()
        })
        .collect();
    state.settle(0.0, &lasts);
    while let Some(Reverse((time, place))) = state.events.pop() {
        state.finish(place, f64::from_bits(time), own);
        state.settle(f64::from_bits(time), &lasts);
    }
    state.seen
}

/// A stage of one worker, or the shared one.
#[derive(Default)]
struct Place {
    queue: VecDeque<usize>,
    /// The batch in work, or done and waiting for room.
    holds: Option<usize>,
    /// Since when it has been waiting, as a number in the order of events.
    waits: Option<usize>,
}

struct State<'a> {
    line: &'a Line,
    room: usize,
    /// `worker * own + stage`, and the shared one last.
    places: Vec<Place>,
    /// Batches that each worker has not begun.
    left: Vec<VecDeque<usize>>,
    begun: Vec<usize>,
    /// Time (the bits of a positive f64 are in its order) and place.
    events: BinaryHeap<Reverse<(u64, usize)>>,
    clock: usize,
    seen: Simulated,
}

impl<'a> State<'a> {
    fn new(line: &'a Line, batches: usize, room: usize) -> Self {
        let (workers, own) = (line.workers, line.own.len());
        let left = (0..workers).map(|w| (w..batches).step_by(workers).collect()).collect();
        State {
            line,
            room,
            places: (0..=workers * own).map(|_| Place::default()).collect(),
            left,
            begun: vec![0; workers],
            events: BinaryHeap::new(),
            clock: 0,
            seen: Simulated {
                seconds: 0.0,
                done: Vec::new(),
                order: Vec::new(),
                longest: vec![0; own + 1],
                busy: vec![0.0; own + 1],
                under_way: 0,
            },
        }
    }

    fn shared(&self) -> usize {
        self.places.len() - 1
    }

    /// The stage of a place, counted along the line.
    fn stage(&self, place: usize) -> usize {
        let own = self.line.own.len();
        if place == self.shared() { own } else { place % own }
    }

    /// A place is done with its batch.
    fn finish(&mut self, place: usize, time: f64, own: usize) {
        if place < self.shared() {
            self.clock += 1;
            self.places[place].waits = Some(self.clock);
            return;
        }
        let batch = self.places[place].holds.take().unwrap_or_default();
        debug_assert!(own > 0);
        self.begun[batch % self.line.workers] -= 1;
        self.seen.order.push(batch);
        self.seen.done.push(time);
        self.seen.seconds = time;
    }

    /// Moves and begins what can be, until nothing can.
    fn settle(&mut self, time: f64, lasts: &[Vec<f64>]) {
        while self.begin(time, lasts) | self.pass_on() {}
        for (place, held) in self.places.iter().enumerate() {
            let own = self.line.own.len();
            let stage = if place == self.places.len() - 1 { own } else { place % own };
            self.seen.longest[stage] = self.seen.longest[stage].max(held.queue.len());
        }
    }

    /// Idle places take the next batch.
    fn begin(&mut self, time: f64, lasts: &[Vec<f64>]) -> bool {
        let mut any = false;
        for place in 0..self.places.len() {
            if self.places[place].holds.is_some() {
                continue;
            }
            let stage = self.stage(place);
            let first = stage == 0 && place < self.shared();
            let worker = place / self.line.own.len();
            let next = match first {
                true => self.left[worker].pop_front(),
                false => self.places[place].queue.pop_front(),
            };
            let Some(batch) = next else { continue };
            if first {
                self.begun[worker] += 1;
                self.seen.under_way = self.seen.under_way.max(self.begun[worker]);
            }
            self.places[place].holds = Some(batch);
            self.seen.busy[stage] += lasts[batch][stage];
            self.events.push(Reverse(((time + lasts[batch][stage]).to_bits(), place)));
            any = true;
        }
        any
    }

    /// Places that are done hand on, whoever has waited longest first. A free place counts as room.
    fn pass_on(&mut self) -> bool {
        let mut waiting: Vec<_> = (0..self.places.len())
            .filter_map(|place| self.places[place].waits.map(|since| (since, place)))
            .collect();
        waiting.sort_unstable();
        let mut any = false;
        for (_, place) in waiting {
            let last = self.stage(place) + 1 == self.line.own.len();
            let next = if last { self.shared() } else { place + 1 };
            let free = usize::from(self.places[next].holds.is_none());
            if self.places[next].queue.len() >= self.room + free {
                continue;
            }
            let batch = self.places[place].holds.take();
            self.places[place].waits = None;
            self.places[next].queue.extend(batch);
            any = true;
        }
        any
    }
}
