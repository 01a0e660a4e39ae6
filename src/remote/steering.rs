//! Vectors added to the stream on the server, through the JSON interface of vllm-lens (UK AISI,
//! version 1.3.0): an entry adds after a block, at every position or at some.

use serde_json::{Value, json};
use tch::Tensor;

use crate::base64::base64;
use crate::hook::residual::Steering;

/// What a request for one prompt says of what is added to it; nothing: it is left alone.
///
/// vLLM would keep steered pages under the plain prompt's name and give them to the next one who asks:
/// a salt of its own keeps a steered request's pages to itself.
pub(super) fn of_row(list: &[Steering], row: usize, salt: &str) -> Option<Value> {
    let entries: Vec<Value> = list.iter().filter_map(|one| entry(one, row)).collect();
    let json = Value::from(entries);
    let empty = json.as_array().is_none_or(Vec::is_empty);
    (!empty).then(|| {
        json!({
            "vllm_xargs": {"apply_steering_vectors": json.to_string()},
            "cache_salt": format!("thalweg {salt} {row}"),
        })
    })
}

fn entry(one: &Steering, row: usize) -> Option<Value> {
    let places = one.places.get(row)?.as_ref()?;
    let n = places.as_ref().map_or(1, Vec::len) as i64;
    let d = one.vector.size()[0];
    let rows = one.vector.unsqueeze(0).expand([n, d], false).contiguous();
    let shape = match places {
        Some(_) => vec![1, n, d], // [Layer, Pos, DModel]
        None => vec![1, d],
    };
    Some(json!({
        "activations": {"data": base64(&bytes(&rows)), "dtype": "float32", "shape": shape},
        "layer_indices": [one.layer],
        "scale": 1.0,
        "norm_match": false,
        "position_indices": places,
    }))
}

/// Little-endian, as NumPy has them here.
fn bytes(rows: &Tensor) -> Vec<u8> {
    let mut bytes = vec![0; rows.numel() * 4];
    rows.copy_data_u8(&mut bytes, rows.numel());
    bytes
}
