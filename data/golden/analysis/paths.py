"""Goldens of path attribution on the random model data/golden/gqa-llama3: composition scores, singular values and
eigenvalues of OV and QK circuits and the head detector of TransformerLens 3.5.1; QK circuits at an offset of rotary
positions, copying and matching scores as dense matrices; edge attribution patching and runs of circuits as plain
PyTorch autograd in float64, written here.

Made by this script from seed 7; licence: MIT OR Apache-2.0. Run with the versions of data/golden/requirements.txt:

    python data/golden/analysis/paths.py
"""

import json
import math
import pathlib
import sys

import torch

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import make_golden  # noqa: E402
import reference  # noqa: E402

FOLDER = HERE.parent / "gqa-llama3"


def folded(weights, layers):
    """The weights with those of the norms multiplied in."""
    weights = dict(weights)
    for layer in range(layers):
        at = f"model.layers.{layer}."
        for norm, parts in [("input_layernorm", ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
                            ("post_attention_layernorm", ["mlp.gate_proj", "mlp.up_proj"])]:
            scale = weights[f"{at}{norm}.weight"]
            for part in parts:
                weights[f"{at}{part}.weight"] = weights[f"{at}{part}.weight"] * scale
            weights[f"{at}{norm}.weight"] = torch.ones_like(scale)
    weights["lm_head.weight"] = weights["lm_head.weight"] * weights["model.norm.weight"]
    weights["model.norm.weight"] = torch.ones_like(weights["model.norm.weight"])
    return weights


def parts(values):
    """Complex numbers [.., n] as [.., n, 2], by falling magnitude, positive imaginary part first."""
    flat = values.reshape(-1, values.shape[-1])
    rows = [sorted(row.tolist(), key=lambda x: (-round(abs(x), 9), -x.imag)) for row in flat]
    return [[[x.real, x.imag] for x in row] for row in rows]


def lens(config, weights):
    """What TransformerLens says of the folded weights."""
    from transformer_lens import head_detector

    model = make_golden.lens_model(config, weights, torch.float64, False, 40)
    out = {"composition": {mode: model.all_composition_scores(mode).tolist() for mode in "QKV"}}
    for name, matrix in [("ov", model.OV), ("qk", model.QK)]:
        out[name] = {"singular_values": matrix.svd()[1].flatten(0, 1).tolist(), "eigenvalues": parts(matrix.eigenvalues)}
    block = torch.randperm(58, generator=torch.Generator().manual_seed(7))[:10] + 3
    tokens = torch.cat([torch.zeros(1, dtype=torch.long), block, block])[None]
    _, cache = model.run_with_cache(tokens)
    out["detector"] = {"tokens": tokens[0].tolist(), "scores": {}}
    for name in head_detector.HEAD_NAMES:
        wanted = getattr(head_detector, f"get_{name}_detection_pattern")(tokens).double()
        score = [[head_detector.compute_head_attention_similarity_score(
            cache["pattern", layer][0, head].clone(), wanted, exclude_bos=False, exclude_current_token=False,
            error_measure="mul") for head in range(model.cfg.n_heads)] for layer in range(model.cfg.n_layers)]
        out["detector"]["scores"][name] = score
    return out


class Llama:
    """The model in plain arithmetic, reader by reader and writer by writer, in the order of the pass."""

    def __init__(self, config, weights):
        self.c, self.w = config, weights
        self.layers, self.heads = config["num_hidden_layers"], config["num_attention_heads"]
        self.kv, self.dh = config["num_key_value_heads"], config["dh"]

    def head(self, layer, part, index, rows=True):
        matrix = self.w[f"model.layers.{layer}.self_attn.{part}.weight"]
        at = slice(index * self.dh, (index + 1) * self.dh)
        return matrix[at].T if rows else matrix[:, at].T

    def rms(self, x):
        return x / (x.pow(2).mean(-1, keepdim=True) + self.c["rms_norm_eps"]).sqrt()

    def readers(self):
        for layer in range(self.layers):
            yield from (("q", layer, h) for h in range(self.heads))
            yield from (("k", layer, g) for g in range(self.kv))
            yield from (("v", layer, g) for g in range(self.kv))
            yield ("mlp", layer, 0)
        yield ("logits", self.layers, 0)

    def below(self, reader):
        """How many writers come before a reader: embedding, then heads and MLP of each layer."""
        kind, layer, _ = reader
        return 1 + layer * (self.heads + 1) + (self.heads if kind == "mlp" else 0)

    def run(self, ids, read):
        """Logits at the last position, and what each writer writes; `read(number, reader, written)` is what a reader reads."""
        written = [self.w["model.embed_tokens.weight"][ids]]
        order = {reader: number for number, reader in enumerate(self.readers())}
        get = lambda *reader: read(order[reader], reader, written)
        length = ids.shape[1]
        cos, sin = reference.rope_table(self.c, torch.arange(length)[None], torch.float64)
        cos, sin = cos[:, :, 0], sin[:, :, 0]
        future = torch.ones(length, length, dtype=torch.bool).triu(1)
        for layer in range(self.layers):
            keys = [reference.rotate(self.rms(get("k", layer, g)) @ self.head(layer, "k_proj", g), cos, sin) for g in range(self.kv)]
            values = [self.rms(get("v", layer, g)) @ self.head(layer, "v_proj", g) for g in range(self.kv)]
            out = []
            for h in range(self.heads):
                g = h // (self.heads // self.kv)
                query = reference.rotate(self.rms(get("q", layer, h)) @ self.head(layer, "q_proj", h), cos, sin)
                scores = (query @ keys[g].transpose(1, 2) / math.sqrt(self.dh)).masked_fill(future, -math.inf)
                out.append(scores.softmax(-1) @ values[g] @ self.head(layer, "o_proj", h, rows=False))
            written += out
            x = self.rms(get("mlp", layer, 0))
            gate, up, down = (self.w[f"model.layers.{layer}.mlp.{name}_proj.weight"] for name in ["gate", "up", "down"])
            written.append((torch.nn.functional.silu(x @ gate.T) * (x @ up.T)) @ down.T)
        return self.rms(get("logits", self.layers, 0))[:, -1] @ self.w["lm_head.weight"].T, written


def edges(model, random):
    """EAP in the clean run, and the metric of circuits with all else at the corrupt run."""
    clean, corrupt = torch.randint(3, 61, (2, 2, 7), generator=random)
    right, wrong = 5, 11
    metric = lambda logits: logits[:, right] - logits[:, wrong]
    stream = lambda number, reader, written: sum(written[:model.below(reader)])
    logits, other = model.run(corrupt, stream)
    changes = {}

    def watched(number, reader, written):
        changes[number] = torch.zeros_like(written[0]).requires_grad_(True)
        return stream(number, reader, written) + changes[number]

    clean_logits, own = model.run(clean, watched)
    metric(clean_logits).mean().backward()
    readers = list(model.readers())
    scores = [[float(((other[w] - own[w]).detach() * changes[r].grad).sum()) if w < model.below(reader) else 0.0
               for r, reader in enumerate(readers)] for w in range(len(own))]
    circuits = []
    for share in [0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0]:
        kept = torch.rand(len(own), len(readers), generator=random) < share

        def cut(number, reader, written):
            return sum(written[w] if kept[w, number] else other[w] for w in range(model.below(reader)))

        with torch.no_grad():
            values = metric(model.run(clean, cut)[0]).tolist()
        pairs = [[w, r] for r, reader in enumerate(readers) for w in range(model.below(reader)) if kept[w, r]]
        circuits.append({"edges": pairs, "metric": values})
    return {"clean": clean.tolist(), "corrupt": corrupt.tolist(), "right": right, "wrong": wrong, "scores": scores,
            "circuits": circuits, "corrupt_metric": metric(logits).tolist()}


def dense(model):
    """QK circuits at an offset, and copying and matching scores, as whole matrices."""
    embed, unembed = model.w["model.embed_tokens.weight"], model.w["lm_head.weight"].T
    share = lambda matrix: float((values := torch.linalg.eigvals(matrix)).real.sum() / values.abs().sum())
    cos, sin = reference.rope_table(model.c, torch.arange(8)[None], torch.float64)
    out = {"copying": [], "matching_1": [], "qk_norms": {}, "qk_1_3_offset_3": None}
    for offset in [0, 1, 3]:
        turned = lambda layer, h: reference.rotate(model.head(layer, "q_proj", h), cos[0, offset], sin[0, offset])
        qk = lambda layer, h: turned(layer, h) @ model.head(layer, "k_proj", h // (model.heads // model.kv)).T
        out["qk_norms"][str(offset)] = [[float(qk(l, h).norm()) for h in range(model.heads)] for l in range(model.layers)]
        if offset == 1:
            out["matching_1"] = [[share(embed @ qk(l, h) @ embed.T) for h in range(model.heads)] for l in range(model.layers)]
        if offset == 3:
            out["qk_1_3_offset_3"] = qk(1, 3).tolist()
    for layer in range(model.layers):
        ov = [model.head(layer, "v_proj", h // (model.heads // model.kv)) @ model.head(layer, "o_proj", h, rows=False)
              for h in range(model.heads)]
        out["copying"].append([share(embed @ matrix @ unembed) for matrix in ov])
    return out


def main():
    raw = json.loads((FOLDER / "config.json").read_text())
    config = make_golden.resolved(raw)
    weights = {name: tensor.double() for name, tensor in make_golden.read_weights(FOLDER).items()}
    weights = folded(weights, config["num_hidden_layers"])
    model = Llama(config, weights)
    golden = {"origin": "made by data/golden/analysis/paths.py", "licence": "MIT OR Apache-2.0", "model": "gqa-llama3",
              "transformer_lens": lens(raw, weights), "dense": dense(model),
              "edges": edges(model, torch.Generator().manual_seed(7))}
    short = json.loads(json.dumps(golden), parse_float=lambda x: float(f"{float(x):.15g}"))
    (HERE / "paths.json").write_text(json.dumps(short, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
