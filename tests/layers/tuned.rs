//! The tuned lens: translators by hand, and trained.

use thalweg::prelude::*;
use thalweg::{Lens, LensOptimizer, TunedLens, TunedLensTraining, lens_kl, lens_rank};

use super::{affine, batch, biased, cached, eye, flat, mlp_matrix, stream};
use crate::support::{distance, message, model, model_f32, same, says, scratch};

/// `n` prompts of 7 random tokens.
fn prompts(model: &Model, n: usize, seed: u64) -> Tokens {
    let mut rng = thalweg::rng::Rng::new(seed);
    let vocab = model.config().d_vocab;
    let rows: Vec<Vec<i64>> =
        (0..n).map(|_| (0..7).map(|_| rng.below(vocab) as i64).collect()).collect();
    Tokens::from_ids(&rows).unwrap()
}

/// Affine maps that turn the stream before each block of [`affine`] into the final stream.
fn exact(model: &Model, tokens: &Tokens) -> TunedLens {
    let run = cached(model, tokens, stream());
    let at = |site: Site| run.cache.get(site).unwrap().get(0).get(1); // [DModel]
    let (mut weights, mut biases) = (Vec::new(), Vec::new());
    for layer in 0..3 {
        let blocks = (layer..3).map(|l| eye(8) + mlp_matrix(model, l));
        let whole = blocks.fold(eye(8), |below, block| block.matmul(&below));
        let rest = at(Point::ResidPost.at(2)) - whole.mv(&at(Point::ResidPre.at(layer)));
        weights.push(whole - eye(8));
        biases.push(rest);
    }
    TunedLens::from_parts(model, &Tensor::stack(&weights, 0), &Tensor::stack(&biases, 0)).unwrap()
}

#[test]
fn translators_of_zero_are_the_logit_lens_bit_by_bit() {
    for model in [model(), model_f32(), biased()] {
        let lens = Lens::tuned(&model, &TunedLens::zero(&model)).unwrap();
        let run = cached(&model, &batch(), [Point::ResidPre, Point::ResidPost]);
        for layer in 0..2 {
            for site in [Point::ResidPre.at(layer), Point::ResidPost.at(layer)] {
                let x = run.cache.get(site).unwrap();
                let read = lens.unembed(site, &x).unwrap();
                assert!(same(&read, &model.unembed(&x).unwrap()), "{site}");
            }
        }
        let (a, b) = (lens.kl(&run.cache).unwrap(), lens_kl(&model, &run.cache).unwrap());
        assert_eq!((flat(&a), a.axes), (flat(&b), b.axes));
    }
}

#[test]
fn where_the_rest_of_the_model_is_affine_its_map_reads_what_the_model_says() {
    let model = affine(0.0);
    let tokens = prompts(&model, 4, 1);
    let lens = Lens::tuned(&model, &exact(&model, &tokens)).unwrap();
    let run = cached(&model, &tokens, stream());
    assert!(lens.kl(&run.cache).unwrap().values.iter().all(|kl| kl.abs() < 1e-12));
    let plain = lens_kl(&model, &run.cache).unwrap();
    assert!(plain.get(&["0", "embed", "2"]).unwrap() > 0.05, "there is something to translate");
    for layer in 0..3 {
        let site = Point::ResidPre.at(layer);
        let read = lens.unembed(site, &run.cache.get(site).unwrap()).unwrap();
        let centred = |x: &Tensor| x - x.mean_dim([-1i64].as_slice(), true, None);
        assert!(distance(&centred(&read), &centred(&run.logits)) < 1e-11);
    }
}

