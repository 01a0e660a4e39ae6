//! A real server: started by `cargo verify`, which says where it is. Each test is skipped without one.

mod replicas;

use std::io::Write as _;
use std::path::PathBuf;

use thalweg::tch::{Device, Kind, Tensor};
use thalweg::{Intervention, Model, Plan, Point, Remote, Site, Tokens, logit_lens};
use thalweg_capture::Captured;
use thalweg_capture::compare::{compare, limits, wandering};

use crate::support::{Folder, command, lines, ok, run_of, text, world};

/// The server's address and its directory; none: a line that says so.
pub(crate) fn server() -> Option<(String, PathBuf)> {
    let told = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (Some(url), Some(shared)) = (told("THALWEG_SERVER"), told("THALWEG_SHARED")) else {
        // Not print!: the test runner keeps that to itself where the test passes.
        let line = "skipped: no server: THALWEG_SERVER and THALWEG_SHARED say where one is\n";
        std::io::stdout().write_all(line.as_bytes()).unwrap();
        return None;
    };
    Some((url, shared.into()))
}

fn remote() -> Option<Remote> {
    let (url, shared) = server()?;
    Some(Remote::connect(&url, shared).unwrap())
}

/// tiny-world as it is stored: the server runs its sibling with wider heads.
fn here() -> Model {
    Model::load_on(world(), Device::Cpu, Kind::Double).unwrap()
}

fn every_state() -> Plan {
    Plan::new().cache(Site::Embed).cache(Point::ResidPost)
}

#[test]
fn every_layer_of_prompts_of_all_lengths_is_the_local_models() {
    let Some(remote) = remote() else { return };
    assert_eq!((remote.n_layers(), remote.d_model(), remote.kind()), (4, 128, Kind::Float));
    let model = here();
    let prompts = wandering(model.config().d_vocab, model.config().n_ctx - 1).unwrap();
    assert_eq!(prompts.lens().iter().max(), Some(&63));
    let states = compare(&remote, &model, &prompts).unwrap();
    assert_eq!(states.len(), 5);
    for state in states {
        assert!(state.within(Kind::Float), "{state:?}");
    }
}

#[test]
fn states_are_told_apart_by_far_more_than_rounding() {
    // Or the comparison above would show nothing.
    let Some(remote) = remote() else { return };
    let tokens = here().tokens("When Mary and John went to the store").unwrap();
    let cache = remote.run(&tokens, &every_state()).unwrap();
    let last = cache.get(Point::ResidPost.at(3)).unwrap();
    for layer in 0..3 {
        let other = cache.get(Point::ResidPost.at(layer)).unwrap();
        let share: Tensor = (&last - other).norm() / last.norm();
        assert!(share.double_value(&[]) > 0.05, "layer {layer}");
    }
}

#[test]
fn prompts_asked_for_at_once_and_again_get_their_own_states() {
    // Shared beginnings come from the server's prefix cache the second time; the order in which answers come is mixed.
    let Some(remote) = remote() else { return };
    let stem: Vec<i64> = (0..48).map(|i| 3 + (i * 17) % 300).collect();
    let rows: Vec<Vec<i64>> = (0..60)
        .map(|i| {
            let mut row = stem[..(i % 7) * 8].to_vec();
            row.extend((0..1 + i as i64 % 9).map(|j| 5 + (i as i64 * 11 + j) % 300));
            row
        })
        .collect();
    let (tokens, model) = (Tokens::from_ids(&rows).unwrap(), here());
    for in_flight in [1, 32] {
        let states = compare(&remote.clone().in_flight(in_flight), &model, &tokens).unwrap();
        assert!(states.iter().all(|state| state.within(Kind::Float)), "{states:?}");
    }
}

#[test]
fn an_analysis_of_the_served_model_gives_the_local_models_numbers() {
    let Some(remote) = remote() else { return };
    let (served, model) = (remote.model(world()).unwrap(), here());
    let tokens =
        model.tokens("When Mary and John went to the store , John gave a drink to").unwrap();
    let answer = model.token(" Mary").unwrap();
    let lens = |model: &Model| {
        let run = model.run(&tokens, &every_state()).unwrap();
        logit_lens(model, &run.cache, answer).unwrap().values.clone()
    };
    let (a, b) = (lens(&served), lens(&model));
    assert_eq!(a.shape(), b.shape());
    let worst = a.iter().zip(b.iter()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst < 1e-3, "{worst:e}");
}

#[test]
fn a_data_set_captured_through_the_server_is_the_local_models() {
    let Some((url, shared)) = server() else { return };
    let folder = Folder::new("served");
    let (file, out) = (folder.write("prompts.txt", &text(40)), folder.path("captured"));
    let mut capture = command(&["run", "--sites", "hook_embed,hook_resid_post", "--server", &url]);
    ok(capture.args([&file, &out]).arg("--shared").arg(shared).arg("--model").arg(world()));
    let (captured, model) = (Captured::open(&out).unwrap(), here());
    let mut next = 0;
    for line in lines(40).iter().filter(|line| !line.is_empty()) {
        let tokens = model.tokens(line).unwrap();
        let cache = model.run(&tokens, &every_state()).unwrap().cache;
        let rows = next..next + tokens.width() as u64;
        next = rows.end;
        for site in cache.sites() {
            let own = cache.get(site).unwrap().squeeze_dim(0);
            let read = captured.rows(site, rows.clone()).unwrap();
            let share: Tensor = (read - &own).norm() / own.norm();
            assert!(share.double_value(&[]) < 1e-5, "{site} of {line}");
        }
    }
    assert_eq!(captured.len(), next);
}

