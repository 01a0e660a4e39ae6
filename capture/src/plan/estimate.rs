//! The closed form: what one route costs, and where it stops.

use super::assumptions as a;
use super::{Keep, Line, Machine, Route, Shape, Stage, bytes, seconds};

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Question {
    /// Tokens in all.
    pub tokens: f64,
    /// Tokens of a prompt.
    pub length: f64,
    /// What stays.
    pub keep: Keep,
}

/// Why a route is no plan.
#[derive(Debug, Clone, PartialEq)]
pub enum Stop {
    /// The machine has one device.
    OneDevice,
    /// Bytes a device needs, and those it has.
    Memory {
        /// Needed: weights, one batch's activations, sums of statistics.
        needed: f64,
        /// There to be planned with.
        there: f64,
    },
    /// Bytes of the host's memory: the shared directory's files, and sums.
    HostMemory {
        /// Needed by all workers together.
        needed: f64,
        /// There.
        there: f64,
    },
    /// Bytes that stay, and those the disk holds.
    Disk {
        /// Needed.
        needed: f64,
        /// There.
        there: f64,
    },
    /// Seconds, and the most that are a plan.
    Time {
        /// Needed.
        needed: f64,
        /// The most.
        most: f64,
    },
}

impl Stop {
    /// One phrase.
    pub fn says(&self) -> String {
        match self {
            Stop::OneDevice => "needs several devices".to_owned(),
            Stop::Memory { needed, there } => {
                format!("a device needs {}, has {}", bytes(*needed), bytes(*there))
            }
            Stop::HostMemory { needed, there } => {
                format!("the host needs {}, has {}", bytes(*needed), bytes(*there))
            }
            Stop::Disk { needed, there } => {
                format!("{} of disk, have {}", bytes(*needed), bytes(*there))
            }
            Stop::Time { needed, most } => {
                format!("takes {}, at most {}", seconds(*needed), seconds(*most))
            }
        }
    }
}

/// What one route costs.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    /// The route.
    pub route: Route,
    /// What was asked.
    pub question: Question,
    /// Copies of the model that work beside each other.
    pub replicas: f64,
    /// Devices of each copy.
    pub devices: f64,
    /// Bytes that each device needs.
    pub memory: f64,
    /// Bytes that leave the devices, for all tokens.
    pub moved: f64,
    /// Bytes that stay on disk, for all tokens.
    pub disk: f64,
    /// Bytes in the shared directory at once; 0 without a server.
    pub shared: f64,
    /// Batches through stages: what the seconds follow from.
    pub line: Line,
    /// Seconds in all, loading the model left out.
    pub seconds: f64,
    /// Why it cannot be done; empty where it can.
    pub stops: Vec<Stop>,
    /// The most tokens for which nothing stops the route; none if no number of tokens helps.
    pub most_tokens: Option<f64>,
}

impl Estimate {
    /// Tokens a second once all stages work.
    pub fn rate(&self) -> f64 {
        self.line.rate() * a::BATCH
    }

    /// The step that sets the rate.
    pub fn bottleneck(&self) -> &'static str {
        self.line.bottleneck().name
    }
}

/// All routes on one machine.
pub fn estimates(shape: &Shape, machine: &Machine, question: Question) -> Vec<Estimate> {
    Route::ALL.into_iter().map(|route| estimate(shape, machine, route, question)).collect()
}

/// What a route costs on a machine.
///
/// ```
/// use thalweg_capture::plan::{Keep, Machine, Question, Route, Shape, estimate};
/// let question = Question { tokens: 1e9, length: 1024.0, keep: Keep::Residuals };
/// let estimate = estimate(&Shape::named("8b")?, &Machine::one(), Route::Local, question);
/// assert_eq!(estimate.stops.len(), 1); // 270 kB a token: 270 TB
/// assert!(estimate.most_tokens.unwrap() > 3e8);
/// # anyhow::Ok(())
/// ```
pub fn estimate(shape: &Shape, machine: &Machine, route: Route, question: Question) -> Estimate {
    let setting = Setting::new(shape, machine, route, question);
    let line = setting.line();
    let disk = setting.kept() * question.tokens + setting.sums_on_disk();
    let seconds = line.seconds((question.tokens / a::BATCH).ceil() as usize);
    let mut stops = setting.fixed_stops();
    let possible = stops.is_empty();
    if possible && disk > machine.disk_size {
        stops.push(Stop::Disk { needed: disk, there: machine.disk_size });
    }
    if possible && seconds > a::MOST_SECONDS {
        stops.push(Stop::Time { needed: seconds, most: a::MOST_SECONDS });
    }
    let by_disk = (machine.disk_size - setting.sums_on_disk()).max(0.0) / setting.kept();
    let most = by_disk.min(a::MOST_SECONDS * line.rate() * a::BATCH);
    Estimate {
        route,
        question,
        replicas: setting.replicas,
        devices: setting.devices,
        memory: setting.memory(),
        moved: setting.moved() * question.tokens,
        disk,
        shared: setting.shared(),
        line,
        seconds,
        stops,
        most_tokens: possible.then_some(most),
    }
}

