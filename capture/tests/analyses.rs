//! Analyses of what was captured say what they say of the live model.

use thalweg::tch::{Kind, Tensor};
use thalweg::{Plan, Point, Probe, ProbeMethod, Site, Statistics, cka, logit_lens, pca};
use thalweg_capture::{Capture, Captured, Prompts};

use crate::support::{Folder, distance, lines, model, text};

#[test]
fn pca_lens_probe_and_cka_are_those_of_the_live_model() {
    let (folder, model) = (Folder::new("analyses"), model());
    let prompts = Prompts::open(folder.write("prompts.txt", &text(30)), "text").unwrap();
    let (early, late) = (Point::ResidPost.at(0), Point::ResidPost.at(3));
    let capture = Capture::new(prompts, folder.path("out")).sites([early, late]);
    capture.prompts_per_shard(30).run(&model).unwrap();
    let captured = Captured::open(folder.path("out")).unwrap().labelled(&model);
    let there: Vec<String> = lines(30).into_iter().filter(|line| !line.is_empty()).collect();
    let live = model.run(&model.batch(&there).unwrap(), &Plan::new().cache([early, late])).unwrap();
    let all: Vec<_> = captured.caches([early, late], 100).unwrap().map(Result::unwrap).collect();
    let [cache] = all.as_slice() else { panic!("one shard, one batch") };
    assert_eq!(cache.tokens().pieces(), live.cache.tokens().pieces());

    let [a, b] = [cache, &live.cache].map(|cache| pca(cache, late, 3).unwrap());
    assert!(distance(&a.components, &b.components) < 1e-4);
    assert!((a.explained.values[[0]] - b.explained.values[[0]]).abs() < 1e-5);
    let token = model.token("John").unwrap();
    let row = |cache: &thalweg::Cache| cache.row(1).unwrap();
    let [a, b] = [cache, &live.cache].map(|cache| row(cache).get(late).unwrap());
    assert!(distance(&a, &b) < 1e-4);
    let one = captured.prompt(2, Point::ResidPost.at(3)).unwrap();
    assert_eq!(one.tokens().pieces()[0], model.tokens(&lines(30)[2]).unwrap().pieces()[0]);
    assert!(captured.prompt(3, late).unwrap_err().to_string().contains("an empty row"));
    assert!(captured.prompt(300, late).is_err());
    let [a, b] = [cache, &live.cache].map(|cache| logit_lens(&model, &row(cache), token).unwrap());
    let gap = (&a.values - &b.values).iter().fold(0.0, |most: f64, gap| most.max(gap.abs()));
    assert!(a.shape() == b.shape() && gap < 1e-4, "{gap}");

    let all = 0..captured.len();
    let x = captured.rows(late, all.clone()).unwrap();
    let labels: Vec<String> = captured
        .places(all.clone())
        .unwrap()
        .iter()
        .map(|place| format!("{}", place.token % 3))
        .collect();
    let live_rows = |site: Site| -> Tensor {
        let rows = (0..there.len())
            .map(|row| live.cache.row(row).unwrap().get(site).unwrap().squeeze_dim(0));
        Tensor::cat(&rows.collect::<Vec<_>>(), 0)
    };
    let probes = [x.shallow_clone(), live_rows(late)]
        .map(|x| (Probe::fit(&x, &labels, ProbeMethod::MeanDifference).unwrap(), x));
    let [a, b] = probes.map(|(probe, x)| probe.accuracy(&x, &labels).unwrap());
    assert!((a - b).abs() < 1e-9, "{a} {b}");
    let early_rows = captured.rows(early, all).unwrap();
    let [a, b] = [cka(&early_rows, &x).unwrap(), cka(&live_rows(early), &live_rows(late)).unwrap()];
    assert!((a - b).abs() < 1e-6, "{a} {b}");
}

#[test]
fn statistics_over_batches_of_any_size_are_the_same() {
    let (folder, model) = (Folder::new("caches"), model());
    let prompts = Prompts::open(folder.write("prompts.txt", &text(30)), "text").unwrap();
    let site = Point::Z.at(1);
    let capture = Capture::new(prompts, folder.path("out")).sites(site).kind(Kind::Float);
    capture.prompts_per_shard(7).run(&model).unwrap();
    let captured = Captured::open(folder.path("out")).unwrap();
    let of = |n: usize| {
        let mut statistics = Statistics::at(site).covariance().top(2);
        for cache in captured.caches(site, n).unwrap() {
            statistics.add(&cache.unwrap()).unwrap();
        }
        statistics
    };
    let [a, b] = [1, 5].map(of);
    assert_eq!((a.count(), a.prompts()), (b.count(), b.prompts()));
    assert_eq!(a.prompts(), 27);
    assert!(distance(&a.covariance_matrix().unwrap(), &b.covariance_matrix().unwrap()) < 1e-12);
    assert_eq!(a.maxima(7).unwrap(), b.maxima(7).unwrap());
}
