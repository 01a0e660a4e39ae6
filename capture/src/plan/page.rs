//! `PLAN.md`: the plan for the published models, as Markdown.

use super::instead::instead;
use super::table::facts;
use super::{Estimate, Keep, Machine, Question, Route, Shape, bytes, count, estimate, seconds};

const TOKENS: [(f64, &str); 4] = [(1e6, "10^6"), (1e7, "10^7"), (1e8, "10^8"), (1e9, "10^9")];
const LENGTH: f64 = 1024.0;

/// The places that the page compares: on a node, `Local` would be one H200 again.
fn places() -> Vec<(Machine, Route)> {
    vec![
        (Machine::cpu(), Route::Local),
        (Machine::cpu(), Route::Data),
        (Machine::one(), Route::Local),
        (Machine::one(), Route::Data),
        (Machine::node(), Route::Spread),
        (Machine::node(), Route::Tensor),
        (Machine::node(), Route::Data),
    ]
}

/// The whole page.
pub fn page() -> String {
    let mut text = INTRODUCTION.to_owned();
    for shape in Shape::published() {
        text += &of_model(&shape);
    }
    text + &assumptions()
}

const INTRODUCTION: &str = "# The plan on paper\n
What capturing activations of 10^6 to 10^9 tokens costs, by route, and where each route stops. Written by `cargo capture plan --markdown`
from the figures in the last table; `cargo capture plan --model DIR --tokens 1e8 --keep layer --hardware node` answers for your own model.
A small simulation (batches through stages with bounded queues) finds the same seconds; `capture/tests/plan.rs` compares the two.\n
How it is counted:\n
- A cell is the time and the disk; loading the model is left out. In brackets: what stops the route there.
- Prompts of 1,024 tokens, the unembedding at the last one only, batches of 4,096 tokens.
- In this process the device waits while activations are copied, and layers spread over devices work one after the other.
- A server gives every state at every position, whatever stays of it: through the shared directory passes the same for one layer
  as for all. So less that stays makes less disk, not less time, where handing over is the bottleneck.
- Statistics are count, mean, variance and covariance in f64: on the device in this process, on the host's cores behind a server.
- A row says nothing of patterns, gradients and interventions: those are for the local routes alone.\n";

fn of_model(shape: &Shape) -> String {
    let question = |tokens, keep| Question { tokens, length: LENGTH, keep };
    let facts = facts(shape, &Machine::node(), question(1e6, Keep::Residuals));
    let (_, facts) = facts.split_once(": ").unwrap_or_default();
    let heads: Vec<_> = TOKENS.iter().map(|(_, name)| format!(" {name} |")).collect();
    let head =
        format!("| tokens/s | bound by |{}\n|---|---|---|---|---|---|---|\n", heads.join(""));
    let mut text = format!("\n## {}\n\nIn bf16: {facts}.\n\n", shape.name);
    text += &format!("Residuals of all layers:\n\n| route {head}");
    for (machine, route) in places() {
        let at = |tokens| estimate(shape, &machine, route, question(tokens, Keep::Residuals));
        text += &line(&format!("{}: {}", machine.title, route.name()), &at);
    }
    let (machine, route) = roomiest(shape);
    text += &format!(
        "\nLess that stays, on {} ({}):\n\n| what stays {head}",
        machine.title,
        route.name()
    );
    for keep in Keep::ALL {
        text +=
            &line(keep.name(), &|tokens| estimate(shape, &machine, route, question(tokens, keep)));
    }
    text + &stops(shape)
}

/// Where the model's statistics and single layers are best taken: in this process on the smallest
/// GPU machine that holds it, for nothing leaves a device that need not.
fn roomiest(shape: &Shape) -> (Machine, Route) {
    let question = Question { tokens: 1e6, length: LENGTH, keep: Keep::Residuals };
    let one = estimate(shape, &Machine::one(), Route::Local, question);
    match one.most_tokens {
        Some(_) => (Machine::one(), Route::Local),
        None => (Machine::node(), Route::Spread),
    }
}

fn line(name: &str, at: &dyn Fn(f64) -> Estimate) -> String {
    let first = at(TOKENS[0].0);
    let (rate, bound) = match first.most_tokens {
        Some(_) => (count(first.rate()), first.bottleneck()),
        None => ("-".to_owned(), "-"),
    };
    let cells: Vec<_> =
        TOKENS.iter().map(|(tokens, _)| format!(" {} |", cell(&at(*tokens)))).collect();
    format!("| {name} | {rate} | {bound} |{}\n", cells.join(""))
}

fn cell(estimate: &Estimate) -> String {
    let stops: Vec<_> = estimate.stops.iter().map(|stop| stop.says()).collect();
    match stops.is_empty() {
        true => format!("{}, {}", seconds(estimate.seconds), bytes(estimate.disk)),
        false => format!("[{}]", stops.join("; ")),
    }
}

/// Where each route stops, and what to do instead.
fn stops(shape: &Shape) -> String {
    let mut text = "\nWhere it stops, keeping residuals of all layers:\n\n".to_owned();
    for (machine, route) in places() {
        let question = |tokens| Question { tokens, length: LENGTH, keep: Keep::Residuals };
        let first = TOKENS
            .iter()
            .map(|(tokens, name)| (estimate(shape, &machine, route, question(*tokens)), name));
        let stopped = first.into_iter().find(|(estimate, _)| !estimate.stops.is_empty());
        let place = format!("{}, {}", machine.title, route.name());
        text += &match stopped {
            None => format!("- {place}: nowhere up to 10^9 tokens.\n"),
            Some((estimate, name)) => {
                let why: Vec<_> = estimate.stops.iter().map(|stop| stop.says()).collect();
                let way = instead(shape, &machine, &estimate);
                let when = if estimate.most_tokens.is_none() { "always" } else { name };
                format!("- {place}: {when} ({}). Instead: {way}.\n", why.join("; "))
            }
        };
    }
    text
}

fn assumptions() -> String {
    let mut text =
        "\n## What is taken for granted\n\n| what | value | source |\n|---|---|---|\n".to_owned();
    for a in super::assumptions::ALL {
        let value = match a.unit {
            "B" => bytes(a.value),
            "B/s" => bytes(a.value) + "/s",
            "FLOP/s" => format!("{}FLOP/s", count(a.value)),
            "s" if a.value < 1.0 => format!("{} ms", a.value * 1e3),
            "s" => seconds(a.value),
            unit => format!("{} {unit}", a.value).trim_end().to_owned(),
        };
        text += &format!("| {} | {value} | {} |\n", a.name, a.source);
    }
    text
}