#[test]
fn training_finds_the_affine_map_and_holds_on_other_prompts() {
    let model = affine(0.0);
    let (train, held_out) = (prompts(&model, 48, 2), prompts(&model, 16, 3));
    let training = TunedLensTraining::new(&train, &held_out).steps(300).prompts(48).decay(0.0);
    let fit = training.rate(0.05).run(&model).unwrap();
    for place in ["embed", "L0", "L1"] {
        let kl = |series: &str| fit.held_out.get(&[series, place]).unwrap();
        assert!(kl("tuned lens") < 1e-2 * kl("logit lens"), "{place}: {}", fit.held_out.values);
        assert!(
            kl("tuned lens") < 1e-2 * kl("mean prediction"),
            "{place}: {}",
            fit.held_out.values
        );
    }
    assert_eq!(fit.loss.shape(), [300, 3]);
    let interval = fit.held_out.interval.as_ref().unwrap();
    assert_eq!(interval.method, "95 % normal interval over prompts");
    assert!(fit.lens.training.contains("300 steps") && !format!("{fit:?}").contains('\n'));
}

#[test]
fn small_steps_on_the_full_batch_never_raise_the_loss() {
    let model = model();
    let tokens = prompts(&model, 6, 4);
    for (optimizer, rate) in [
        (LensOptimizer::Adam, 2e-4),
        (LensOptimizer::Sgd { momentum: 0.0 }, 0.02),
        (LensOptimizer::Sgd { momentum: 0.9 }, 0.002),
    ] {
        let training = TunedLensTraining::new(&tokens, &tokens).steps(25).prompts(6).decay(0.0);
        let fit = training.optimizer(optimizer).rate(rate).run(&model).unwrap();
        for layer in 0..2 {
            let losses = flat(&fit.loss.select(Axis::Layer, layer).unwrap());
            assert!(losses.is_sorted_by(|a, b| a > b), "{optimizer:?}: {losses:?}");
            assert!(losses[24] < 0.995 * losses[0], "{optimizer:?}: {losses:?}");
        }
    }
}

#[test]
fn the_first_loss_is_that_of_the_logit_lens() {
    let model = model();
    let tokens = batch();
    let fit = TunedLensTraining::new(&tokens, &tokens).steps(1).prompts(3).run(&model).unwrap();
    let run = cached(&model, &tokens, stream());
    let kl = lens_kl(&model, &run.cache).unwrap();
    let kl = thalweg::with_first(kl, &run.cache).unwrap();
    for (layer, place) in [(0, "embed"), (1, "L0")] {
        let row = kl.index_of(Axis::Layer, place).unwrap() as i64;
        let at = |row: i64| kl.select(Axis::Layer, row).unwrap();
        let all: Vec<f64> = at(row).present().filter(|(i, _)| real(i)).map(|(_, x)| x).collect();
        assert_eq!(all.len(), 4 + 2 + 3);
        let mean = all.iter().sum::<f64>() / 9.0;
        let found = fit.loss.at(&[0, layer]).unwrap();
        assert!((found - mean).abs() < 1e-12, "{found} against {mean}");
    }
    // By prompt first, then over prompts.
    let by_prompt = |row: usize| {
        let own = kl.select(Axis::Batch, row as i64).unwrap();
        let own: Vec<f64> = own
            .present()
            .filter(|(i, _)| i[0] == 0 && real(&[row, i[1]]))
            .map(|(_, x)| x)
            .collect();
        own.iter().sum::<f64>() / own.len() as f64
    };
    let mean = (0..3).map(by_prompt).sum::<f64>() / 3.0;
    let found = fit.held_out.get(&["logit lens", "embed"]).unwrap();
    assert!((found - mean).abs() < 1e-12, "{found} against {mean}");
}

/// Whether `[row, column]` of [`batch`] is a token, and not a prompt's first.
fn real(index: &[usize]) -> bool {
    index[1] > [0, 2, 1][index[0]]
}

#[test]
fn the_same_seed_trains_the_same_lens_and_decay_pulls_to_the_logit_lens() {
    let model = model();
    let tokens = prompts(&model, 8, 5);
    let training = TunedLensTraining::new(&tokens, &tokens).steps(12).prompts(3).rate(0.01);
    let run = |training: TunedLensTraining| training.run(&model).unwrap().lens.weights();
    let first = run(training.clone().seed(1));
    assert!(same(&first, &run(training.clone().seed(1))));
    assert!(!same(&first, &run(training.clone().seed(2))));
    for optimizer in [LensOptimizer::Adam, LensOptimizer::Sgd { momentum: 0.9 }] {
        let size = |decay: f64| {
            let training = training.clone().optimizer(optimizer).decay(decay).steps(60);
            run(training).norm().double_value(&[])
        };
        let (free, pulled) = (size(0.0), size(5.0));
        assert!(pulled < 0.7 * free, "{optimizer:?}: {pulled} against {free}");
    }
}

