//! Estimates as a table for people, and as JSON for programs.

use serde_json::{Value, json};

use super::instead::instead;
use super::{Estimate, Machine, Question, Shape, bytes, count, estimates, seconds};

/// What one model on one machine costs, route by route.
pub fn table(shape: &Shape, machine: &Machine, question: Question) -> String {
    let mut rows = vec![
        ["route", "copies", "tokens/s", "bound by", "time", "moved", "disk", "stops"]
            .map(str::to_owned)
            .to_vec(),
    ];
    let all = estimates(shape, machine, question);
    rows.extend(all.iter().map(row));
    let mut text = format!(
        "{}: {} tokens of {}, prompts of {}\n{}\n\n{}",
        machine.title,
        count(question.tokens),
        question.keep.name(),
        question.length,
        facts(shape, machine, question),
        columns(&rows)
    );
    for stopped in all.iter().filter(|estimate| !estimate.stops.is_empty()) {
        let way = instead(shape, machine, stopped);
        text += &format!("\n{}: instead, {way}", stopped.route.name());
    }
    text
}

/// What follows from the model alone.
pub(super) fn facts(shape: &Shape, machine: &Machine, question: Question) -> String {
    let number = machine.device.number;
    let vector = shape.d_model * number;
    format!(
        "{}: {} parameters, {} of weights; {}FLOP a token; the stream takes {} a token at one state, {} at all {}",
        shape.name,
        count(shape.parameters()),
        bytes(shape.parameters() * number),
        count(shape.flops(question.length)),
        bytes(vector),
        bytes(vector * shape.states()),
        shape.states()
    )
}

fn row(estimate: &Estimate) -> Vec<String> {
    let stops: Vec<_> = estimate.stops.iter().map(|stop| stop.says()).collect();
    let copies = match (estimate.replicas, estimate.devices) {
        (1.0, 1.0) => "1".to_owned(),
        (replicas, devices) => format!("{replicas} on {devices} each"),
    };
    let mut cells = vec![estimate.route.name().to_owned(), copies];
    if estimate.most_tokens.is_none() {
        cells.extend(["-"; 5].map(str::to_owned));
    } else {
        cells.extend([
            count(estimate.rate()),
            estimate.bottleneck().to_owned(),
            seconds(estimate.seconds),
            bytes(estimate.moved),
            bytes(estimate.disk),
        ]);
    }
    cells.push(stops.join("; "));
    cells
}

/// Cells in columns as wide as their longest, two spaces apart.
fn columns(rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|i| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0))
        .collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<_> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n") + "\n"
}

/// The same for programs: plain numbers, bytes and seconds.
pub fn json(shape: &Shape, machine: &Machine, question: Question) -> Value {
    let routes: Vec<Value> = estimates(shape, machine, question)
        .iter()
        .map(|estimate| {
            json!({
                "route": estimate.route.name(),
                "replicas": estimate.replicas,
                "devices_each": estimate.devices,
                "device_bytes": estimate.memory,
                "tokens_per_second": estimate.rate(),
                "bottleneck": estimate.bottleneck(),
                "seconds": estimate.seconds,
                "moved_bytes": estimate.moved,
                "disk_bytes": estimate.disk,
                "shared_bytes": estimate.shared,
                "most_tokens": estimate.most_tokens,
                "stops": estimate.stops.iter().map(|stop| stop.says()).collect::<Vec<_>>(),
                "instead": instead(shape, machine, estimate),
            })
        })
        .collect();
    json!({
        "model": shape.name, "machine": machine.name, "tokens": question.tokens,
        "prompt_tokens": question.length, "keep": question.keep.name(),
        "parameters": shape.parameters(), "flop_per_token": shape.flops(question.length),
        "routes": routes,
    })
}
