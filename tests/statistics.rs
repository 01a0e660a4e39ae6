//! Statistics over prompts that come one after the other are those of all activations together.

use thalweg::anyhow::Result;
use thalweg::tch::{Kind, Tensor};
use thalweg::{
    Cache, Intervention, Maximum, Plan, Point, Site, Statistics, Tokens, pca, statistics,
};

use crate::support::{config, distance, model, model_of, same, says, scratch};

/// Padded batches of different widths.
fn batches() -> Vec<Tokens> {
    let rows =
        |list: &[&[i64]]| Tokens::from_ids(&list.iter().map(|r| r.to_vec()).collect::<Vec<_>>());
    [
        rows(&[&[1, 2, 3, 4, 5, 6], &[7, 8, 9]]),
        rows(&[&[10, 11, 12, 13]]),
        rows(&[&[14, 2], &[15, 16, 17, 18, 19], &[20, 21, 22, 1, 2, 3, 4]]),
    ]
    .map(Result::unwrap)
    .to_vec()
}

fn given(batches: &[Tokens]) -> impl Iterator<Item = Result<Tokens>> {
    batches.iter().cloned().map(Ok)
}

/// All prompts in one batch, kept in memory.
fn kept(site: Site) -> Cache {
    let rows: Vec<_> = batches().iter().flat_map(|tokens| tokens.ids().to_vec()).collect();
    let plan = Plan::new().cache(site);
    model().run(&Tokens::from_ids(&rows).unwrap(), &plan).unwrap().cache
}

/// The vectors that count, `[n, D]`, with prompt and position of each.
fn vectors(cache: &Cache, site: Site, first: usize) -> (Tensor, Vec<(usize, usize)>) {
    let (x, tokens) = (cache.get(site).unwrap(), cache.tokens());
    let (mut rows, mut places) = (Vec::new(), Vec::new());
    for (prompt, ids) in tokens.ids().iter().enumerate() {
        for pos in first..ids.len() {
            let column = (tokens.padding(prompt) + pos) as i64;
            rows.push(x.get(prompt as i64).get(column).flatten(0, -1));
            places.push((prompt, pos));
        }
    }
    (Tensor::stack(&rows, 0).to_kind(Kind::Double), places)
}

fn streamed(statistics_of: Statistics, batches: &[Tokens]) -> Statistics {
    let mut list = [statistics_of];
    statistics(&model(), given(batches), &Plan::new(), &mut list).unwrap();
    let [one] = list;
    one
}

#[test]
fn streamed_statistics_equal_those_of_the_kept_activations() {
    let sites = [
        Point::ResidPost.at(1),
        Point::Z.at(0),
        Point::K.at(1),
        Point::MlpPost.at(0),
        Point::Ln1Scale.at(1),
        Site::Embed,
        Site::FinalNormalized,
        Site::Logits,
    ];
    for site in sites {
        for first in [0, 1, 2] {
            let got = streamed(Statistics::at(site).covariance().first(first), &batches());
            let (x, places) = vectors(&kept(site), site, first);
            assert_eq!((got.count(), got.prompts()), (places.len(), 6));
            let mean = x.mean_dim([0i64].as_slice(), false, None);
            let centred = &x - &mean;
            let covariance = centred.tr().matmul(&centred) / (places.len() - 1) as f64;
            assert!(distance(&got.mean().unwrap().flatten(0, -1), &mean) < 1e-10, "{site}");
            assert!(distance(&got.covariance_matrix().unwrap(), &covariance) < 1e-10, "{site}");
            let variance = covariance.diagonal(0, 0, 1);
            assert!(distance(&got.variance().unwrap().flatten(0, -1), &variance) < 1e-10);
            let shape = &kept(site).shape(site).unwrap()[2..];
            assert_eq!(got.mean().unwrap().size(), shape);
        }
    }
}

#[test]
fn merged_parts_equal_the_whole() {
    let site = Point::ResidPost.at(0);
    let new = || Statistics::at(site).covariance().top(4);
    let whole = streamed(new(), &batches());
    for cut in 0..=3 {
        let mut parts = streamed(new(), &batches()[..cut]);
        let rest = streamed(new(), &batches()[cut..]);
        parts.merge(&rest).unwrap();
        assert_eq!((parts.count(), parts.prompts()), (whole.count(), whole.prompts()));
        assert!(distance(&parts.mean().unwrap(), &whole.mean().unwrap()) < 1e-12);
        let [a, b] = [&parts, &whole].map(|s| s.covariance_matrix().unwrap());
        assert!(distance(&a, &b) < 1e-12);
        for feature in 0..12 {
            assert_eq!(parts.maxima(feature).unwrap(), whole.maxima(feature).unwrap());
        }
    }
}