#[test]
fn what_a_plan_adds_to_the_stream_the_server_adds_for_that_prompt_alone() {
    let Some(remote) = remote() else { return };
    if !remote.steers() {
        let line =
            "skipped: this server does not steer: capture serve --steering, vllm-lens there\n";
        std::io::stdout().write_all(line.as_bytes()).unwrap();
        return;
    }
    let model = here();
    let tokens = model.tokens("When Mary and John went to the store").unwrap();
    let direction =
        model.logit_directions(&[model.token(" Mary").unwrap()]).unwrap().squeeze_dim(0);
    let adds = Intervention::add(&direction, 3.0).absolute();
    let plan = every_state().intervene(Point::ResidPost.at(1), adds);
    let plain = remote.run(&tokens, &every_state()).unwrap();
    let apart = |a: &Tensor, b: &Tensor| ((a - b).norm() / b.norm()).double_value(&[]);
    let last = Point::ResidPost.at(3);
    for _ in 0..2 {
        let (there, own) =
            (remote.run(&tokens, &plan).unwrap(), model.run(&tokens, &plan).unwrap());
        for site in own.cache.sites() {
            let share = apart(&there.get(site).unwrap(), &own.cache.get(site).unwrap());
            assert!(share < 1e-5, "{site}: {share:e}");
        }
        assert!(apart(&there.get(last).unwrap(), &plain.get(last).unwrap()) > 0.01);
        let again = remote.run(&tokens, &every_state()).unwrap();
        let share = apart(&again.get(last).unwrap(), &plain.get(last).unwrap());
        assert!(share < 1e-5, "a plain prompt after a steered one: {share:e}");
    }
}

#[test]
fn a_prompt_that_the_server_refuses_is_a_plain_error() {
    let Some(remote) = remote() else { return };
    let refused = |ids: Vec<i64>| {
        let tokens = Tokens::from_ids(&[ids]).unwrap();
        let text = format!("{:#}", remote.run(&tokens, &every_state()).unwrap_err());
        assert_eq!(text.lines().count(), 1, "{text}");
        text
    };
    let text = refused(vec![1, 99_999]);
    assert!(text.contains("99999"), "{text}");
    let text = refused(vec![1; 80]);
    assert!(text.contains("80 tokens") && text.contains("63"), "{text}");
    // And the server is as it was.
    assert!(remote.run(&Tokens::from_ids(&[vec![1, 2]]).unwrap(), &every_state()).is_ok());
}

#[test]
fn the_shared_directory_is_left_empty() {
    let Some(remote) = remote() else { return };
    let tokens = Tokens::from_ids(&[vec![1, 2, 3], vec![4]]).unwrap();
    remote.run(&tokens, &every_state()).unwrap();
    let (_, shared) = server().unwrap();
    // Other tests ask at the same time: what lies there now is gone soon.
    let files = || std::fs::read_dir(&shared).unwrap().flatten().map(|entry| entry.file_name());
    let old: Vec<_> = files().collect();
    let gone = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        !files().any(|name| old.contains(&name))
    });
    assert!(gone, "{old:?}");
}

#[test]
fn compare_prints_a_table_and_refuses_another_model() {
    let Some((url, shared)) = server() else { return };
    let compare = |model: &std::path::Path| {
        let mut compare = command(&["compare", "--server", &url, "--shared"]);
        compare.arg(&shared).arg("--model").arg(model);
        compare
    };
    let table = ok(&mut compare(&world()));
    assert!(table.contains("hook_embed") && table.contains("blocks.3.hook_resid_post"), "{table}");
    let other = world().with_file_name("tiny-world-2");
    let output = compare(&other).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("is it the same model?"), "{text}");
}

#[test]
fn two_workers_capture_through_the_server_what_the_local_model_gives() {
    let Some((url, shared)) = server() else { return };
    let folder = Folder::new("vllm");
    let prompts = folder.write("prompts.txt", &text(60));
    let words = [
        "--sites",
        "hook_embed,blocks.*.hook_resid_post",
        "--prompts-per-shard",
        "20",
        "--max-tokens",
        "63",
    ];
    ok(&mut run_of("run", &prompts, &folder.path("near"), &words));
    // Two workers at once, which the server batches as it likes.
    let workers: Vec<_> = (0..2)
        .map(|_| {
            let mut far = run_of("run", &prompts, &folder.path("far"), &words);
            far.args(["--compute", "f32", "--server", &url, "--shared"]).arg(&shared);
            far.stdout(std::process::Stdio::null()).spawn().unwrap()
        })
        .collect();
    for mut worker in workers {
        assert!(worker.wait().unwrap().success());
    }
    let [far, near] = ["far", "near"].map(|out| Captured::open(folder.path(out)).unwrap());
    let all = 0..near.len();
    assert_eq!(far.places(all.clone()).unwrap(), near.places(all.clone()).unwrap());
    let (_, most) = limits(Kind::Float); // of a token's difference, beside the length of its vector
    for site in near.sites().unwrap() {
        let [a, b] = [&far, &near].map(|one| one.rows(site, all.clone()).unwrap());
        let lengths =
            [&a - &b, b].map(|x| x.square().sum_dim_intlist([1i64].as_slice(), false, None));
        let gap = (&lengths[0] / &lengths[1]).max().double_value(&[]).sqrt();
        assert!(gap < most, "{site}: {gap:e}");
    }
}
