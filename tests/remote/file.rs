//! What thalweg's connector leaves for one prompt, made by a local model, and what a request says is to
//! be added to its stream.

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use thalweg::anyhow::Result;
use thalweg::tch::{Kind, Tensor};
use thalweg::{Intervention, Model, Plan, Point, Site, Tokens};

/// The file of a model that is left alone.
pub(super) fn bytes_of(
    model: &Model,
    run: &[i64],
    named: &[i64],
    states: &[usize],
) -> Result<Vec<u8>> {
    bytes((model, &Plan::new()), run, named, states, None, &[])
}

/// A plan of what a request asks to be added.
pub(super) fn added(text: &str) -> Result<Plan> {
    let list: Vec<Value> = serde_json::from_str(text)?;
    let mut plan = Plan::new();
    for entry in list {
        let activations = &entry["activations"];
        assert_eq!((&activations["dtype"], &entry["scale"]), (&json!("float32"), &json!(1.0)));
        let bytes = decoded(activations["data"].as_str().unwrap());
        let shape: Vec<i64> = serde_json::from_value(activations["shape"].clone())?;
        let rows = Tensor::from_data_size(&bytes, &shape, Kind::Float).flatten(0, -2);
        let layers: Vec<usize> = serde_json::from_value(entry["layer_indices"].clone())?;
        let add = Intervention::add(&rows.get(0), 1.0).absolute();
        let add = match entry["position_indices"].as_array() {
            Some(places) => {
                add.pos(places.iter().map(|at| at.as_i64().unwrap()).collect::<Vec<_>>())
            }
            None => add,
        };
        plan = plan.intervene(Point::ResidPost.at(layers[0]), add);
    }
    Ok(plan)
}

/// Base64 read back.
fn decoded(text: &str) -> Vec<u8> {
    let digit = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut bytes = Vec::new();
    for four in text.as_bytes().chunks(4) {
        let kept = four.iter().filter(|c| **c != b'=').count();
        let word = four.iter().fold(0u32, |word, c| word << 6 | u32::from(digit(*c)) & 63);
        bytes.extend(&word.to_be_bytes()[1..kept]);
    }
    bytes
}

/// The file: the states of `run`, said to be those of `named`.
pub(super) fn bytes(
    (model, plan): (&Model, &Plan),
    run: &[i64],
    named: &[i64],
    states: &[usize],
    kind: Option<Kind>,
    notes: &[(&str, String)],
) -> Result<Vec<u8>> {
    let tokens = Tokens::from_ids(&[run.to_vec()])?;
    let plan = plan.clone().cache(Point::ResidPost).cache(Site::Embed);
    let cache = model.run(&tokens, &plan)?.cache;
    let state = |k: &usize| match k {
        0 => cache.get(Site::Embed),
        k => cache.get(Point::ResidPost.at(k - 1)),
    };
    let all = states.iter().map(state).collect::<Result<Vec<_>>>()?;
    let all = Tensor::cat(&all, 0).transpose(0, 1).contiguous(); // [Pos, state, DModel]
    let all = all.to_kind(kind.unwrap_or(model.kind()));
    let dtype = match all.kind() {
        Kind::Double => Dtype::F64,
        Kind::BFloat16 => Dtype::BF16,
        _ => Dtype::F32,
    };
    let mut data = vec![0; all.numel() * all.kind().elt_size_in_bytes()];
    all.copy_data_u8(&mut data, all.numel());
    let ids: Vec<u8> = named.iter().flat_map(|id| id.to_le_bytes()).collect();
    let size: Vec<usize> = all.size().iter().map(|n| *n as usize).collect();
    let views = [
        ("hidden_states", TensorView::new(dtype, size, &data)?),
        ("token_ids", TensorView::new(Dtype::I64, vec![named.len()], &ids)?),
    ];
    let layers = states.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    let mut said = std::collections::HashMap::from([
        ("format".to_owned(), "thalweg residuals 1".to_owned()),
        ("layers".to_owned(), layers),
        ("n_layers".to_owned(), model.config().n_layers.to_string()),
        ("model".to_owned(), "tiny".to_owned()),
    ]);
    said.extend(notes.iter().map(|(key, text)| ((*key).to_owned(), text.clone())));
    Ok(safetensors::serialize(views, Some(said))?)
}