#[test]
fn statistics_come_back_from_their_file_and_go_on() {
    let path = scratch("statistics").join("part.safetensors");
    for new in
        [Statistics::at(Point::Z.at(1)).covariance().top(3).first(2), Statistics::at(Site::Embed)]
    {
        new.save(&path).unwrap();
        assert_eq!(format!("{:?}", Statistics::open(&path).unwrap()), format!("{new:?}"));
        streamed(new.clone(), &batches()[..2]).save(&path).unwrap();
        let part = Statistics::open(&path).unwrap();
        assert_eq!(part.records().len(), 1);
        let (own, whole) = (streamed(part, &batches()[2..]), streamed(new, &batches()));
        assert_eq!(format!("{own:?}"), format!("{whole:?}"));
        assert!(same(&own.variance().unwrap(), &whole.variance().unwrap()));
        if let Ok(covariance) = whole.covariance_matrix() {
            assert!(same(&own.covariance_matrix().unwrap(), &covariance));
            assert_eq!(own.maxima(5).unwrap(), whole.maxima(5).unwrap());
        }
    }
    let cache = kept(Site::Embed);
    cache.save(&path).unwrap();
    says(Statistics::open(&path), &["part.safetensors", "not saved statistics", "lack facts"]);
}

#[test]
fn a_copy_does_not_change_with_the_original() {
    let mut one = streamed(Statistics::at(Site::Embed).covariance(), &batches()[..1]);
    let copy = one.clone();
    let before = copy.covariance_matrix().unwrap();
    one.merge(&streamed(Statistics::at(Site::Embed).covariance(), &batches()[1..])).unwrap();
    assert!(same(&copy.covariance_matrix().unwrap(), &before));
    assert!(!same(&one.covariance_matrix().unwrap(), &before));
}

#[test]
fn maxima_are_the_largest_values_with_their_places() {
    let site = Point::MlpPost.at(1);
    let got = streamed(Statistics::at(site).top(3), &batches());
    let (x, places) = vectors(&kept(site), site, 1);
    for feature in 0..20 {
        let column = Vec::<f64>::try_from(x.select(1, feature)).unwrap();
        let mut order: Vec<usize> = (0..column.len()).collect();
        order.sort_by(|a, b| column[*b].total_cmp(&column[*a]));
        let found = got.maxima(feature as usize).unwrap();
        assert_eq!(found.len(), 3);
        for (Maximum { value, prompt, pos }, at) in found.into_iter().zip(order) {
            assert_eq!((prompt, pos), places[at], "feature {feature}");
            assert!((value - column[at]).abs() < 1e-12);
        }
    }
    let few = streamed(Statistics::at(site).top(9), &batches()[1..2]);
    assert_eq!(few.maxima(0).unwrap().len(), 3, "no more than there are");
}

#[test]
fn principal_components_of_a_streamed_covariance_are_those_of_the_activations() {
    for site in [Point::ResidPost.at(1), Point::Z.at(1)] {
        let own = streamed(Statistics::at(site).covariance(), &batches()).pca(4).unwrap();
        let whole = pca(&kept(site), site, 4).unwrap();
        assert!(distance(&own.components, &whole.components) < 1e-8, "{site}");
        assert!(distance(&own.mean, &whole.mean) < 1e-10);
        assert!((own.total / whole.total - 1.0).abs() < 1e-10);
        for (a, b) in own.variance.values.iter().zip(&whole.variance.values) {
            assert!((a / b - 1.0).abs() < 1e-9);
        }
        assert_eq!(own.scores.shape(), [0, 4]);
        let x = vectors(&kept(site), site, 1).0;
        assert!(distance(&own.transform(&x).unwrap(), &whole.transform(&x).unwrap()) < 1e-8);
        assert_eq!(format!("{own:?}"), format!("{whole:?}"));
    }
}

