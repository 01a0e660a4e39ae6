//! SAELens' files: what it computes from them, and what is wrong with damaged ones.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use thalweg::prelude::*;
use thalweg::{Normalization, Sae, SaeKind};

use super::{data, random, shipped, top_k};
use crate::support::{distance, same, says, scratch};

fn numbers(value: &Value) -> Tensor {
    let list: Vec<f64> = value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    Tensor::from_slice(&list)
}

/// A directory of `data/golden/analysis/sae`, copied so that it can be damaged.
fn copy(case: &str) -> PathBuf {
    let dir = scratch(&format!("sae-{case}"));
    for file in ["cfg.json", "sae_weights.safetensors"] {
        fs::copy(data("golden/analysis/sae").join(case).join(file), dir.join(file)).unwrap();
    }
    dir
}

fn edit(dir: &Path, key: &str, value: Value) {
    let path = dir.join("cfg.json");
    let mut cfg: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    cfg[key] = value;
    fs::write(path, cfg.to_string()).unwrap();
}

#[test]
fn every_architecture_gives_the_latents_and_the_output_that_saelens_gives() {
    let text = fs::read_to_string(data("golden/analysis/sae.json")).unwrap();
    let golden: Value = serde_json::from_str(&text).unwrap();
    let cases = golden["cases"].as_object().unwrap();
    assert_eq!(cases.len(), 17);
    for (name, case) in cases {
        let sae = Sae::load(data("golden/analysis/sae").join(name)).unwrap();
        let shape: Vec<i64> = serde_json::from_value(case["shape"].clone()).unwrap();
        let x = numbers(&case["x"]).view(&shape[..]);
        let near = if sae.w_enc.kind() == Kind::Double { 1e-14 } else { 1e-6 };
        let latents = sae.encode(&x).unwrap();
        let off = distance(&latents.flatten(0, -1), &numbers(&case["latents"]));
        assert!(off < near, "{name}: latents off by {off}");
        let out = sae.reconstruct(&x).unwrap();
        let off = distance(&out.flatten(0, -1), &numbers(&case["out"]));
        assert!(off < near, "{name}: output off by {off}");
        assert!(out.numel() != x.numel() || out.size() == shape, "{name}");
    }
}

#[test]
fn a_saved_sae_is_the_one_that_was_saved() {
    for entry in fs::read_dir(data("golden/analysis/sae")).unwrap() {
        let sae = Sae::load(entry.unwrap().path()).unwrap();
        let dir = scratch("sae-saved");
        sae.save(&dir).unwrap();
        let again = Sae::load(&dir).unwrap();
        assert!(same(&again.w_enc, &sae.w_enc) && same(&again.w_dec, &sae.w_dec));
        let facts =
            |sae: &Sae| (sae.site, sae.site_out, sae.kind, sae.normalization, sae.subtract_b_dec);
        assert_eq!(facts(&again), facts(&sae));
        let x = Tensor::ones([3, 6], (Kind::Double, Device::Cpu)) * 0.7;
        assert!(same(&again.reconstruct(&x).unwrap(), &sae.reconstruct(&x).unwrap()), "{sae:?}");
    }
}

#[test]
fn the_config_says_where_and_how() {
    let of = |name: &str| Sae::load(data("golden/analysis/sae").join(name)).unwrap();
    let transcoder = of("jumprelu-skip-transcoder");
    assert_eq!(transcoder.site, Point::MlpIn.at(1));
    assert_eq!(transcoder.site_out, Point::MlpPost.at(1));
    assert!(transcoder.is_transcoder() && transcoder.w_skip.is_some());
    assert_eq!(
        format!("{transcoder:?}"),
        "Transcoder JumpRelu at blocks.1.hook_mlp_in -> blocks.1.mlp.hook_post: 6 -> 10 -> 4, Double"
    );
    assert_eq!(of("old-topk").unknown_keys, ["lp_norm"]);
    let old = of("old-topk");
    assert_eq!(old.kind, SaeKind::TopK { k: 2, by_decoder_norm: false });
    assert!(old.subtract_b_dec && old.w_enc.kind() == Kind::Float);
    assert_eq!(of("layer-norm").normalization, Normalization::LayerNorm);
    assert!(shipped().unknown_keys.is_empty());
}

