//! The plan's figures, against figures found by hand, published ones and the simulation.

use thalweg::Config;
use thalweg_capture::plan::{
    Jitter, Keep, Machine, Question, Route, Shape, Stop, assumptions, estimate, estimates, simulate,
};

fn question(tokens: f64, keep: Keep) -> Question {
    Question { tokens, length: 1024.0, keep }
}

#[track_caller]
fn close(a: f64, b: f64, within: f64) {
    assert!((a / b - 1.0).abs() <= within, "{a} and {b}");
}

#[test]
fn parameters_are_those_of_the_published_models_and_of_a_configuration_read() {
    let published = [1_235_814_400.0, 8_030_261_248.0, 70_553_706_496.0, 405_853_388_800.0];
    for (shape, expected) in Shape::published().iter().zip(published) {
        assert_eq!(shape.parameters(), expected, "{}", shape.name);
    }
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/models/tiny-world");
    let config = Config::load(format!("{dir}/config.json")).unwrap();
    assert_eq!(Shape::named(dir).unwrap().parameters(), config.n_params() as f64);
    assert_eq!(Shape::named(dir).unwrap().name, "tiny-world");
}

#[test]
fn arithmetic_and_bytes_a_token_agree_with_figures_found_by_hand() {
    // GFLOP a token: blocks, attention at 1,024 tokens, the unembedding of one position.
    let by_hand =
        [(1.946, 0.067, 0.525), (13.96, 0.269, 1.051), (136.9, 1.34, 2.10), (803.3, 4.23, 4.20)];
    for (shape, (blocks, attention, unembedding)) in Shape::published().iter().zip(by_hand) {
        close(2.0 * shape.block_matrices() / 1e9, blocks, 0.001);
        close(shape.unembedding() / 1e9, unembedding, 0.002);
        close(shape.flops(1024.0) / 1e9, blocks + attention + unembedding / 1024.0, 0.001);
    }
    // Llama-3.1-8B keeps 33 states of 4,096 numbers of 2 bytes, and an index.
    let shape = Shape::named("8b").unwrap();
    let estimate = |keep| estimate(&shape, &Machine::one(), Route::Local, question(1e6, keep));
    let vector = 4096.0 * 2.0;
    assert_eq!(estimate(Keep::Residuals).disk, 1e6 * (33.0 * vector + assumptions::INDEX));
    assert_eq!(estimate(Keep::Layer).disk, 1e6 * (vector + assumptions::INDEX));
    assert_eq!(estimate(Keep::Last).disk, 1e6 / 1024.0 * (33.0 * vector + assumptions::INDEX));
    let sums = 8.0 * (4096.0 * 4096.0 + 2.0 * 4096.0);
    assert_eq!(estimate(Keep::LayerStatistics).disk, sums);
    assert_eq!(estimate(Keep::Statistics).disk, 33.0 * sums);
    assert_eq!(estimate(Keep::Statistics).moved, 0.0);
}

#[test]
fn seconds_of_arithmetic_alone_are_flop_over_flop_a_second() {
    // Statistics of one layer of an 8B, in this process: compute and a little f64.
    let shape = Shape::named("8b").unwrap();
    let found =
        estimate(&shape, &Machine::one(), Route::Local, question(1e7, Keep::LayerStatistics));
    let compute = 1e7 * 14.231e9 / (989e12 * 0.35);
    let sums = 1e7 * 2.0 * 4096.0 * 4096.0 / (67e12 * 0.5);
    close(found.seconds, compute + sums, 0.002);
    assert_eq!(found.bottleneck(), "compute");
}

#[test]
fn tensor_parallel_devices_pay_for_two_sums_a_block_and_replicas_of_one_device_for_none() {
    // 70B on 8 devices: 2 sums x 80 blocks x 8,192 numbers x 2 bytes, sent 2 x 7/8 times at 450 GB/s.
    let shape = Shape::named("70b").unwrap();
    let found = estimate(&shape, &Machine::node(), Route::Tensor, question(1e6, Keep::Layer));
    let compute = shape.flops(1024.0) / (8.0 * 989e12 * 0.5);
    let sums = 2.0 * 80.0 * 8192.0 * 2.0 * (2.0 * 7.0 / 8.0) / 450e9;
    let copy = 81.0 * 8192.0 * 2.0 / 12e9;
    close(found.line.own[0].seconds, assumptions::BATCH * (compute + sums + copy), 1e-9);
    let shape = Shape::named("8b").unwrap();
    let found = estimate(&shape, &Machine::node(), Route::Data, question(1e6, Keep::Layer));
    let alone = shape.flops(1024.0) / (989e12 * 0.5) + 33.0 * 4096.0 * 2.0 / 12e9;
    close(found.line.own[0].seconds, assumptions::BATCH * alone, 1e-9);
}