#[test]
fn a_streamed_mean_serves_a_mean_ablation() {
    let site = Point::Z.at(1);
    let mean = streamed(Statistics::at(site).first(0), &batches()).mean().unwrap();
    let tokens = &batches()[0];
    let run = |change: Intervention| {
        model().run(tokens, &Plan::new().intervene(site, change.head(2))).unwrap().logits
    };
    let ablated = run(Intervention::set(&mean));
    assert!(distance(&ablated, &run(Intervention::mean(&kept(site)))) < 1e-12);
}

#[test]
fn statistics_are_of_the_run_that_the_plan_changes() {
    let plan = Plan::new().intervene(Site::Embed, Intervention::scale(2.0));
    let mut list = [Statistics::at(Site::Embed), Statistics::at(Point::ResidPost.at(1))];
    statistics(&model(), given(&batches()), &plan, &mut list).unwrap();
    let plain = streamed(Statistics::at(Site::Embed), &batches());
    assert!(distance(&list[0].mean().unwrap(), &(plain.mean().unwrap() * 2.0)) < 1e-12);
    assert_eq!(list[1].count(), plain.count());
    assert!(list[1].records()[0].plan.contains("scale(2)"));
    assert_eq!(list[1].records().len(), 1, "one kind of run, however many prompts");
}

#[test]
fn under_a_cap_a_batch_runs_in_parts_and_the_numbers_stay() {
    let site = Point::ResidPost.at(1);
    let rows: Vec<_> = batches().iter().flat_map(|tokens| tokens.ids().to_vec()).collect();
    let one = [Tokens::from_ids(&rows).unwrap()];
    let whole = streamed(Statistics::at(site).covariance().top(2), &one);
    let capped = |cap: u64| -> Result<Statistics> {
        let mut list = [Statistics::at(site).covariance().top(2)];
        statistics(&model(), given(&one), &Plan::new().cap(cap), &mut list)?;
        let [one] = list;
        Ok(one)
    };
    let got = capped((32 << 20) + 50_000).unwrap();
    assert!(
        distance(&got.covariance_matrix().unwrap(), &whole.covariance_matrix().unwrap()) < 1e-10
    );
    for (a, b) in got.maxima(3).unwrap().iter().zip(whole.maxima(3).unwrap()) {
        assert_eq!((a.prompt, a.pos), (b.prompt, b.pos));
    }
    says(capped(20_000), &["row 5 of 7 tokens takes", "the plan's cap is 20000"]);
    says(capped(100), &["the covariance takes", "the plan's cap is 100"]);
}

#[test]
fn what_statistics_cannot_be_taken_of_says_why() {
    let model = model();
    let run =
        |list: &mut [Statistics], plan: &Plan| statistics(&model, given(&batches()), plan, list);
    says(run(&mut [], &Plan::new()), &["none asked for"]);
    let pattern = &mut [Statistics::at(Point::Pattern.at(0))];
    says(run(pattern, &Plan::new()), &["blocks.0.attn.hook_pattern", "expected [Batch, Pos, ..]"]);
    let caching = Plan::new().cache(Point::Z);
    says(run(&mut [Statistics::at(Site::Embed)], &caching), &["leave cache(..) out"]);
    says(run(&mut [Statistics::at(Point::Z.at(7))], &Plan::new()), &["batch 0", "layers 0..1"]);
    let empty = Statistics::at(Site::Embed).top(2);
    says(empty.mean(), &["nothing was added yet"]);
    says(empty.maxima(0), &["nothing was added yet"]);
    let mut some = streamed(Statistics::at(Site::Embed), &batches());
    says(some.covariance_matrix(), &["was not asked for", ".covariance()"]);
    says(some.maxima(0), &["no maxima were asked for", ".top(k)"]);
    says(some.merge(&Statistics::at(Point::Z.at(0))), &["differ and cannot be merged"]);
    let top = streamed(Statistics::at(Site::Embed).top(1), &batches());
    says(top.maxima(12), &["no feature 12", "0..11"]);
    let wider = model_of(thalweg::Config { d_model: 16, ..config() }, Kind::Double, 1);
    let cache = wider.run(&batches()[0], &Plan::new().cache(Site::Embed)).unwrap().cache;
    says(some.add(&cache), &["[16]", "[12]"]);
}

