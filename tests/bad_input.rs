//! Damaged and lying files, impossible configs, impossible prompts: one clear line, never a crash.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use thalweg::anyhow::Result;
use thalweg::tch::{Device, Kind, Tensor};
use thalweg::{Config, Model, Plan, Tokens};

use crate::support::saved::{saved, small};
use crate::support::{message, model, says, scratch};

/// A safetensors file's header and data.
fn parts(path: &Path) -> (Value, Vec<u8>) {
    let bytes = fs::read(path).unwrap();
    let n = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (serde_json::from_slice(&bytes[8..8 + n]).unwrap(), bytes[8 + n..].to_vec())
}

fn bytes(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

const NORM: &str = "model.norm.weight";

/// Loads after the header was changed by `edit`.
#[track_caller]
fn with_header(name: &str, edit: impl FnOnce(&mut Value), words: &[&str]) {
    let dir = saved(name);
    let path = dir.join("model.safetensors");
    let (mut header, data) = parts(&path);
    edit(&mut header);
    fs::write(&path, bytes(&header.to_string(), &data)).unwrap();
    let text = says(Model::load(&dir), words);
    assert!(text.contains("model.safetensors") && text.contains(dir.to_str().unwrap()), "{text}");
}

#[test]
fn headers_that_lie_are_refused_with_the_tensor_named() {
    let entry = |begin: u64, end: u64, shape: Value| json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, end]});
    let offsets = |header: &Value| header[NORM]["data_offsets"][0].as_u64().unwrap();
    with_header(
        "beyond",
        |h| h[NORM] = entry(1 << 40, (1 << 40) + 16, json!([4])),
        &[NORM, "claims bytes"],
    );
    with_header("backwards", |h| h[NORM] = entry(16, 0, json!([4])), &[NORM, "claims bytes 16..0"]);
    with_header("overlap", |h| h[NORM] = entry(0, 16, json!([4])), &["overlap or gap"]);
    with_header(
        "short",
        |h| {
            let at = offsets(h);
            h[NORM] = entry(at, at + 12, json!([3]));
        },
        &["the tensors cover"],
    );
    with_header(
        "product",
        |h| {
            let at = offsets(h);
            h[NORM] = entry(at, at + 16, json!([1u64 << 40, 1u64 << 40, 0]));
        },
        &[NORM, "claims bytes"],
    );
    with_header(
        "wraps",
        |h| {
            let at = offsets(h);
            h[NORM] = entry(at, at + 16, json!([u64::MAX / 2, 8, 1 << 20]));
        },
        &[NORM, "claims bytes"],
    );
    with_header(
        "more",
        |h| {
            let at = offsets(h);
            h[NORM] = entry(at, at + 16, json!([5]));
        },
        &[NORM, "for shape [5]"],
    );
    with_header("negative", |h| h[NORM]["shape"] = json!([-4]), &[NORM, "header entry"]);
    with_header("dtype", |h| h[NORM]["dtype"] = json!("F33"), &[NORM, "header entry"]);
    with_header("bool", |h| h[NORM]["dtype"] = json!("BOOL"), &[NORM, "have F64, F32, F16, BF16"]);
    with_header("list", |h| h[NORM] = json!([1, 2]), &[NORM, "header entry"]);
    with_header("notes", |h| h["__metadata__"] = json!({"a": 1}), &["__metadata__ is not text"]);
    with_header(
        "line",
        |h| h["a\nb"] = entry(0, 0, json!([0])),
        &["\"a\\nb\" is no name of a tensor"],
    );
    with_header("empty", |h| *h = json!({}), &["cover 0 bytes"]);
    with_header("array", |h| *h = json!([]), &["not a JSON object"]);
}

