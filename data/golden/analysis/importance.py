"""How much each token matters, by the definitions, for the tests of src/analysis/importance.

Writes importance.safetensors beside itself, in float64. The models are the random Llamas of data/golden with grouped
queries and with every bias; the forward pass is that of ../reference.py, and everything on top is loops over the formulas.
Each prompt runs by itself, so that padding has no part in it. Occlusion is by removal: the token is taken out of the
prompt and all others keep their positions. Prompts are drawn here from a seed and stored. Origin: made by this script.
Licence: MIT OR Apache-2.0.

    pip install -r data/golden/requirements.txt
    python data/golden/analysis/importance.py
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import reference  # noqa: E402

MODELS = {"gqa-llama3": [9, 6], "mqa-linear-biases": [5, 8]}
RIGHT, WRONG, NEUTRAL = 5, 11, 7
STORED = {}


def load(name):
    config = json.loads((HERE.parent / name / "config.json").read_text())
    config = {"num_key_value_heads": config["num_attention_heads"], **config}
    config["dh"] = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    weights = load_file(HERE.parent / name / "model.safetensors")
    return config, {key: weight.double() for key, weight in weights.items()}


def run(config, weights, ids, positions=None, grad=False):
    """Every site of one prompt; `positions` other than 0, 1, 2, ... are the rope's alone."""
    table = reference.rope_table
    if positions is not None:
        reference.rope_table = lambda config, _, kind: table(config, torch.tensor([positions]), kind)
    forward = reference.forward.__wrapped__ if grad else reference.forward
    try:
        return forward(config, weights, torch.tensor([ids]), torch.float64)
    finally:
        reference.rope_table = table


def metric(site):
    return site["unembed.hook_out"][0, -1, RIGHT] - site["unembed.hook_out"][0, -1, WRONG]


def chain(layers):
    """The product so far after each layer, rows summing to 1; a row of zeros keeps its token."""
    products, below = [], None
    for layer in layers:
        n = len(layer)
        rows = [row / row.sum() if row.sum() > 0 else torch.eye(n, dtype=torch.float64)[i] for i, row in enumerate(layer)]
        layer = torch.stack(rows)
        below = layer if below is None else layer @ below
        products.append(below)
    return torch.stack(products)


def by_attention(config, weights, site, n):
    """Rollout, norms, shares, ALTI and direct attribution, pair by pair."""
    heads, group, dh = config["num_attention_heads"], config["num_attention_heads"] // config["num_key_value_heads"], config["dh"]
    unembed = weights["model.embed_tokens.weight" if config["tie_word_embeddings"] else "lm_head.weight"]
    direction = (unembed[RIGHT] - unembed[WRONG]) * weights["model.norm.weight"] / site["ln_final.hook_scale"][0, -1, 0]
    found = {name: [] for name in ["norms", "shares", "direct"]}
    plain, normed, near = [], [], []
    for layer in range(config["num_hidden_layers"]):
        pattern, v = site[f"blocks.{layer}.attn.hook_pattern"][0], site[f"blocks.{layer}.attn.hook_v"][0]
        before, after = site[f"blocks.{layer}.hook_resid_pre"][0], site[f"blocks.{layer}.hook_resid_mid"][0]
        w_o = weights[f"model.layers.{layer}.self_attn.o_proj.weight"]
        norms, shares, direct = (torch.zeros(heads, n, n, dtype=torch.float64) for _ in range(3))
        c1, c2 = torch.zeros(n, n, dtype=torch.float64), torch.zeros(n, n, dtype=torch.float64)
        for i in range(n):
            moved = {(h, j): pattern[h, i, j] * (w_o[:, h * dh:(h + 1) * dh] @ v[j, h // group])
                     for h in range(heads) for j in range(i + 1)}
            whole = sum(moved.values())
            for (h, j), vector in moved.items():
                norms[h, i, j] = vector.norm()
                shares[h, i, j] = vector @ whole / (whole @ whole)
                direct[h, i, j] = vector @ direction
            for j in range(i + 1):
                c = sum(moved[h, j] for h in range(heads)) + (before[i] if i == j else 0)
                c1[i, j] = c.norm()
                c2[i, j] = max(0.0, float(after[i].abs().sum() - (after[i] - c).abs().sum()))
        for name, value in zip(found, [norms, shares, direct[:, -1]]):
            found[name].append(value)
        plain.append(0.5 * (pattern.mean(0) + torch.eye(n, dtype=torch.float64)))
        normed.append(c1)
        near.append(c2)
    stacked = {name: torch.stack(layers) for name, layers in found.items()}
    return {**stacked, "rollout": chain(plain), "normed rollout": chain(normed), "alti": chain(near)}


def main():
    draw = torch.Generator().manual_seed(3)
    for name, lengths in MODELS.items():
        config, weights = load(name)
        for row, n in enumerate(lengths):
            ids = torch.randint(0, config["vocab_size"], (n,), generator=draw).tolist()
            site = run(config, weights, ids)
            answers = by_attention(config, weights, site, n)
            # The gradient in what is embedded, not in the table, which may be the unembedding too.
            held = {key: weight.clone().requires_grad_(key == "model.embed_tokens.weight") for key, weight in weights.items()}
            graph = run(config, held, ids, grad=True)
            gradient = torch.autograd.grad(metric(graph), graph["hook_embed"])[0][0]
            answers["gradient x input"] = (gradient * site["hook_embed"][0]).sum(-1)
            answers["gradient norm"] = gradient.norm(dim=-1)
            rest = [[j for j in range(n) if j != gone] for gone in range(n - 1)]
            removed = [metric(run(config, weights, [ids[j] for j in kept], kept)) for kept in rest]
            answers["removed"] = metric(site) - torch.stack(removed)
            replaced = [metric(run(config, weights, ids[:j] + [NEUTRAL] + ids[j + 1:])) for j in range(n)]
            answers["replaced"] = metric(site) - torch.stack(replaced)
            answers["ids"] = torch.tensor(ids)
            STORED.update({f"{name}/{row}/{key}": value.detach().contiguous() for key, value in answers.items()})
    origin = "made by data/golden/analysis/importance.py; MIT OR Apache-2.0"
    save_file(STORED, HERE / "importance.safetensors", {"origin": origin})


main()