#[test]
fn a_tuned_lens_is_saved_with_its_model_and_refuses_any_other() {
    let model = model();
    let tokens = prompts(&model, 4, 6);
    let fit = TunedLensTraining::new(&tokens, &tokens).steps(3).run(&model).unwrap();
    let path = scratch("tuned").join("lens.safetensors");
    fit.lens.save(&path).unwrap();
    let back = TunedLens::open(&path).unwrap();
    assert!(same(&back.weights(), &fit.lens.weights()));
    assert!(same(&back.biases(), &fit.lens.biases()));
    assert_eq!(format!("{back:?}"), format!("{:?}", fit.lens));
    let run = cached(&model, &tokens, Point::ResidPost);
    let kl = |lens: &TunedLens| flat(&Lens::tuned(&model, lens).unwrap().kl(&run.cache).unwrap());
    assert_eq!(kl(&back), kl(&fit.lens));
    says(Lens::tuned(&biased(), &back), &["tuned lens", "another model", "sha256:"]);
    says(Lens::tuned(&model.shuffled(1).unwrap(), &back), &["another model"]);
    std::fs::write(&path, b"no").unwrap();
    says(TunedLens::open(&path), &["lens.safetensors"]);
    run.cache.save(&path).unwrap();
    says(TunedLens::open(&path), &["not a tuned lens"]);
}

#[test]
fn a_lens_with_maps_leaves_out_what_it_has_none_for_and_says_so() {
    let model = model();
    let lens = Lens::tuned(&model, &TunedLens::zero(&model)).unwrap();
    let run = cached(&model, &batch(), stream());
    let rank = lens.rank(&run.cache, 3).unwrap();
    assert_eq!(rank.labels(Axis::Layer).unwrap(), ["embed", "L0", "L1"]);
    assert!(rank.provenance["left out"].contains("2 mid"), "{:?}", rank.provenance);
    let whole = lens_rank(&model, &run.cache, 3).unwrap();
    assert_eq!(rank.get(&["0", "L0", "-2"]).unwrap(), whole.get(&["0", "L0", "-2"]).unwrap());
    let run = cached(&model, &batch(), Point::ResidMid);
    says(lens.entropy(&run.cache), &["between attention and MLP", "ResidPost"]);
    says(lens.unembed(Point::ResidMid.at(0), &eye(12)), &["no map for blocks.0.hook_resid_mid"]);
    says(lens.unembed(Site::Embed, &eye(3)), &["DModel", "12"]);
}

#[test]
fn training_that_cannot_be_says_why() {
    let model = model();
    let tokens = batch();
    let short = Tokens::from_ids(&[vec![1, 2], vec![3]]).unwrap();
    let training = TunedLensTraining::new(&tokens, &short);
    says(training.run(&model), &["held-out", "prompt 1", "first 1"]);
    says(TunedLensTraining::new(&tokens, &tokens).steps(0).run(&model), &["no step"]);
    let weights = Tensor::zeros([2, 3, 3], (Kind::Double, Device::Cpu));
    let error = message(TunedLens::from_parts(&model, &weights, &eye(2)));
    assert!(error.contains("[2, 3, 3]") && error.contains("[2, 12, 12]"), "{error}");
}

#[test]
fn tokens_that_are_never_said_leave_the_divergences_finite() {
    let model = model_f32()
        .with_weights(|name, w| {
            Ok(if name.contains("lm_head") { w * 1000.0 } else { w.shallow_clone() })
        })
        .unwrap();
    let (train, held_out) = (prompts(&model, 2, 2), prompts(&model, 4, 3));
    let fit = TunedLensTraining::new(&train, &held_out).steps(1).run(&model).unwrap();
    let all = fit.held_out.values.iter().all(|kl| kl.is_finite());
    assert!(all, "{:?}", fit.held_out);
}
