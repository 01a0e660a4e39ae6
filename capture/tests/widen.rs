//! Wider heads are the same model.

use std::collections::HashMap;
use std::path::Path;

use serde_json::json;
use thalweg::tch::{Device, Kind, Tensor};
use thalweg::{Config, Model, Plan, Point, Site, Tokens};
use thalweg_capture::widen::{widen, widen_dir};

use crate::support::{Folder, command, refused, world};

/// The largest difference between two models' streams and logits, in units of the stream's size.
fn difference(one: &Model, other: &Model, tokens: &Tokens) -> f64 {
    let plan = Plan::new().cache(Site::Embed).cache(Point::ResidPost);
    let (a, b) = (one.run(tokens, &plan).unwrap(), other.run(tokens, &plan).unwrap());
    let mut worst = relative(&a.logits, &b.logits);
    for site in a.cache.sites() {
        worst = worst.max(relative(&a.cache.get(site).unwrap(), &b.cache.get(site).unwrap()));
    }
    worst
}

fn relative(a: &Tensor, b: &Tensor) -> f64 {
    ((a - b).abs().max() / a.abs().max()).double_value(&[])
}

#[test]
fn wider_heads_leave_every_layer_and_the_logits_as_they_were() {
    let model = Model::load_on(world(), Device::Cpu, Kind::Double).unwrap();
    let tokens = model
        .batch(&["When Mary and John went to the store , John gave a drink to", "Mary"])
        .unwrap();
    for d_head in [32, 48, 128] {
        let wide = widen(&model, d_head).unwrap();
        assert_eq!(wide.config().d_head, d_head);
        let worst = difference(&model, &wide, &tokens);
        assert!(worst < 1e-13, "heads of {d_head}: {worst:e}");
    }
}

#[test]
fn biases_and_stretched_frequencies_are_widened_too() {
    let config = Config::from_json(&json!({
        "model_type": "llama", "hidden_act": "silu", "hidden_size": 20, "intermediate_size": 24,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6,
        "vocab_size": 30, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
        "attention_bias": true, "mlp_bias": true, "tie_word_embeddings": true,
        "rope_parameters": {
            "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
        },
    }))
    .unwrap();
    let model = random(config);
    let ids: Vec<i64> = (0..40).map(|i| (i * 7) % 30).collect();
    let tokens = Tokens::from_ids(&[ids]).unwrap();
    let worst = difference(&model, &widen(&model, 18).unwrap(), &tokens);
    assert!(worst < 1e-13, "{worst:e}");
}

/// Weights and biases that are waves of their place: as good as drawn, and always the same.
fn random(config: Config) -> Model {
    let (d, f, q, kv) = (20, 24, 24, 12);
    let mut shapes = vec![("embed_tokens".to_owned(), vec![30, d])];
    for layer in 0..2 {
        for (name, out, into) in [
            ("self_attn.q_proj", q, d),
            ("self_attn.k_proj", kv, d),
            ("self_attn.v_proj", kv, d),
            ("self_attn.o_proj", d, q),
            ("mlp.gate_proj", f, d),
            ("mlp.up_proj", f, d),
            ("mlp.down_proj", d, f),
        ] {
            shapes.push((format!("layers.{layer}.{name}"), vec![out, into]));
        }
    }
    let wave = |shape: &[i64], step: f64| {
        let n = shape.iter().product::<i64>();
        let t: Tensor = (Tensor::arange(n, (Kind::Double, Device::Cpu)) * step).sin() * 0.6;
        t.reshape(shape)
    };
    let mut tensors = HashMap::new();
    for (i, (name, shape)) in shapes.iter().enumerate() {
        let step = 1.3 + 0.37 * i as f64;
        tensors.insert(format!("model.{name}.weight"), wave(shape, step));
        if i > 0 {
            tensors.insert(format!("model.{name}.bias"), wave(&shape[..1], step + 0.1));
        }
    }
    for name in ["norm", "layers.0.input_layernorm", "layers.0.post_attention_layernorm"]
        .into_iter()
        .chain(["layers.1.input_layernorm", "layers.1.post_attention_layernorm"])
    {
        tensors.insert(format!("model.{name}.weight"), wave(&[d], 0.2) + 1.0);
    }
    Model::from_parts(config, tensors, None).unwrap()
}

#[test]
fn the_widened_directory_is_a_model_like_the_first() {
    let folder = Folder::new("widen");
    let out = folder.path("wide");
    widen_dir(&world(), &out, 32).unwrap();
    let wide = Model::load_on(&out, Device::Cpu, Kind::Float).unwrap();
    let model = Model::load_on(world(), Device::Cpu, Kind::Float).unwrap();
    let tokens = model.tokens("Mary and John went to the store").unwrap();
    assert_eq!(wide.tokens("Mary and John went to the store").unwrap().ids(), tokens.ids());
    assert!(difference(&model, &wide, &tokens) < 1e-5);
}

#[test]
fn what_cannot_be_widened_is_told() {
    let folder = Folder::new("widen-errors");
    let out = folder.path("wide");
    let failed = |model: &Path, out: &Path, size: &str| {
        refused(command(&["widen"]).args([model, out]).args(["--head-size", size]))
    };
    let text = failed(&world(), &out, "24");
    assert!(
        text.contains("head size 24: expected a multiple of the model's 16, such as 32"),
        "{text}"
    );
    let text = failed(&folder.path("none"), &out, "32");
    assert!(text.starts_with("error: ") && text.contains("none"), "{text}");
    let text = failed(&world(), &world(), "32");
    assert!(text.contains("directory of its own"), "{text}");
}
