//! Hugging Face directories of every form that is promised, and models made from parts.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use thalweg::anyhow::Result;
use thalweg::tch::{Device, Kind, Tensor};
use thalweg::{Config, Model, Rope, RopeScaling, Tokens, W};

use crate::support::{config, distance, model, model_of, same, says, scratch, shapes, tensors};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/golden").join(name)
}

fn tokens() -> Tokens {
    Tokens::from_ids(&[vec![3, 1, 4, 1, 5], vec![9, 2, 6]]).unwrap()
}

/// The smallest config.json, with more keys.
fn read(more: Value) -> Result<Config> {
    let mut base = json!({
        "hidden_size": 16, "num_attention_heads": 4, "num_hidden_layers": 2,
        "intermediate_size": 20, "vocab_size": 23,
    });
    for (key, value) in more.as_object().unwrap() {
        base[key] = value.clone();
    }
    Config::from_json(&base)
}

fn rope(more: Value) -> Rope {
    read(more).unwrap().rope
}

#[test]
fn what_a_config_leaves_out_is_what_transformers_assumes() {
    let c = read(json!({})).unwrap();
    assert_eq!((c.n_kv_heads, c.d_head, c.n_ctx, c.eps), (4, 4, 2048, 1e-6));
    assert_eq!(c.rope, Rope { theta: 10_000.0, scaling: RopeScaling::Default });
    assert!(!c.attention_bias && !c.mlp_bias && !c.tied && c.kind.is_none());
    let c = read(json!({"head_dim": 10, "num_key_value_heads": 1, "bos_token_id": 1})).unwrap();
    assert_eq!((c.d_head, c.n_kv_heads, c.bos, c.eos.len()), (10, 1, Some(1), 0));
    let c = read(
        json!({"eos_token_id": [2, 5], "torch_dtype": "bfloat16", "tie_word_embeddings": true}),
    );
    let c = c.unwrap();
    assert_eq!((c.eos, c.kind, c.tied), (vec![2, 5], Some(Kind::BFloat16), true));
    assert!(read(json!({"head_dim": null, "rope_scaling": null, "pretraining_tp": 1})).is_ok());
}

#[test]
fn rope_reads_the_old_form_and_the_new() {
    let linear = RopeScaling::Linear { factor: 4.0 };
    let llama3 = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original: 64.0,
    };
    let theta = 5e5;
    let old = |scaling: Value| rope(json!({"rope_theta": theta, "rope_scaling": scaling}));
    let new = |parameters: Value| rope(json!({"rope_parameters": parameters}));
    assert_eq!(old(json!({"type": "linear", "factor": 4.0})), Rope { theta, scaling: linear });
    assert_eq!(old(json!({"rope_type": "linear", "factor": 4})), Rope { theta, scaling: linear });
    let dynamic = Rope { theta, scaling: RopeScaling::Dynamic { factor: 2.0 } };
    assert_eq!(old(json!({"type": "dynamic", "factor": 2.0})), dynamic);
    let numbers = json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    });
    assert_eq!(old(numbers.clone()), Rope { theta, scaling: llama3 });
    let mut inside = numbers;
    inside["rope_theta"] = json!(theta);
    assert_eq!(new(inside), Rope { theta, scaling: llama3 });
    let plain = json!({"rope_theta": theta, "rope_type": "default"});
    assert_eq!(new(plain), Rope { theta, scaling: RopeScaling::Default });
    assert_eq!(rope(json!({"rope_theta": theta})).theta, theta);
}

#[test]
fn a_config_written_reads_back_the_same() {
    for scaling in [
        RopeScaling::Default,
        RopeScaling::Linear { factor: 2.0 },
        RopeScaling::Dynamic { factor: 3.5 },
        RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original: 16.0,
        },
    ] {
        let c = Config {
            rope: Rope { theta: 777.0, scaling },
            attention_bias: true,
            tied: true,
            kind: Some(Kind::Half),
            bos: Some(0),
            eos: vec![1, 2],
            ..config()
        };
        assert_eq!(Config::from_json(&c.to_json()).unwrap(), c);
    }
}

