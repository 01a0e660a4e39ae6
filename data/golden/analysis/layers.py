"""Lenses, lengths and cosines of the residual stream of data/models/tiny-world by TransformerLens, in float64.

    python data/golden/analysis/layers.py

Needs the packages of data/golden/requirements.txt (torch, transformers, transformer-lens) beside those here. The logit lens is
TransformerLens' `accumulated_resid(incl_mid=True)` through `apply_ln_to_stack(recompute_ln=True)` and `W_U`; heads are
`stack_head_results`. A golden of that model: run the script again whenever the model changes.

Origin: two prompts of its own, through data/models/tiny-world; made by this script. Licence: MIT OR Apache-2.0.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from make_golden import SHIPPED, lens_model  # noqa: E402

PROMPTS = [("The capital of France is", "Paris"), ("fe du ku fa fu bu gu lo fe du ku fa fu", "bu")]


def rounded(x):
    """Nested lists of 12 significant digits."""
    return [rounded(y) for y in x] if isinstance(x, list) else float(f"{x:.12g}")


def numbers(x):
    return rounded(x.double().tolist())


def cosine(x, y):
    return torch.nn.functional.cosine_similarity(x, y, dim=-1)


def one(model, tokenizer, text, answer):
    """All quantities of one prompt, lists by rung (or layer, component, head) and position."""
    ids = tokenizer.encode(text).ids
    target = tokenizer.encode(answer, add_special_tokens=False).ids
    assert len(target) == 1, answer
    target = target[0]
    with torch.no_grad():
        logits, cache = model.run_with_cache(torch.tensor([ids]))
        stack, labels = cache.accumulated_resid(incl_mid=True, return_labels=True)
        stack = stack[:, 0]  # [rung, pos, d_model]
        normed = cache.apply_ln_to_stack(stack.unsqueeze(1), layer=-1, recompute_ln=True)[:, 0]
        lens = (normed @ model.W_U).log_softmax(-1)  # [rung, pos, vocab]
        final = logits[0].log_softmax(-1)
        assert torch.allclose(lens[-1], final, atol=1e-10)
        own = lens[..., target]
        top = lens.exp().topk(3, dim=-1)
        heads = cache.stack_head_results(layer=-1)[:, 0]  # [layer * head, pos, d_model]
        layers = range(model.cfg.n_layers)
        attention = torch.stack([cache["attn_out", layer][0] for layer in layers])
        mlp = torch.stack([cache["mlp_out", layer][0] for layer in layers])
        before = torch.stack([cache["resid_pre", layer][0] for layer in layers])
        heads = heads.view(model.cfg.n_layers, model.cfg.n_heads, *heads.shape[1:])
    return dict(
        text=text, answer=answer, ids=ids, target=target, labels=labels,
        log_prob=numbers(own), rank=(lens > own[..., None]).sum(-1).tolist(),
        entropy=numbers(-(lens.exp() * lens).sum(-1)), kl=numbers((final.exp() * (final - lens)).sum(-1)),
        top_ids=top.indices.tolist(), top_probs=numbers(top.values),
        norms=numbers(stack.norm(dim=-1)), cosines=numbers(cosine(stack[:-1], stack[1:])),
        updates=numbers((stack[1:] - stack[:-1]).norm(dim=-1) / stack[:-1].norm(dim=-1)),
        attention_norms=numbers(attention.norm(dim=-1)), mlp_norms=numbers(mlp.norm(dim=-1)),
        attention_final=numbers(cosine(attention, stack[-1])), mlp_final=numbers(cosine(mlp, stack[-1])),
        head_norms=numbers(heads.norm(dim=-1)), head_before=numbers(cosine(heads, before[:, None])),
    )


def main():
    config = json.loads((SHIPPED / "config.json").read_text())
    weights = load_file(SHIPPED / "model.safetensors")
    tokenizer = Tokenizer.from_file(str(SHIPPED / "tokenizer.json"))
    torch.set_default_dtype(torch.float64)
    model = lens_model(config, {k: v.double() for k, v in weights.items()}, torch.float64, False, 64)
    model.cfg.use_attn_result = False
    document = dict(
        origin="made by data/golden/analysis/layers.py from data/models/tiny-world", licence="MIT OR Apache-2.0",
        prompts=[one(model, tokenizer, text, answer) for text, answer in PROMPTS])
    path = HERE / "layers.json"
    path.write_text(json.dumps(document, separators=(",", ":")) + "\n")
    print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