#[test]
fn a_key_that_would_change_the_arithmetic_is_an_error_with_its_value() {
    let cases = [
        ("architecture", json!("temporal"), "architecture = \"temporal\" is not implemented"),
        (
            "normalize_activations",
            json!("expected_average_only_in"),
            "normalize_activations = \"exp",
        ),
        ("reshape_activations", json!("other"), "reshape_activations = \"other\""),
        ("activation_fn", json!("tanh-relu"), "activation_fn = \"tanh-relu\""),
        ("rescale_acts_by_decoder_norm", json!(true), "rescale_acts_by_decoder_norm = true"),
        ("finetuning_scaling_factor", json!(true), "finetuning_scaling_factor = true"),
        ("hook_head_index", json!(3), "hook_head_index = 3"),
        ("apply_b_dec_to_input", json!("yes"), "apply_b_dec_to_input = \"yes\""),
        ("dtype", json!("float8"), "dtype = \"float8\""),
        ("d_in", json!(0), "d_in = 0"),
        ("d_out", json!(9), "d_out = 9"),
        (
            "model_from_pretrained_kwargs",
            json!({"fold_ln": true}),
            "model_from_pretrained_kwargs.fold_ln = true",
        ),
        ("d_sae", json!(11), "W_enc is [6, 10], cfg.json expects [6, 11]"),
    ];
    for (key, value, text) in cases {
        let dir = copy("standard");
        edit(&dir, key, value);
        says(Sae::load(&dir), &[text]);
    }
    let dir = copy("standard");
    edit(&dir, "metadata", json!({"hook_name": "blocks.0.hook_resid_pst"}));
    says(Sae::load(&dir), &["hook_resid_pst", "did you mean blocks.0.hook_resid_post?"]);
    edit(&dir, "metadata", json!({"hook_name": "blocks.0.attn.hook_pattern"}));
    says(Sae::load(&dir), &["its axes are [Batch, Head, Query, Key]"]);
    let dir = copy("topk");
    edit(&dir, "k", json!(11));
    says(Sae::load(&dir), &["k = 11", "d_sae = 10"]);
    let dir = copy("transcoder");
    edit(&dir, "apply_b_dec_to_input", json!(true));
    says(Sae::load(&dir), &["apply_b_dec_to_input = true of a transcoder"]);
}

#[test]
fn tensors_that_are_missing_too_many_or_of_the_wrong_shape_are_named() {
    let dir = copy("standard");
    edit(&dir, "architecture", json!("jumprelu"));
    says(Sae::load(&dir), &["threshold is missing", "jumprelu"]);
    edit(&dir, "architecture", json!("gated"));
    says(Sae::load(&dir), &["b_gate is missing"]);
    let dir = copy("jumprelu");
    edit(&dir, "architecture", json!("standard"));
    says(Sae::load(&dir), &["threshold belongs to no \"standard\" SAE"]);
    let path = dir.join("sae_weights.safetensors");
    let whole = fs::read(&path).unwrap();
    for cut in [4, 40, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..cut]).unwrap();
        says(Sae::load(&dir), &["sae_weights.safetensors is damaged"]);
    }
    fs::remove_file(&path).unwrap();
    says(Sae::load(&dir), &["there is no such file"]);
    fs::write(dir.join("cfg.json"), "[").unwrap();
    says(Sae::load(&dir), &["not JSON"]);
    fs::write(dir.join("cfg.json"), "[]").unwrap();
    says(Sae::load(&dir), &["expected a JSON object"]);
}

#[test]
fn files_changed_at_random_load_or_say_why_not_in_one_line() {
    let mut rng = thalweg::rng::Rng::new(11);
    let mut refused = 0;
    for case in ["topk-by-norm", "jumprelu-skip-transcoder", "batchtopk-by-norm", "old-topk"] {
        let dir = copy(case);
        for file in ["cfg.json", "sae_weights.safetensors"] {
            let path = dir.join(file);
            let whole = fs::read(&path).unwrap();
            for _ in 0..60 {
                let mut bytes = whole.clone();
                for _ in 0..rng.range(1..4) {
                    let at = rng.below(bytes.len().min(900));
                    bytes[at] = [b'0', b'9', b'-', b'"', b'e', rng.below(256) as u8][rng.below(6)];
                }
                fs::write(&path, &bytes).unwrap();
                if let Err(error) = Sae::load(&dir) {
                    refused += 1;
                    assert!(!error.to_string().contains('\n'), "{error}");
                }
            }
            fs::write(&path, &whole).unwrap();
        }
    }
    assert!(refused > 100, "{refused} refused");
}

