"""One peer as a child process: loads the model of a directory, then answers lines on stdin with lines on stdout.

    python child.py sdpa|eager|hooked|bridge DIRECTORY

    logits        -> the logits of the last position, blank-separated
    forward 3     -> nanoseconds of three forward passes
    cached 3      -> the same, with every activation cached (hooked and bridge only)
    patching 3 24 -> the same of TransformerLens' patching of the stream into every layer and each of the first 24
                     positions, of a prompt of 24 tokens (hooked and bridge only)
    effects 24    -> what such a patching finds, layer by layer

benches/peer_child.rs speaks the same lines for thalweg.
"""

import os
import sys
import time
from pathlib import Path


def load(kind, folder):
    """A function (ids, cached) -> logits, and TransformerLens' model where there is one."""
    from transformers import AutoModelForCausalLM

    attention = "sdpa" if kind == "sdpa" else "eager"
    source = AutoModelForCausalLM.from_pretrained(folder, dtype="float32", attn_implementation=attention).eval()
    if kind in ("sdpa", "eager"):
        return lambda ids, cached: source(ids, use_cache=False).logits, None
    model = hooked(source) if kind == "hooked" else bridge(source, folder)
    return lambda ids, cached: model.run_with_cache(ids)[0] if cached else model(ids), model


def hooked(source):
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.pretrained.weight_conversions.llama import convert_llama_weights

    c = source.config
    cfg = HookedTransformerConfig(
        n_layers=c.num_hidden_layers, d_model=c.hidden_size, n_ctx=c.max_position_embeddings, d_head=c.head_dim,
        n_heads=c.num_attention_heads, n_key_value_heads=c.num_key_value_heads, d_mlp=c.intermediate_size, act_fn="silu",
        d_vocab=c.vocab_size, eps=c.rms_norm_eps, normalization_type="RMS", final_rms=True, gated_mlp=True,
        positional_embedding_type="rotary", rotary_dim=c.head_dim, rotary_adjacent_pairs=False,
        rotary_base=c.rope_parameters["rope_theta"], original_architecture="LlamaForCausalLM", device="cpu")
    model = HookedTransformer(cfg)
    model.load_state_dict(convert_llama_weights(source, cfg), strict=False)
    return model.eval()


def bridge(source, folder):
    from transformer_lens.model_bridge import TransformerBridge

    return TransformerBridge.boot_transformers(folder, hf_model=source, device="cpu").eval()


def patching(model, ids, length):
    """The metric for every layer and position whose stream is the clean prompt's, as TransformerLens patches it."""
    from transformer_lens.patching import get_act_patch_resid_pre

    clean = ids[:, :length]
    corrupt = clean.clone()
    corrupt[0, length // 3] += 1
    _, cache = model.run_with_cache(clean, names_filter=lambda name: name.endswith("hook_resid_pre"))
    return get_act_patch_resid_pre(model, corrupt, cache, lambda logits: logits[0, -1, 10] - logits[0, -1, 20])


def main():
    kind, folder = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints goes to stderr, so that answers stay alone on stdout
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.set_grad_enabled(False)
    run, lens = load(kind, folder)
    ids = torch.tensor([list(map(int, (Path(folder) / "ids.txt").read_text().split()))])
    for line in sys.stdin:
        mode, *count = line.split()
        if mode == "logits":
            print(*run(ids, False)[0, -1].tolist(), file=answers)
            continue
        if mode == "effects":
            print(*patching(lens, ids, int(count[0])).flatten().tolist(), file=answers)
            continue
        times = []
        for _ in range(int(count[0])):
            start = time.perf_counter_ns()
            if mode == "patching":
                patching(lens, ids, int(count[1]))
            else:
                run(ids, mode == "cached")
            times.append(time.perf_counter_ns() - start)
        print(*times, file=answers)


if __name__ == "__main__":
    main()