#[test]
fn harmless_unknown_keys_load_and_are_named() {
    let c = read(json!({"my_note": 3, "use_cache": true, "sliding_window": null})).unwrap();
    assert_eq!(c.unknown_keys, ["my_note"]);
    assert!(c.to_string().ends_with("config keys not known here: my_note"), "{c}");
    assert!(!read(json!({"a\nb": 1})).unwrap().to_string().contains('\n'));
}

#[test]
fn save_and_load_give_back_every_bit() {
    let variants = [
        config(),
        Config { attention_bias: true, mlp_bias: true, n_kv_heads: 1, ..config() },
        Config { tied: true, n_kv_heads: 4, d_head: 4, ..config() },
    ];
    for (i, c) in variants.into_iter().enumerate() {
        for kind in [Kind::Double, Kind::Float, Kind::Half, Kind::BFloat16] {
            let model = model_of(c.clone(), kind, 7);
            let dir = scratch(&format!("save-{i}-{kind:?}"));
            model.save(&dir).unwrap();
            let back = Model::load(&dir).unwrap();
            assert_eq!((back.kind(), back.config().kind), (kind, Some(kind)));
            let (old, new) = (model.named_weights(), back.named_weights());
            assert_eq!(old.len(), new.len());
            assert!(old.iter().all(|(name, w)| same(w, &new[name])));
            assert!(same(&model.logits(&tokens()).unwrap(), &back.logits(&tokens()).unwrap()));
            std::fs::remove_dir_all(dir).unwrap();
        }
    }
}

#[test]
fn weights_are_converted_on_request_and_only_then() {
    let dir = scratch("convert");
    model_of(config(), Kind::BFloat16, 7).save(&dir).unwrap();
    let stored = Model::load(&dir).unwrap();
    assert_eq!(stored.kind(), Kind::BFloat16);
    let wide = Model::load_on(&dir, Device::Cpu, Kind::Double).unwrap();
    assert_eq!(wide.kind(), Kind::Double);
    for (name, w) in stored.named_weights() {
        assert!(same(&w.to_kind(Kind::Double), &wide.named_weights()[&name]), "{name}");
    }
    let logits = [&stored, &wide].map(|m| m.logits(&tokens()).unwrap());
    assert_eq!(logits.each_ref().map(Tensor::kind), [Kind::Float, Kind::Double]);
    assert!(distance(&logits[0], &logits[1]) < 0.05);
    says(Model::load_on(&dir, Device::Cpu, Kind::Int64), &["Int64", "Double, Float, Half"]);
}

#[test]
fn a_file_of_mixed_kinds_loses_nothing() {
    let dir = scratch("mixed");
    model_of(config(), Kind::Float, 7).save(&dir).unwrap();
    let mut all = tensors(&config(), Kind::Float, 7);
    let embed = all["model.embed_tokens.weight"].to_kind(Kind::BFloat16);
    all.insert("model.embed_tokens.weight".into(), embed);
    write(&dir.join("model.safetensors"), &all);
    let model = Model::load(&dir).unwrap();
    assert_eq!(model.kind(), Kind::Float);
    let name = "model.norm.weight";
    assert!(same(&model.named_weights()[name], &all[name]));
}

fn write(path: &Path, tensors: &HashMap<String, Tensor>) {
    let mut list: Vec<_> = tensors.iter().collect();
    list.sort_by_key(|(name, _)| name.as_str());
    Tensor::write_safetensors(&list, path).unwrap();
}

/// A directory of two shards and their index.
fn sharded(name: &str, c: &Config) -> PathBuf {
    let dir = scratch(name);
    let all = tensors(c, Kind::Float, 7);
    std::fs::write(dir.join("config.json"), c.to_json().to_string()).unwrap();
    let mut map = serde_json::Map::new();
    let files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    for (i, file) in files.into_iter().enumerate() {
        let in_file = |n: usize| n % 2 == i;
        let part = shapes(c).into_iter().enumerate().filter(|(n, _)| in_file(*n));
        let part: HashMap<String, Tensor> =
            part.map(|(_, (name, _))| (name.clone(), all[&name].shallow_clone())).collect();
        map.extend(part.keys().map(|name| (name.clone(), json!(file))));
        write(&dir.join(file), &part);
    }
    let index = json!({"metadata": {"total_size": 0}, "weight_map": map});
    std::fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
    dir
}