#[test]
fn truncated_files_and_lengths_that_lie_are_refused() {
    let dir = saved("lengths");
    let path = dir.join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    let n = u64::from_le_bytes(whole[..8].try_into().unwrap());
    let load = |bytes: &[u8], words: &[&str]| {
        fs::write(&path, bytes).unwrap();
        says(Model::load(&dir), &[&["model.safetensors is damaged"], words].concat())
    };
    load(b"", &["shorter than 8 bytes"]);
    load(&whole[..5], &["shorter than 8 bytes"]);
    load(&whole[..100], &["the header claims", "the file has 100"]);
    load(&whole[..whole.len() - 1], &["claims bytes"]);
    load(&[whole.as_slice(), b"x"].concat(), &["cover"]);
    for lie in [u64::MAX, u64::MAX - 7, 1 << 62, 99_999_999, whole.len() as u64, 0, n - 1, n + 1] {
        let lying = [&lie.to_le_bytes(), &whole[8..]].concat();
        load(&lying, &[]);
    }
    load(&bytes("{\"a\": nonsense}", &[]), &["not a JSON object"]);
    load(&bytes(&"[".repeat(100_000), &[]), &["not a JSON object"]);
    load(&bytes("\u{0}\u{1}", &[]), &["not a JSON object"]);
    fs::remove_file(&path).unwrap();
    says(Model::load(&dir), &["neither model.safetensors nor model.safetensors.index.json"]);
}

#[test]
fn tensors_of_a_wrong_shape_missing_or_too_many_are_named() {
    let dir = saved("tensors");
    let path = dir.join("model.safetensors");
    let all = small().named_weights();
    type List = Vec<(String, Tensor)>;
    let load = |edit: &dyn Fn(&mut List), words: &[&str]| {
        let mut list: Vec<_> = all.iter().map(|(n, w)| (n.clone(), w.shallow_clone())).collect();
        edit(&mut list);
        Tensor::write_safetensors(&list, &path).unwrap();
        says(Model::load(&dir), words)
    };
    let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
    let k = "model.layers.0.self_attn.k_proj.weight";
    load(&|list| list.retain(|(n, _)| n != k), &["the weights lack", k, "expected [2, 4]"]);
    load(
        &|list| {
            list.retain(|(n, _)| n != k);
            list.push((k.into(), zeros(&[4, 2])));
        },
        &["model.safetensors", k, "is [4, 2], expected [2, 4]"],
    );
    load(
        &|list| list.push(("lm_tail.weight".into(), zeros(&[1]))),
        &["lm_tail.weight", "nothing would use it"],
    );
    let bias = "model.layers.0.self_attn.q_proj.bias";
    load(&|list| list.push((bias.into(), zeros(&[4]))), &[bias, "nothing would use it"]);
    load(
        &|list| list.push(("model.layers.1.mlp.up_proj.weight".into(), zeros(&[4, 4]))),
        &["layers.1"],
    );
    let old = "model.layers.0.self_attn.rotary_emb.inv_freq";
    let mut list: Vec<_> = all.iter().map(|(n, w)| (n.clone(), w.shallow_clone())).collect();
    list.push((old.into(), zeros(&[1])));
    Tensor::write_safetensors(&list, &path).unwrap();
    assert!(Model::load(&dir).is_ok(), "frequencies that old files hold are computed here");
}

