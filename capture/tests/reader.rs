//! What is read back is what the model gives.

use thalweg::tch::Kind;
use thalweg::{Model, Plan, Point, Site, Tokens};
use thalweg_capture::{Capture, Captured, Prompts, Which};

use crate::support::{Folder, lines, model, text};

fn captured(folder: &Folder, model: &Model, ask: impl Fn(Capture) -> Capture) -> Captured {
    let prompts = Prompts::open(folder.write("prompts.txt", &text(30)), "text").unwrap();
    let out = folder.path("out");
    let sites = [Point::ResidPost.at(0), Point::Z.at(2), Site::Embed];
    let capture = Capture::new(prompts, &out).sites(sites).batch_tokens(100).prompts_per_shard(8);
    let done = ask(capture).run(model).unwrap();
    assert_eq!((done.made, done.missing), (4, 0));
    Captured::open(out).unwrap()
}

/// Activations of each prompt run alone.
fn alone(model: &Model, site: Site) -> Vec<thalweg::tch::Tensor> {
    let lines = lines(30);
    let there = lines.iter().filter(|line| !line.is_empty());
    let run = |line: &String| {
        let run = model.run(&model.tokens(line).unwrap(), &Plan::new().cache(site)).unwrap();
        run.cache.get(site).unwrap().squeeze_dim(0)
    };
    there.map(run).collect()
}

#[test]
fn rows_of_every_site_are_the_live_models() {
    let (folder, model) = (Folder::new("rows-of-sites"), model());
    let captured = captured(&folder, &model, |capture| capture);
    for site in [Point::ResidPost.at(0), Point::Z.at(2), Site::Embed] {
        let expected = thalweg::tch::Tensor::cat(&alone(&model, site), 0);
        let found = captured.rows(site, 0..captured.len()).unwrap();
        assert_eq!(found.size(), expected.size());
        let gap = (&found - &expected).abs().max().double_value(&[]);
        assert!(gap < 1e-5 * expected.abs().max().double_value(&[]), "{site}: {gap}");
        let part = captured.rows(site, 40..150).unwrap();
        assert!(part == found.narrow(0, 40, 110));
    }
    let none = captured.rows(Point::ResidPost.at(0), 5..5).unwrap();
    assert_eq!(none.size(), [0, 128]);
    let error = captured.rows(Point::ResidPost.at(1), 0..1).unwrap_err().to_string();
    assert!(error.contains("was not captured; captured: hook_embed"), "{error}");
    assert!(captured.rows(Site::Embed, 0..captured.len() + 1).is_err());
    // Places say which token each row is of.
    let lines = lines(30);
    let mut at = captured.places(0..captured.len()).unwrap().into_iter();
    for (number, line) in lines.iter().enumerate().filter(|(_, line)| !line.is_empty()) {
        for (position, id) in model.tokens(line).unwrap().ids()[0].iter().enumerate() {
            let place = at.next().unwrap();
            assert_eq!((place.prompt, place.position, place.token), (number as u64, position, *id));
        }
    }
    assert!(at.next().is_none());
}

#[test]
fn other_kinds_round_and_the_last_position_stands_alone() {
    let (folder, model) = (Folder::new("kinds"), model());
    let ask = |capture: Capture| capture.kind(Kind::BFloat16).positions(Which::Last);
    let captured = captured(&folder, &model, ask);
    let site = Point::ResidPost.at(0);
    let found = captured.rows(site, 0..captured.len()).unwrap();
    assert_eq!((found.size()[0], found.kind()), (27, Kind::BFloat16));
    for (row, expected) in alone(&model, site).iter().enumerate() {
        let expected = expected.get(-1);
        let gap = (found.get(row as i64).to_kind(Kind::Float) - &expected).abs().max();
        let scale = expected.abs().max().double_value(&[]);
        assert!(gap.double_value(&[]) <= scale / 200.0, "{row}");
    }
}

#[test]
fn sites_without_one_vector_a_token_are_refused() {
    let (folder, model) = (Folder::new("patterns"), model());
    let prompts = Prompts::open(folder.write("prompts.txt", "Mary\n"), "text").unwrap();
    let capture = Capture::new(prompts, folder.path("out"));
    for (sites, expected) in [
        (vec![Point::Pattern.at(0)], "expected a site of [Batch, Pos, ..]"),
        (vec![Point::ResidPost.at(9)], "the model has layers 0..3"),
        (vec![], "no site to capture"),
    ] {
        let error = capture.clone().sites(sites).run(&model).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert!(Tokens::from_ids(&[vec![1]]).is_ok());
}
