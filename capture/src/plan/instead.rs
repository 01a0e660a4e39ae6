//! Where a route stops: what to do instead.

use super::{
    Estimate, Keep, Machine, Question, Shape, Stop, bytes, count, estimate, estimates, seconds,
};

/// One phrase for an estimate that stops: another route, a larger machine, less that stays, fewer
/// tokens. Empty where nothing stops.
pub fn instead(shape: &Shape, machine: &Machine, stopped: &Estimate) -> String {
    if stopped.stops.is_empty() {
        return String::new();
    }
    if stopped.most_tokens.is_some() {
        return less(shape, machine, stopped);
    }
    let larger = Machine::all().into_iter().skip_while(|other| other.name != machine.name);
    for other in larger {
        let Some(best) = quickest(shape, &other, stopped.question) else { continue };
        let mut way = best.route.name().to_owned();
        if other.name != machine.name {
            way = format!("{}: {way}", other.title);
        }
        return match best.stops.is_empty() {
            true => format!("{way}, {}", seconds(best.seconds)),
            false => format!("{way}, and there {}", less(shape, &other, &best)),
        };
    }
    less(shape, machine, stopped)
}

/// The quickest of the routes that some number of tokens can take, whole ones first.
fn quickest(shape: &Shape, machine: &Machine, question: Question) -> Option<Estimate> {
    let open = estimates(shape, machine, question).into_iter().filter(|e| e.most_tokens.is_some());
    open.min_by(|a, b| {
        let whole = a.stops.len().cmp(&b.stops.len());
        whole.then(a.seconds.total_cmp(&b.seconds))
    })
}

/// The same route with less that stays, or with fewer tokens, or on several machines.
fn less(shape: &Shape, machine: &Machine, stopped: &Estimate) -> String {
    let mut ways = Vec::new();
    for keep in [Keep::Statistics, Keep::Last, Keep::Layer, Keep::LayerStatistics] {
        let question = Question { keep, ..stopped.question };
        let other = estimate(shape, machine, stopped.route, question);
        if ways.len() < 2 && keep != stopped.question.keep && other.stops.is_empty() {
            ways.push(format!(
                "{} ({}, {})",
                keep.name(),
                bytes(other.disk),
                seconds(other.seconds)
            ));
        }
    }
    if let Some(most) = stopped.most_tokens {
        ways.push(format!("at most {} tokens", count(most)));
    }
    for stop in &stopped.stops {
        if let Stop::Time { needed, most } = stop {
            ways.push(format!("{} such machines side by side", (needed / most).ceil()));
        }
    }
    if ways.is_empty() { "no way known here".to_owned() } else { ways.join("; ") }
}