#[test]
fn layers_over_eight_devices_are_as_quick_as_one_that_held_them_and_move_their_stream_once_more() {
    let shape = Shape::named("8b").unwrap();
    let asked = question(1e6, Keep::Residuals);
    let [one, spread] = [Route::Local, Route::Spread]
        .map(|route| estimate(&shape, &Machine::node(), route, asked).line.own[0].seconds);
    close(spread - one, assumptions::BATCH * 33.0 * 4096.0 * 2.0 / 450e9, 1e-6);
}

#[test]
fn the_share_of_the_peak_that_a_server_is_said_to_reach_is_near_a_published_one() {
    // Activault: 33,000 tokens/s of a 70B on a node of 8 H100, which have an H200's peak.
    let flops = Shape::named("70b").unwrap().flops(1024.0);
    let published = 33_000.0 * flops / (8.0 * assumptions::GPU_FLOPS);
    close(assumptions::SERVED_SHARE, published, 0.2);
}

#[test]
fn the_simulation_takes_the_plans_seconds_for_every_model_machine_route_and_kind() {
    let batches = 40;
    for shape in Shape::published() {
        for machine in Machine::all() {
            for keep in Keep::ALL {
                let tokens = assumptions::BATCH * batches as f64;
                for found in estimates(&shape, &machine, question(tokens, keep)) {
                    let seen = simulate(&found.line, batches, 2, Jitter::None, 0);
                    close(seen.seconds, found.seconds, 1e-9);
                    let long = simulate(&found.line, 800, 2, Jitter::None, 0);
                    close(long.rate() * assumptions::BATCH, found.rate(), 0.02);
                }
            }
        }
    }
}

#[test]
fn routes_stop_where_weights_sums_disk_or_time_do_not_fit() {
    let stops = |model: &str, machine: &Machine, route, tokens, keep| {
        estimate(&Shape::named(model).unwrap(), machine, route, question(tokens, keep)).stops
    };
    let (cpu, one, node) = (Machine::cpu(), Machine::one(), Machine::node());
    assert_eq!(stops("8b", &one, Route::Local, 1e6, Keep::Residuals), []);
    assert!(matches!(
        stops("70b", &one, Route::Local, 1e6, Keep::Layer)[..],
        [Stop::Memory { .. }]
    ));
    assert_eq!(stops("70b", &node, Route::Spread, 1e6, Keep::Layer), []);
    assert_eq!(stops("1b", &one, Route::Tensor, 1e6, Keep::Layer), [Stop::OneDevice]);
    let disk = stops("8b", &node, Route::Data, 1e9, Keep::Residuals);
    assert!(matches!(disk[..], [Stop::Disk { needed, .. }] if needed > 2.7e14));
    let time = stops("1b", &cpu, Route::Local, 1e9, Keep::Statistics);
    assert!(matches!(time[..], [Stop::Time { .. }]), "{time:?}");
    // 127 covariances of 16,384 squared in f64 are 273 GB: more than a device.
    let sums = stops("405b", &node, Route::Spread, 1e6, Keep::Statistics);
    assert!(matches!(sums[..], [Stop::Memory { needed, .. }] if needed > 2.7e11), "{sums:?}");
}

#[test]
fn the_most_tokens_are_those_that_nothing_stops() {
    for shape in Shape::published() {
        for keep in Keep::ALL {
            for found in estimates(&shape, &Machine::node(), question(1e9, keep)) {
                let Some(most) = found.most_tokens else { continue };
                let at = |tokens| {
                    estimate(&shape, &Machine::node(), found.route, question(tokens, keep))
                };
                assert_eq!(at(most * 0.99).stops, [], "{} {keep:?}", shape.name);
                assert!(!at(most * 1.01).stops.is_empty(), "{} {keep:?}", shape.name);
            }
        }
    }
}

#[test]
fn replicas_take_as_few_devices_as_hold_them() {
    let replicas = |model| {
        let shape = Shape::named(model).unwrap();
        let found = estimate(&shape, &Machine::node(), Route::Data, question(1e6, Keep::Layer));
        (found.replicas, found.devices)
    };
    assert_eq!(
        ["1b", "8b", "70b", "405b"].map(replicas),
        [(8.0, 1.0), (8.0, 1.0), (4.0, 2.0), (1.0, 8.0)]
    );
}

#[test]
fn no_figure_hides_in_the_code() {
    // Powers of ten are figures; those of the plan stand in assumptions.rs alone, with a source.
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/src/plan");
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            let figure = |w: &str| {
                w.contains('e')
                    && w.starts_with(|c: char| c.is_ascii_digit())
                    && w.parse::<f64>().is_ok()
            };
            let words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '.');
            let found: Vec<_> = words.filter(|w| figure(w)).collect();
            let allowed = ["assumptions.rs", "page.rs"].contains(&name.as_str());
            assert!(allowed || found.is_empty(), "{name}: {found:?} in {line}");
        }
    }
    for assumption in assumptions::ALL {
        assert!(assumption.value > 0.0 && !assumption.source.is_empty(), "{assumption:?}");
    }
}