#[test]
fn a_dictionary_of_both_signs_of_every_direction_reconstructs() {
    let eye = Tensor::eye(12, (Kind::Double, Device::Cpu));
    let both = Tensor::cat(&[&eye, &-&eye], 0); // [24, 12]
    let zeros = |n: i64| Tensor::zeros([n], (Kind::Double, Device::Cpu));
    let site = Point::ResidPost.at(0);
    let sae = Sae::new(site, &both.tr(), &zeros(24), &both, &zeros(12)).unwrap();
    let x = thalweg::rng::Rng::new(2).normal_tensor(&[5, 12]).to_kind(Kind::Double);
    assert!(same(&sae.reconstruct(&x).unwrap(), &x));
    assert!(same(&sae.decode(&sae.encode(&x).unwrap()).unwrap(), &x));
}

#[test]
fn top_k_leaves_the_k_largest_and_no_more() {
    let x = thalweg::rng::Rng::new(3).normal_tensor(&[50, 12]).to_kind(Kind::Double);
    let site = Point::ResidPost.at(0);
    let all = random(site).encode(&x).unwrap();
    for k in [1, 4, 30] {
        let latents = top_k(site, k).encode(&x).unwrap();
        let on = latents.gt(0.0);
        let each = on.sum_dim_intlist([1i64].as_slice(), false, Kind::Int64);
        assert!(each.max().int64_value(&[]) <= k as i64);
        assert!(
            same(&latents, &(&all * on.to_kind(Kind::Double))),
            "what stays is what ReLU gives"
        );
        let left = all.masked_fill(&on, 0.0).max_dim(1, false).0;
        let least = latents.masked_fill(&on.logical_not(), f64::INFINITY).min_dim(1, false).0;
        assert!(bool::try_from(least.ge_tensor(&left).all()).unwrap(), "k = {k}");
    }
}

#[test]
fn jump_relu_keeps_what_is_above_its_threshold_as_it_is() {
    let site = Point::ResidPost.at(0);
    let threshold = Tensor::full([30], 1.5, (Kind::Double, Device::Cpu));
    let sae = Sae { kind: SaeKind::JumpRelu, threshold: Some(threshold), ..random(site) };
    let x = thalweg::rng::Rng::new(3).normal_tensor(&[50, 12]).to_kind(Kind::Double);
    let (plain, jumped) = (random(site).encode(&x).unwrap(), sae.encode(&x).unwrap());
    assert!(same(&jumped, &plain.masked_fill(&plain.le(1.5), 0.0)));
    assert!(super::count(&jumped.gt(0.0)) > 100);
}

#[test]
fn the_function_does_not_change_with_the_norms_of_the_decoder() {
    for name in ["standard", "gated", "jumprelu", "topk-by-norm", "layer-norm", "skip-transcoder"] {
        let sae = Sae::load(data("golden/analysis/sae").join(name)).unwrap();
        let unit = sae.with_unit_decoder().unwrap();
        let norms = unit.w_dec.square().sum_dim_intlist([1i64].as_slice(), false, None);
        assert!((norms - 1.0).abs().max().double_value(&[]) < 1e-12);
        let x = thalweg::rng::Rng::new(5).normal_tensor(&[20, 6]).to_kind(Kind::Double);
        let [a, b] = [&sae, &unit].map(|sae| sae.reconstruct(&x).unwrap());
        assert!(distance(&a, &b) < 1e-13, "{name}");
        assert!(distance(&sae.w_dec, &unit.w_dec) > 0.1, "the rows were not of norm 1");
    }
    says(top_k(Point::Z.at(0), 3).with_unit_decoder(), &["choice of the 3 largest"]);
}

#[test]
fn activations_of_another_width_and_impossible_saes_are_refused() {
    let sae = random(Point::ResidPost.at(0));
    let wide = Tensor::zeros([2, 13], (Kind::Double, Device::Cpu));
    says(sae.encode(&wide), &["reads [.., 12]", "[2, 13]"]);
    says(sae.decode(&wide), &["the latents are [2, 13], expected [.., 30]"]);
    says(sae.direction(30), &["there is no latent 30", "0..29"]);
    let layer_norm = Sae { normalization: Normalization::LayerNorm, ..sae.clone() };
    says(layer_norm.decode(&wide), &["decode_like"]);
    let [w, b] = [&sae.w_enc, &sae.b_enc];
    says(Sae::new(sae.site, w, b, w, &sae.b_dec), &["W_dec is [12, 30], expected [30, 12]"]);
    let bad = Sae { b_enc: b * f64::NAN, ..sae.clone() };
    says(bad.check(), &["b_enc holds a non-finite number"]);
    says(Sae { kind: SaeKind::Gated, ..sae }.check(), &["Gated"]);
}
