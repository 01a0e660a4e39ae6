//! The tokenizer and the card of the shipped directory.

use super::{EPS, FAST_PAIRS, SHIPPED, THETA, VOCAB};
use serde_json::json;
use thalweg::anyhow::{Result, anyhow};
use tokenizers::Tokenizer;

/// The words by their ids: what begins a prompt, then twelve letters.
pub const WORDS: [&str; VOCAB] =
    ["<s>", "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];

/// Words are split at white space; `<s>` is put in front.
pub fn tokenizer() -> Result<Tokenizer> {
    let vocab: serde_json::Map<_, _> =
        WORDS.iter().enumerate().map(|(id, word)| (word.to_string(), json!(id))).collect();
    let bos = WORDS[0];
    let part = |name: &str, kind: u8| json!({"Sequence": {"id": name, "type_id": kind}});
    let start = json!({"SpecialToken": {"id": bos, "type_id": 0}});
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "decoder": null,
        "added_tokens": [{"id": 0, "content": bos, "single_word": false, "lstrip": false,
                          "rstrip": false, "normalized": false, "special": true}],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [start, part("A", 0)],
            "pair": [start, part("A", 0), part("B", 1)],
            "special_tokens": {bos: {"id": bos, "ids": [0], "tokens": [bos]}},
        },
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": bos},
    });
    json.to_string().parse().map_err(|error| anyhow!("the tokenizer does not load: {error}"))
}

/// `tokenizer_config.json`, which transformers reads.
pub fn tokenizer_config() -> String {
    let json = json!({
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": WORDS[0], "unk_token": WORDS[0],
        "model_max_length": 4096,
    });
    format!("{json:#}\n")
}

/// `README.md`: how each matrix works.
pub fn card() -> String {
    let (v, d, (previous, induction)) = (VOCAB, 3 * VOCAB + 1, SHIPPED);
    format!(
        "# induction-by-hand

A Llama of two layers with one head each, whose weights nobody trained: each number was put where it is, so that it is known
what every method must find. It goes on with a text that repeats itself (`a b c a b` -> `c`) by a previous-token head that feeds an
induction head (Elhage et al. 2021, Olsson et al. 2022). Made by `cargo run --example make_induction_by_hand -- --out DIR`, f64; the same
code builds the model in the tests, which hold this directory to it bit for bit. Licence: MIT OR Apache-2.0.

Words: `<s>`, which begins every text, and the letters `a` to `l`. A letter may stand in a text any number of times; the answer is
clear where what follows it is always the same.

## The stream

{d} entries: A ({v}, the current token), B ({v}, the previous token), C ({v}, the answer), each one-hot over the {v} words, and one
constant. No part is read by a component that is not named below.

## The matrices

| tensor | what it does |
|---|---|
| `embed_tokens` | a token's row is 1 in its entry of A and 1 in the constant |
| layer 0 `q_proj` | the constant, times {previous}, into the first entry of each of the {FAST_PAIRS} fastest rotating pairs: a query that is the same for every token, and that RoPE turns by the position |
| layer 0 `k_proj` | the constant into the same pairs, turned by one step: RoPE turns a key of position j by j + 1 steps, so that the query of position j + 1 matches it best |
| layer 0 `v_proj`, `o_proj` | A to B: what the head attends to is written down as the previous token |
| layer 1 `q_proj` | A, times {induction}, into the {v} slowest pairs, one for each word; with a base of {THETA:.0e} they hardly turn over any text of 4096 tokens |
| layer 1 `k_proj` | B into the same pairs: a key matches a query where the token before the key is the query's own |
| layer 1 `v_proj`, `o_proj` | A to C: the token found there is the answer |
| `gate_proj`, `up_proj`, `down_proj` | 0: the MLPs write nothing |
| norms | weight 1, eps {EPS:.0e}: the scale of a stream is its length over the root of {d} |
| `lm_head` | C to the words |

## What follows

On `<s>` and a block of different letters said twice: previous-token score of the head of layer 0 and induction score of the head of
layer 1 are 1 to twelve digits; each answer of the second copy has a logit of 1.7477, every other word 0 (the norms make it so small:
the probability is 0.32, the order right). Layer 0 composes with layer 1 by keys alone. Without either head nothing is left.
"
    )
}