#[test]
fn histograms_count_every_value_once_and_add_up() {
    let site = Point::MlpPost.at(1);
    let asked = || Statistics::at(site).top(2).histogram(-0.5, 0.75, 10);
    let whole = streamed(asked(), &batches());
    let (x, _) = vectors(&kept(site), site, 1);
    let edges = Vec::<f64>::try_from(whole.edges().unwrap()).unwrap();
    assert_eq!((edges.len(), edges[0], edges[10]), (11, -0.5, 0.75));
    let counts = whole.counts().unwrap();
    assert_eq!(counts.size(), [x.size()[1], 12]);
    // A value within rounding of an edge may fall on either side of it when the batch is another.
    let column = |i: i64| counts.select(1, i);
    let below =
        |edge: f64| x.lt(edge).to_kind(Kind::Int64).sum_dim_intlist([0i64].as_slice(), false, None);
    let mut so_far = column(0).copy();
    for (i, edge) in edges.iter().enumerate() {
        let off = (&so_far - below(*edge)).abs().sum(None).int64_value(&[]);
        let near = (&x - *edge).abs().lt(1e-5).to_kind(Kind::Int64).sum(None).int64_value(&[]);
        assert!(off <= near, "{edge}: {off} of {near}");
        so_far += column(i as i64 + 1);
    }
    let n = whole.count() as i64;
    let all = counts.sum_dim_intlist([1i64].as_slice(), false, None);
    assert!(all == Tensor::full_like(&all, n));
    // Parts add up, by way of files too.
    let folder = scratch("histogram");
    let mut merged = asked();
    for (i, batch) in batches().chunks(1).enumerate() {
        let path = folder.join(format!("{i}.safetensors"));
        streamed(asked(), batch).save(&path).unwrap();
        merged.merge(&Statistics::open(&path).unwrap()).unwrap();
    }
    assert!(merged.counts().unwrap() == counts);
    let other = streamed(asked().histogram(-0.5, 0.75, 11), &batches());
    says(merged.merge(&other), &["cannot be merged", "histogram of 10 bins from -0.5 to 0.75"]);
    let wrong = asked().histogram(1.0, 1.0, 10);
    says(wrong.clone().counts(), &["nothing was added yet"]);
    let mut wrong = wrong;
    says(wrong.add(&kept(site)), &["expected low < high"]);
    says(Statistics::at(site).edges(), &["no histogram was asked for"]);
}

#[test]
fn values_that_are_no_numbers_count_as_above() {
    let tokens = Tokens::from_ids(&[vec![1, 2, 3, 4]]).unwrap();
    let x = Tensor::from_slice(&[f64::NAN, f64::NEG_INFINITY, f64::INFINITY, 0.5]).view([1, 4, 1]);
    let cache = Cache::from_parts(&tokens, 1, vec![(Site::Embed, x)]).unwrap();
    let mut statistics = Statistics::at(Site::Embed).first(0).histogram(0.0, 1.0, 1);
    statistics.add(&cache).unwrap();
    let counts = Vec::<i64>::try_from(statistics.counts().unwrap().view([-1])).unwrap();
    assert_eq!(counts, [1, 1, 2]);
}

#[test]
fn prompts_without_vectors_keep_the_numbers_of_the_others() {
    let site = Point::ResidPost.at(0);
    let asked = || Statistics::at(site).top(3);
    // The first part sees no vector: its one prompt is its first token alone.
    let one = Tokens::from_ids(&[vec![5]]).unwrap();
    let parts = [vec![one.clone()], vec![one.clone(), batches()[0].clone()], vec![one]];
    let whole = streamed(asked(), &parts.concat());
    let mut merged = asked();
    for part in &parts {
        merged.merge(&streamed(asked(), part)).unwrap();
    }
    assert_eq!(merged.prompts(), 5);
    assert_eq!(merged.maxima(3).unwrap(), whole.maxima(3).unwrap());
    let mut skipped = asked();
    skipped.skip(2);
    skipped.merge(&streamed(asked(), &batches()[..1])).unwrap();
    assert_eq!(skipped.maxima(3).unwrap(), whole.maxima(3).unwrap());
}

#[test]
fn equal_statistics_are_equal_bytes() {
    let folder = scratch("equal-bytes");
    let site = Point::ResidPost.at(0);
    let bytes = |i: usize| {
        let path = folder.join(format!("{i}.safetensors"));
        let asked = Statistics::at(site).covariance().top(2).histogram(0.0, 1.0, 4);
        streamed(asked, &batches()).save(&path).unwrap();
        std::fs::read(path).unwrap()
    };
    let first = bytes(0);
    assert!((1..6).all(|i| bytes(i) == first));
}