#[test]
fn shards_load_as_one_file_does() {
    let c = Config { attention_bias: true, ..config() };
    let dir = sharded("shards", &c);
    let whole = model_of(c, Kind::Float, 7);
    let parts = Model::load(&dir).unwrap();
    assert!(same(&whole.logits(&tokens()).unwrap(), &parts.logits(&tokens()).unwrap()));
}

#[test]
fn a_tied_model_takes_a_file_with_the_unembedding_and_without() {
    let c = Config { tied: true, ..config() };
    let dir = scratch("tied");
    model_of(c.clone(), Kind::Float, 7).save(&dir).unwrap();
    let without = Model::load(&dir).unwrap();
    let mut all = tensors(&c, Kind::Float, 7);
    let embed = all["model.embed_tokens.weight"].copy();
    all.insert("lm_head.weight".into(), embed);
    write(&dir.join("model.safetensors"), &all);
    let with = Model::load(&dir).unwrap();
    assert!(same(&without.logits(&tokens()).unwrap(), &with.logits(&tokens()).unwrap()));
    let u = with.weight(W::U, 0).unwrap();
    assert!(same(&u.tr().contiguous(), &with.weight(W::E, 0).unwrap()));
    all.insert("lm_head.weight".into(), &all["lm_head.weight"] + 1.0);
    write(&dir.join("model.safetensors"), &all);
    says(Model::load(&dir), &["ties the embeddings", "lm_head.weight differs"]);
}

#[test]
fn a_directory_without_a_tokenizer_runs_on_ids_and_says_what_is_missing() {
    let model = Model::load(golden("mha-llama3-old")).unwrap();
    assert!(model.logits(&tokens()).is_ok());
    for error in [
        says(model.tokens("a"), &["no tokenizer.json", "Tokens::from_ids"]),
        says(model.token("a"), &["no tokenizer.json"]),
        says(model.batch(&["a", "b"]), &["mha-llama3-old"]),
    ] {
        assert!(!error.is_empty());
    }
    assert_eq!(model.piece(7), "7");
    assert!(Model::load(golden("gqa-llama3")).unwrap().tokenizer().is_some());
}

#[test]
fn a_tokenizer_survives_saving() {
    let model = Model::load(golden("gqa-llama3")).unwrap();
    let dir = scratch("tokenizer");
    model.save(&dir).unwrap();
    let back = Model::load(&dir).unwrap();
    let vocabulary = |m: &Model| m.tokenizer().unwrap().get_vocab(true);
    assert_eq!(vocabulary(&model), vocabulary(&back));
}

#[test]
fn from_parts_copies_its_tensors_and_checks_the_config() {
    let mut parts = tensors(&config(), Kind::Double, 1);
    let model = Model::from_parts(config(), tensors(&config(), Kind::Double, 1), None).unwrap();
    let before = model.logits(&tokens()).unwrap();
    for tensor in parts.values_mut() {
        let _ = tensor.zero_();
    }
    assert!(same(&before, &model.logits(&tokens()).unwrap()));
    let with = |c: Config| Model::from_parts(c, tensors(&config(), Kind::Double, 1), None);
    says(with(Config { n_kv_heads: 3, ..config() }), &["4 is not a multiple", "= 3"]);
    says(with(Config { n_kv_heads: 0, ..config() }), &["num_key_value_heads = 0"]);
    says(with(Config { n_layers: 0, ..config() }), &["num_hidden_layers = 0"]);
    says(with(Config { d_head: 5, ..config() }), &["head_dim = 5", "even"]);
    says(with(Config { eps: f64::NAN, ..config() }), &["rms_norm_eps"]);
    let rope = Rope { theta: -1.0, scaling: RopeScaling::Default };
    says(with(Config { rope, ..config() }), &["rope_theta = -1"]);
    says(
        with(Config { d_mlp: 21, ..config() }),
        &["gate_proj.weight is [20, 12], expected [21, 12]"],
    );
    says(with(Config { n_layers: 3, ..config() }), &["no tensor model.layers.2."]);
    says(with(Config { n_layers: 1 << 30, ..config() }), &["1073741824 layers"]);
    says(with(Config { tied: true, ..config() }), &["lm_head.weight", "nothing would use it"]);
    let mut integers = tensors(&config(), Kind::Double, 1);
    let name = "model.embed_tokens.weight";
    integers.insert(name.into(), integers[name].to_kind(Kind::Int64));
    says(Model::from_parts(config(), integers, None), &[name, "Int64", "expected Double"]);
    says(Model::from_parts(config(), HashMap::new(), None), &["no tensor", name]);
}