/// A route on a machine, with the copies of the model settled.
struct Setting<'a> {
    shape: &'a Shape,
    machine: &'a Machine,
    route: Route,
    question: Question,
    replicas: f64,
    devices: f64,
}

impl<'a> Setting<'a> {
    fn new(shape: &'a Shape, machine: &'a Machine, route: Route, question: Question) -> Self {
        let all = machine.devices;
        let devices = match route {
            Route::Local => 1.0,
            Route::Spread | Route::Tensor => all,
            Route::Data => 1.0,
        };
        let mut setting = Setting { shape, machine, route, question, replicas: 1.0, devices };
        if route == Route::Data {
            // A power of two of devices a replica, so that heads and neurons divide.
            while setting.memory() > setting.room() && setting.devices * 2.0 <= all {
                setting.devices *= 2.0;
            }
            setting.replicas = (all / setting.devices).floor();
        }
        setting
    }

    /// Bytes of a token's vector at one state.
    fn vector(&self) -> f64 {
        self.shape.d_model * self.machine.device.number
    }

    /// States that leave the devices: a server of ours gives all of them.
    fn states(&self) -> f64 {
        match self.question.keep {
            Keep::Layer | Keep::LayerStatistics if !self.route.served() => 1.0,
            _ => self.shape.states(),
        }
    }

    /// States that stay.
    fn states_kept(&self) -> f64 {
        match self.question.keep {
            Keep::Layer | Keep::LayerStatistics => 1.0,
            _ => self.shape.states(),
        }
    }

    /// Bytes a token that leave the devices. In this process positions are chosen, and sums taken,
    /// before anything leaves.
    fn moved(&self) -> f64 {
        let all = self.states() * self.vector();
        match self.question.keep {
            _ if self.route.served() => all,
            Keep::Residuals | Keep::Layer => all,
            Keep::Last => all / self.question.length,
            Keep::Statistics | Keep::LayerStatistics => 0.0,
        }
    }

    /// Bytes a token that stay, and their index.
    fn kept(&self) -> f64 {
        let all = self.states_kept() * self.vector() + a::INDEX;
        match self.question.keep {
            Keep::Residuals | Keep::Layer => all,
            Keep::Last => all / self.question.length,
            Keep::Statistics | Keep::LayerStatistics => 0.0,
        }
    }

    /// Bytes of one worker's sums: count, mean, variance and covariance in f64.
    fn sums(&self) -> f64 {
        if !self.question.keep.sums() {
            return 0.0;
        }
        let (d, number) = (self.shape.d_model, size_of::<f64>() as f64);
        self.states_kept() * number * (d * d + 2.0 * d)
    }

    fn sums_on_disk(&self) -> f64 {
        self.sums() * self.replicas // each worker's, and merged from them
    }

    fn sums_at_client(&self) -> bool {
        self.route.served() && self.question.keep.sums()
    }

    /// Bytes that the fullest device needs: its share of the weights, one batch's activations as a
    /// block works on them and as they are recorded, sums that are taken there.
    fn memory(&self) -> f64 {
        let number = self.machine.device.number;
        let weights = self.shape.parameters() * number / self.devices;
        let working = a::WORKING_COPIES * self.shape.d_model + 3.0 * self.shape.d_mlp;
        let recorded = self.states() * self.shape.d_model;
        let sums = if self.route.served() { 0.0 } else { self.sums() };
        weights + a::BATCH * (working + recorded) * number + sums
    }

    /// Bytes of a device that may be planned with.
    fn room(&self) -> f64 {
        self.machine.device.memory * a::MEMORY_SHARE
    }

    /// Bytes of prompts' files that wait in the shared directory at most.
    fn shared(&self) -> f64 {
        if !self.route.served() {
            return 0.0;
        }
        a::IN_FLIGHT * self.replicas * self.question.length * self.moved()
    }