#[test]
fn an_index_must_name_shards_of_its_own_directory() {
    let dir = saved("index");
    let file = "model-00001-of-00001.safetensors";
    fs::rename(dir.join("model.safetensors"), dir.join(file)).unwrap();
    let names: Vec<String> = small().named_weights().into_keys().collect();
    let index = dir.join("model.safetensors.index.json");
    let map = |file: &str| -> serde_json::Map<String, Value> {
        names.iter().map(|name| (name.clone(), json!(file))).collect()
    };
    let load = |value: Value, words: &[&str]| {
        fs::write(&index, value.to_string()).unwrap();
        says(Model::load(&dir), words)
    };
    fs::write(&index, json!({ "weight_map": map(file) }).to_string()).unwrap();
    assert!(Model::load(&dir).is_ok());
    for outside in ["../x.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", "./x"] {
        load(
            json!({ "weight_map": map(outside) }),
            &["points outside the directory", "index.json"],
        );
    }
    load(json!({ "weight_map": map("gone.safetensors") }), &["shard gone.safetensors is missing"]);
    load(json!({ "weight_map": map("config.json") }), &["config.json is damaged"]);
    let mut more = map(file);
    more.insert("model.extra".into(), json!(file));
    load(json!({ "weight_map": more }), &["model.extra should be in", file, "is not"]);
    load(json!({"weight_map": {"a\nb": file}}), &["\"a\\nb\"", "expected plain names"]);
    load(json!({"weight_map": {"a": "b\nc"}}), &["\"b\\nc\"", "expected plain names"]);
    load(json!({}), &["weight_map is missing"]);
    load(json!({"weight_map": [1]}), &["weight_map is missing"]);
    load(json!({"weight_map": {"a": 1}}), &["weight_map.a = 1: expected a file name"]);
    fs::write(&index, "{").unwrap();
    says(Model::load(&dir), &["index.json: not JSON"]);
    fs::copy(dir.join(file), dir.join("twin.safetensors")).unwrap();
    let mut twice = map(file);
    twice.insert(NORM.into(), json!("twin.safetensors"));
    load(json!({ "weight_map": twice }), &["is also in"]);
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

#[test]
fn config_values_that_cannot_be_are_named_with_what_was_expected() {
    for (more, words) in [
        (json!({"hidden_size": null}), vec!["hidden_size is missing"]),
        (json!({"hidden_size": 0}), vec!["hidden_size = 0", "1 to 2147483647"]),
        (json!({"hidden_size": -16}), vec!["hidden_size = -16"]),
        (json!({"hidden_size": 16.5}), vec!["hidden_size = 16.5", "whole number"]),
        (json!({"hidden_size": "16"}), vec!["hidden_size = \"16\""]),
        (json!({"vocab_size": 1u64 << 40}), vec!["vocab_size = 1099511627776"]),
        (json!({"hidden_size": 18}), vec!["18 is not a multiple", "head_dim is not given"]),
        (json!({"num_key_value_heads": 3}), vec!["num_key_value_heads = 3"]),
        (json!({"head_dim": 5}), vec!["head_dim = 5", "even"]),
        (json!({"rms_norm_eps": "1e-5"}), vec!["rms_norm_eps = \"1e-5\"", "number"]),
        (json!({"rms_norm_eps": -1.0}), vec!["rms_norm_eps = -1"]),
        (json!({"attention_bias": 1}), vec!["attention_bias = 1", "true or false"]),
        (json!({"hidden_act": "gelu"}), vec!["hidden_act = \"gelu\" is not implemented", "silu"]),
        (json!({"model_type": "mistral"}), vec!["model_type = \"mistral\"", "llama"]),
        (
            json!({"architectures": ["GPT2LMHeadModel"]}),
            vec!["GPT2LMHeadModel", "LlamaForCausalLM"],
        ),
        (json!({"dtype": "int8"}), vec!["dtype = \"int8\"", "bfloat16"]),
        (json!({"eos_token_id": "x"}), vec!["eos_token_id = \"x\"", "token id"]),
        (json!({"rope_theta": 0}), vec!["rope_theta = 0", "> 0"]),
    ] {
        says(read(more), &words);
    }
    says(Config::from_json(&json!([])), &["expected a JSON object"]);
}

#[test]
fn rope_types_and_keys_that_are_not_implemented_are_named() {
    let scaling = |value: Value| read(json!({"rope_theta": 10000.0, "rope_scaling": value}));
    for name in ["yarn", "longrope", "su", "ntk"] {
        let words =
            [&format!("rope_scaling.rope_type = {name:?}"), "default, linear, dynamic, llama3"];
        says(scaling(json!({"rope_type": name, "factor": 2.0})), &words);
        says(scaling(json!({"type": name, "factor": 2.0})), &words);
    }
    says(scaling(json!({"rope_type": 5})), &["rope_scaling.rope_type = 5", "expected a name"]);
    says(scaling(json!({"rope_type": "linear", "type": "dynamic"})), &["disagree"]);
    says(scaling(json!({"type": "linear"})), &["rope_scaling.factor is missing"]);
    says(scaling(json!({"type": "linear", "factor": -2})), &["factor = -2", "> 0"]);
    says(scaling(json!({"type": "linear", "factor": "2"})), &["factor = \"2\""]);
    says(scaling(json!({"type": "linear", "factor": 2, "beta_fast": 32})), &["beta_fast = 32"]);
    says(scaling(json!("linear")), &["rope_scaling = \"linear\"", "expected an object"]);
    let llama3 = json!({"rope_type": "llama3", "factor": 8, "low_freq_factor": 4,
        "high_freq_factor": 1, "original_max_position_embeddings": 64});
    says(scaling(llama3), &["low_freq_factor = 4 must be below"]);
    let other = json!({"type": "dynamic", "factor": 2, "original_max_position_embeddings": 64});
    says(scaling(other), &["original_max_position_embeddings = 64 differs"]);
    let parameters = json!({"rope_type": "default", "rope_theta": 5.0});
    says(read(json!({"rope_theta": 6.0, "rope_parameters": parameters})), &["6", "5", "disagree"]);
    let both = json!({"rope_scaling": {"type": "linear", "factor": 2},
        "rope_parameters": {"rope_type": "default"}});
    says(read(both), &["rope_scaling", "rope_parameters", "disagree"]);
}

#[test]
fn keys_that_would_change_the_arithmetic_are_never_ignored() {
    for (key, value) in [
        ("quantization_config", json!({"bits": 4})),
        ("sliding_window", json!(4096)),
        ("attn_logit_softcapping", json!(50.0)),
        ("final_logit_softcapping", json!(30.0)),
        ("partial_rotary_factor", json!(0.5)),
        ("embedding_multiplier", json!(12.0)),
        ("residual_multiplier", json!(0.2)),
        ("logits_scaling", json!(8.0)),
        ("num_local_experts", json!(8)),
        ("layer_types", json!(["sliding_attention", "full_attention"])),
        ("no_rope_layers", json!([1, 1, 1, 0])),
        ("use_qk_norm", json!(true)),
    ] {
        let words = [&format!("{key} = {value} is not implemented"), "would change the result"];
        says(read(json!({ key: value })), &words);
        assert!(read(json!({ key: null })).is_ok(), "{key} = null changes nothing");
    }
    assert!(read(json!({"layer_types": ["full_attention"], "logits_scaling": 1.0})).is_ok());
}

#[test]
fn a_directory_that_is_none_says_so() {
    says(Model::load("no/such/place"), &["no/such/place is not a directory", "Hugging Face"]);
    let dir = scratch("nothing");
    says(Model::load(&dir), &["cannot read", "config.json", "No such file"]);
    fs::write(dir.join("config.json"), "{\"hidden_size\": }").unwrap();
    says(Model::load(&dir), &["config.json: not JSON"]);
    fs::write(dir.join("config.json"), "[]").unwrap();
    says(Model::load(&dir), &["config.json: expected a JSON object"]);
    let dir = saved("bad-tokenizer");
    fs::write(dir.join("tokenizer.json"), "{}").unwrap();
    says(Model::load(&dir), &["tokenizer.json"]);
    let huge = Config { n_layers: 2_000_000_000, ..small().config().clone() };
    fs::remove_file(dir.join("tokenizer.json")).unwrap();
    fs::write(dir.join("config.json"), huge.to_json().to_string()).unwrap();
    says(Model::load(&dir), &["2000000000 layers", "tensors in all"]);
    let wide = Config { d_model: 2_000_000_000, ..small().config().clone() };
    fs::write(dir.join("config.json"), wide.to_json().to_string()).unwrap();
    says(Model::load(&dir), &["expected [5, 2000000000]"]);
}

#[test]
fn prompts_that_cannot_be_run_name_row_and_place() {
    says(Tokens::from_ids(&[]), &["no prompts", "at least one row"]);
    says(Tokens::from_ids(&[vec![1], vec![]]), &["prompt 1 is empty", "at least one token"]);
    says(Tokens::from_ids(&[vec![1, -2]]), &["prompt 0 holds token id -2"]);
    let run = |rows: &[Vec<i64>]| model().run(&Tokens::from_ids(rows).unwrap(), &Plan::new());
    says(
        run(&[vec![1, 2], vec![22, 23]]),
        &["token id 23 at position 1 of row 1", "vocabulary of 23"],
    );
    says(run(&[vec![i64::MAX]]), &["token id 9223372036854775807"]);
    says(run(&[vec![1], vec![1; 33]]), &["row 1 has 33 tokens", "context is 32"]);
    assert!(run(&[vec![1; 32]]).is_ok());
    assert!(run(&[vec![0]]).is_ok());
    says(model().embed(&Tokens::from_ids(&[vec![99]]).unwrap()), &["token id 99"]);
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/golden/gqa-llama3");
    let with_text = Model::load(golden).unwrap();
    for empty in ["", " ", "\n\t"] {
        says(with_text.tokens(empty), &["prompt 0", "is empty", "expected some text"]);
    }
    says(with_text.batch(&["the cat", ""]), &["prompt 1"]);
    says(with_text.batch::<&str>(&[]), &["no prompts"]);
    assert!(message(with_text.tokens("")).contains("\"\""));
}