#[test]
fn with_weights_gives_a_new_model_and_leaves_the_old() {
    let old = model();
    let before = old.logits(&tokens()).unwrap();
    let o = "model.layers.1.self_attn.o_proj.weight";
    let new = old
        .with_weights(|name, w| Ok(if name == o { w.zeros_like() } else { w.shallow_clone() }))
        .unwrap();
    assert_eq!(new.weight(W::O, 1).unwrap().abs().max().double_value(&[]), 0.0);
    assert!(same(&new.weight(W::O, 0).unwrap(), &old.weight(W::O, 0).unwrap()));
    assert!(same(&old.logits(&tokens()).unwrap(), &before));
    assert!(distance(&new.logits(&tokens()).unwrap(), &before) > 1e-3);
    let same_again = old.with_weights(|_, w| Ok(w.shallow_clone())).unwrap();
    assert!(same(&same_again.logits(&tokens()).unwrap(), &before));
    says(old.with_weights(|_, w| Ok(w.flatten(0, -1))), &["is [", "expected ["]);
    says(old.with_weights(|_, _| thalweg::anyhow::bail!("not this one")), &["not this one"]);
}

#[test]
fn shuffled_follows_its_seed_and_keeps_every_number() {
    let model = model();
    let logits = |seed: u64| model.shuffled(seed).unwrap().logits(&tokens()).unwrap();
    assert!(same(&logits(1), &logits(1)));
    assert!(distance(&logits(1), &logits(2)) > 1e-2);
    let sorted = |m: &Model| m.weight(W::Gate, 1).unwrap().flatten(0, -1).sort(0, false).0;
    assert!(same(&sorted(&model), &sorted(&model.shuffled(1).unwrap())));
}

#[test]
fn weights_have_the_shapes_and_values_of_their_names() {
    let c = Config { attention_bias: true, mlp_bias: true, ..config() };
    let (m, all) = (model_of(c.clone(), Kind::Double, 3), tensors(&c, Kind::Double, 3));
    let part = |name: &str| all[&format!("model.layers.1.{name}")].shallow_clone();
    let check = |which: W, wanted: Tensor| {
        assert!(same(&m.weight(which, 1).unwrap().contiguous(), &wanted.contiguous()), "{which:?}");
    };
    let heads = |name: &str, n: i64| part(name).view([n, 6, 12]).transpose(1, 2);
    check(W::Q, heads("self_attn.q_proj.weight", 4));
    check(W::K, heads("self_attn.k_proj.weight", 2));
    check(W::V, heads("self_attn.v_proj.weight", 2));
    check(W::O, part("self_attn.o_proj.weight").view([12, 4, 6]).permute([1, 2, 0]));
    check(W::BQ, part("self_attn.q_proj.bias").view([4, 6]));
    check(W::BK, part("self_attn.k_proj.bias").view([2, 6]));
    check(W::BV, part("self_attn.v_proj.bias").view([2, 6]));
    check(W::BO, part("self_attn.o_proj.bias"));
    check(W::Gate, part("mlp.gate_proj.weight").tr());
    check(W::In, part("mlp.up_proj.weight").tr());
    check(W::Out, part("mlp.down_proj.weight").tr());
    check(W::BGate, part("mlp.gate_proj.bias"));
    check(W::BIn, part("mlp.up_proj.bias"));
    check(W::BOut, part("mlp.down_proj.bias"));
    check(W::Ln1, part("input_layernorm.weight"));
    check(W::Ln2, part("post_attention_layernorm.weight"));
    let folded = m.weight_folded(W::Q, 1).unwrap();
    let wanted = m.weight(W::Q, 1).unwrap() * m.weight(W::Ln1, 1).unwrap().unsqueeze(1);
    assert!(same(&folded, &wanted));
    assert!(same(&m.weight(W::LnFinal, 0).unwrap(), &all["model.norm.weight"]));
    says(m.weight(W::Q, 2), &["Q: no layer 2", "layers 0..1"]);
    says(m.weight(W::U, 1), &["U belongs to no layer"]);
}