    /// Stops that no smaller number of tokens removes.
    fn fixed_stops(&self) -> Vec<Stop> {
        let mut stops = Vec::new();
        if matches!(self.route, Route::Spread | Route::Tensor) && self.machine.devices < 2.0 {
            stops.push(Stop::OneDevice);
        }
        let (needed, there) = (self.memory(), self.room());
        if needed > there {
            stops.push(Stop::Memory { needed, there });
        }
        let sums = if self.sums_at_client() { self.sums() * self.replicas } else { 0.0 };
        let (needed, there) = (self.shared() + sums, self.machine.host_memory * a::MEMORY_SHARE);
        if needed > there {
            stops.push(Stop::HostMemory { needed, there });
        }
        stops
    }

    /// Seconds of a batch's arithmetic in one copy of the model: products, or the weights' way from
    /// memory where that takes longer; and what tensor-parallel devices tell each other.
    fn compute(&self) -> f64 {
        let device = &self.machine.device;
        let share = if self.route.served() { a::SERVED_SHARE } else { a::LOCAL_SHARE };
        // Layers spread over devices work one after the other: as fast as one device.
        let at_once = if self.route.served() { self.devices } else { 1.0 };
        let products = a::BATCH * self.shape.flops(self.question.length);
        let weights = self.shape.parameters() * device.number;
        let arithmetic = products / (device.flops * share * at_once);
        arithmetic.max(weights / (device.bandwidth * at_once)) + self.all_reduce()
    }

    /// Two sums over the devices in each block; in a ring, each device sends twice the vectors
    /// (Patarasuk and Yuan 2009), less its own part.
    fn all_reduce(&self) -> f64 {
        if !self.route.served() {
            return 0.0;
        }
        let sums = 2.0 * self.shape.n_layers;
        let sent = 2.0 * (self.devices - 1.0) / self.devices * a::BATCH * self.vector();
        sums * sent / self.machine.device.link
    }

    /// Seconds of a batch's way to the host; with layers spread, first to the first device.
    fn copy(&self) -> f64 {
        let device = &self.machine.device;
        let batch = a::BATCH * self.moved();
        let between = match self.route {
            Route::Spread => a::BATCH * self.states() * self.vector() / device.link,
            _ => 0.0,
        };
        between + device.to_host.map_or(0.0, |rate| batch / rate)
    }

    /// Seconds of a batch's sums: each vector with itself, for all states that stay.
    fn statistics(&self) -> f64 {
        if !self.question.keep.sums() {
            return 0.0;
        }
        let rate = match self.route.served() {
            true => self.machine.host_flops_f64 / self.replicas,
            false => self.machine.device.flops_f64,
        };
        let products = 2.0 * self.shape.d_model * self.shape.d_model * self.states_kept();
        a::BATCH * products / (rate * a::STATISTICS_SHARE)
    }

    /// The stages of a batch. In this process the device waits while activations are copied (tch has
    /// no streams), so that both are one stage, named after the longer; writing goes on beside.
    fn line(&self) -> Line {
        let stage = |name, seconds| Stage { name, seconds };
        let (compute, copy, sums) = (self.compute(), self.copy(), self.statistics());
        let batch = a::BATCH * self.moved();
        let own = if self.route.served() {
            let requests = a::BATCH / self.question.length * a::REQUEST / a::IN_FLIGHT;
            vec![
                one_after_the_other(&[stage("compute", compute), stage("copy to host", copy)]),
                stage("hand over: server writes", batch / a::SHARED_WRITE),
                one_after_the_other(&[
                    stage("hand over: client reads", batch / a::SHARED_READ + requests),
                    stage("statistics", sums),
                ]),
            ]
        } else {
            let steps =
                [stage("compute", compute), stage("copy to host", copy), stage("statistics", sums)];
            vec![one_after_the_other(&steps)]
        };
        let disk = stage("disk", a::BATCH * self.kept() / self.machine.disk_rate);
        Line { workers: self.replicas as usize, own, shared: disk }
    }
}

/// Steps that wait for each other: their sum, under the longest one's name.
fn one_after_the_other(steps: &[Stage]) -> Stage {
    let longest = steps.iter().fold(&steps[0], |a, b| if b.seconds > a.seconds { b } else { a });
    Stage { name: longest.name, seconds: steps.iter().map(|step| step.seconds).sum() }
}
