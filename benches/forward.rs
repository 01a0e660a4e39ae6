//! The forward pass alone, with the residual stream cached in every layer, and with everything
//! cached; attribution patching: d_model 512, 8 layers, 8 heads, 4 key/value heads, d_mlp 1376,
//! 8000 words, 64 tokens, f32. benches/peers compares the same shape with other libraries.

use std::collections::HashMap;

use anyhow::Result;
use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::json;
use tch::{Device, Kind, Tensor};
use thalweg::{
    Attention, AttributionPatching, Axis, Config, Direction, Metric, Model, Plan, Point, Sites,
    Tokens,
};

fn forward(bench: &mut Criterion) {
    let (model, tokens) = model_and_tokens().expect("the model is made here and must load");
    let stream = [Point::ResidPre, Point::ResidMid, Point::ResidPost];
    let cases = [
        ("forward", Plan::new()),
        ("forward, attention step by step", Plan::new().attention(Attention::Eager)),
        ("residuals cached", Plan::new().cache(stream)),
        ("everything cached", Plan::new().cache(Sites::everything())),
    ];
    for (name, plan) in cases {
        bench.bench_function(name, |b| b.iter(|| model.run(&tokens, &plan).expect("it runs")));
    }
    let other: Vec<i64> = tokens.ids()[0].iter().map(|id| (id + 1) % 8000).collect();
    let other = Tokens::from_ids(&[other]).expect("it has tokens");
    let estimate = AttributionPatching::new(&Metric::logit_diff(3, 5), Direction::Denoise)
        .points([Point::ResidPre, Point::Z, Point::MlpOut]);
    bench.bench_function("attribution patching, at most 3.5 forwards", |b| {
        b.iter(|| {
            let estimates = estimate.run(&model, &tokens, &other).expect("it runs");
            [(Point::ResidPre, Axis::Pos), (Point::Z, Axis::Head), (Point::MlpOut, Axis::Pos)]
                .map(|(point, axis)| estimates.grid(point, &[axis]).expect("it was cached"))
        })
    });
}

fn model_and_tokens() -> Result<(Model, Tokens)> {
    let config = Config::from_json(&json!({
        "hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8,
        "num_key_value_heads": 4, "intermediate_size": 1376, "vocab_size": 8000,
        "max_position_embeddings": 128,
    }))?;
    let mut tensors = HashMap::new();
    let mut add = |name: String, shape: &[i64]| {
        // Any finite values do: the time does not depend on them.
        let n = shape.iter().product::<i64>();
        let values = (Tensor::arange(n, (Kind::Float, Device::Cpu)) * 0.7).sin() * 0.05;
        tensors.insert(name, values.reshape(shape));
    };
    add("model.embed_tokens.weight".into(), &[8000, 512]);
    for layer in 0..8 {
        for (part, shape) in [
            ("input_layernorm", &[512][..]),
            ("self_attn.q_proj", &[512, 512]),
            ("self_attn.k_proj", &[256, 512]),
            ("self_attn.v_proj", &[256, 512]),
            ("self_attn.o_proj", &[512, 512]),
            ("post_attention_layernorm", &[512]),
            ("mlp.gate_proj", &[1376, 512]),
            ("mlp.up_proj", &[1376, 512]),
            ("mlp.down_proj", &[512, 1376]),
        ] {
            add(format!("model.layers.{layer}.{part}.weight"), shape);
        }
    }
    add("model.norm.weight".into(), &[512]);
    add("lm_head.weight".into(), &[8000, 512]);
    let model = Model::from_parts(config, tensors, None)?;
    Ok((model, Tokens::from_ids(&[(0..64).map(|i| i * 101 % 8000).collect()])?))
}

criterion_group!(benches, forward);
criterion_main!(benches);
