"""Writes the reference activations that tests/golden.rs compares against: random tiny Llamas as Hugging Face directories,
and beside each the value of every hook site. Run it from anywhere, in a Python with requirements.txt installed:

    python data/golden/make_golden.py

The reference is `forward` in reference.py: a Llama as plain tensor arithmetic in float64. Before anything is written it must
agree with transformers (float32, eager attention, also on a padded batch) and, for models without biases, with TransformerLens
at every site. transformers itself is no float64 reference: its norm, rope and softmax compute in float32 whatever the model's
kind. Two goldens a model: in `f32` the rope table takes transformers' own float32 steps, in `f64` it is float64 throughout;
all else is float64 in both, stored as named. A site that repeats another's values is not stored twice: `same` in golden.json
names the one that holds them. Last, data/models/tiny-world is loaded by transformers, tokenizer and all, and the logits of
one prompt a task are kept: run the script again whenever that model changes. Activation patching is compared with
TransformerLens' `patching` module, on one of the models: all of its functions, named as there.

Origin: weights, tokens and activations are made by this script from random numbers; those of tiny-world come from that model
and data/prompts. Licence: MIT OR Apache-2.0.
"""

import json
import math
import shutil
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from reference import forward, gap, rope_settings

HERE = Path(__file__).resolve().parent
SHIPPED, PROMPTS = HERE.parent / "models" / "tiny-world", HERE.parent / "prompts"
ORIGIN = {"origin": "random numbers made by data/golden/make_golden.py", "licence": "MIT OR Apache-2.0"}
# safetensors writes several keys in random order; one key keeps the files the same, byte for byte, from run to run.
NOTE = {"origin": "; ".join(ORIGIN.values())}

# ---- The models: between them every form of config, attention, storage and rope that loads. ----

LLAMA3 = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 2.0,
          "original_max_position_embeddings": 16}
MODELS = [
    # New config form; positions to 39 where the model was "trained" on 16, and theta such that every llama3 band is met.
    dict(name="gqa-llama3", seed=1, storage=torch.float32, shards=1, tokenizer=True, batch=1, length=40, padded=[5, 18, 11],
         config=dict(num_attention_heads=4, num_key_value_heads=2, head_dim=12, rms_norm_eps=1e-5,
                     max_position_embeddings=512, rope_parameters={**LLAMA3, "rope_theta": 50.0})),
    # Old config form; every bias there is; tied embeddings.
    dict(name="mqa-linear-biases", seed=2, storage=torch.float32, shards=1, tokenizer=False, batch=2, length=9,
         padded=[9, 2, 6],
         config=dict(num_attention_heads=4, num_key_value_heads=1, head_dim=12, rms_norm_eps=1e-6,
                     max_position_embeddings=64, rope_theta=10000.0, rope_scaling={"type": "linear", "factor": 4.0},
                     attention_bias=True, mlp_bias=True, tie_word_embeddings=True)),
    # Head size derived, key/value heads left out, bf16, two shards.
    dict(name="mha-bf16-shards", seed=3, storage=torch.bfloat16, shards=2, tokenizer=True, batch=2, length=8,
         padded=[3, 8, 7],
         config=dict(num_attention_heads=4, rms_norm_eps=1e-6, max_position_embeddings=32, rope_theta=10000.0,
                     rope_scaling=None)),
    # Longer than its context, so that `dynamic` changes the base; one row length only, since the base depends on it.
    dict(name="gqa-dynamic-f16", seed=4, storage=torch.float16, shards=1, tokenizer=False, batch=2, length=12, padded=None,
         config=dict(num_attention_heads=6, num_key_value_heads=2, head_dim=10, rms_norm_eps=1e-5,
                     max_position_embeddings=8,
                     rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 500.0})),
    # As Llama 3.2 directories look: llama3 in the old form, tied; here with biases in attention alone.
    dict(name="mha-llama3-old", seed=5, storage=torch.float32, shards=1, tokenizer=False, batch=1, length=18, padded=[18, 1],
         config=dict(num_attention_heads=4, num_key_value_heads=4, head_dim=12, rms_norm_eps=1e-5,
                     max_position_embeddings=512, rope_theta=50.0, rope_scaling=LLAMA3, attention_bias=True,
                     tie_word_embeddings=True)),
]
COMMON = dict(architectures=["LlamaForCausalLM"], model_type="llama", hidden_act="silu", hidden_size=24,
              intermediate_size=32, num_hidden_layers=2, vocab_size=61, tie_word_embeddings=False, attention_bias=False,
              mlp_bias=False, bos_token_id=0, eos_token_id=1)
WORDS = "the a cat dog bird fish sees likes chases and then when where because red blue small big river stone".split()
TEXTS = ["the cat sees a small bird", "when the dog chases the fish then the red bird likes the river"]


def resolved(config):
    """The config with the defaults that the forward pass needs."""
    heads = config["num_attention_heads"]
    full = {"num_key_value_heads": heads, **config}
    return {**full, "dh": config.get("head_dim") or config["hidden_size"] // heads}


def random_weights(config, seed, storage):
    """Weights in Hugging Face's names. Query and key are drawn large enough for attention to have opinions."""
    c, random = resolved(config), torch.Generator().manual_seed(seed)
    d, m = c["hidden_size"], c["intermediate_size"]
    q, kv = c["num_attention_heads"] * c["dh"], c["num_key_value_heads"] * c["dh"]
    weights = {"model.embed_tokens.weight": torch.randn(c["vocab_size"], d, generator=random)}

    def dense(name, out, into, gain, bias):
        weights[name + ".weight"] = torch.randn(out, into, generator=random) * gain / math.sqrt(into)
        if bias:
            weights[name + ".bias"] = torch.randn(out, generator=random) * 0.3

    def norm(name):
        weights[name] = 1.0 + 0.3 * torch.randn(d, generator=random)

    for layer in range(c["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        norm(at + "input_layernorm.weight")
        dense(at + "self_attn.q_proj", q, d, 1.5, c["attention_bias"])
        dense(at + "self_attn.k_proj", kv, d, 1.5, c["attention_bias"])
        dense(at + "self_attn.v_proj", kv, d, 1.0, c["attention_bias"])
        dense(at + "self_attn.o_proj", d, q, 1.0, c["attention_bias"])
        norm(at + "post_attention_layernorm.weight")
        dense(at + "mlp.gate_proj", m, d, 1.0, c["mlp_bias"])
        dense(at + "mlp.up_proj", m, d, 1.0, c["mlp_bias"])
        dense(at + "mlp.down_proj", d, m, 1.0, c["mlp_bias"])
    norm("model.norm.weight")
    if not c["tie_word_embeddings"]:
        dense("lm_head", c["vocab_size"], d, 1.0, False)
    return {name: tensor.to(storage).contiguous() for name, tensor in weights.items()}


def write_weights(folder, weights, shards):
    if shards == 1:
        return save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    names, index = sorted(weights), {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = {name: weights[name] for name in names[shard::shards]}
        save_file(part, folder / file, metadata={"format": "pt"})
        index.update({name: file for name in part})
    size = sum(w.numel() * w.element_size() for w in weights.values())
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": size, **ORIGIN}, "weight_map": index})


def write_tokenizer(folder):
    """Words between blanks, `<s>` in front: the smallest tokenizer.json that is still a real one."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocab = {word: i for i, word in enumerate(["<s>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer.add_special_tokens(["<s>", "</s>", "<unk>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    return {text: tokenizer.encode(text).ids for text in TEXTS}


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1) + "\n")


def read_weights(folder):
    """All weights of a directory, in float64."""
    return {n: w.double() for file in folder.glob("model*.safetensors") for n, w in load_file(file).items()}


# ---- Checks against the two reference implementations. ----


def require(what, error, limit):
    if not error <= limit:
        raise SystemExit(f"{what}: the reference differs by {error:.2e}, more than {limit:.0e}; nothing is written")
    return error


def real_queries(name, real, *values):
    """The entries of positions that are not padding; scores and patterns carry the position in their third axis."""
    by_query = name.endswith(("attn_scores", "pattern"))
    return [x.movedim(2, 1)[real] if by_query else x[real] for x in values]


def transformers_sites(folder, ids, real=None):
    """What transformers computes, under our names: its modules' inputs and outputs, in float32 with eager attention."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    c, site, hooks = model.config, {}, []

    def see(module, name, heads=None, into=False):
        def hook(_, inputs, output):
            value = inputs[0] if into else output[0] if isinstance(output, tuple) else output
            site[name] = value if heads is None else value.view(*value.shape[:2], heads, -1)

        hooks.append(module.register_forward_hook(hook))

    see(model.model.embed_tokens, "hook_embed")
    for i, layer in enumerate(model.model.layers):
        at, attention, mlp = f"blocks.{i}.", layer.self_attn, layer.mlp
        see(layer.input_layernorm, at + "hook_resid_pre", into=True)
        see(attention.q_proj, at + "attn.hook_q", c.num_attention_heads)
        see(attention.k_proj, at + "attn.hook_k", c.num_key_value_heads)
        see(attention.v_proj, at + "attn.hook_v", c.num_key_value_heads)
        see(attention.o_proj, at + "attn.hook_z", c.num_attention_heads, into=True)
        see(attention.o_proj, at + "hook_attn_out")
        see(layer.post_attention_layernorm, at + "hook_resid_mid", into=True)
        see(mlp.gate_proj, at + "mlp.hook_pre")
        see(mlp.up_proj, at + "mlp.hook_pre_linear")
        see(mlp.down_proj, at + "mlp.hook_post", into=True)
        see(mlp.down_proj, at + "hook_mlp_out")
        see(layer, at + "hook_resid_post")
    positions = None if real is None else (real.cumsum(-1) - 1).clamp(min=0)
    mask = None if real is None else real.long()
    with torch.no_grad():
        out = model(ids, attention_mask=mask, position_ids=positions, output_attentions=True)
    for i, pattern in enumerate(out.attentions):
        site[f"blocks.{i}.attn.hook_pattern"] = pattern
    return {**site, "unembed.hook_out": out.logits}


def check_transformers(folder, ids, sites, real=None):
    """In float32 to 1e-5, at every site that transformers' modules show; at padding there is nothing to compare."""
    theirs, worst = transformers_sites(folder, ids, real), 0.0
    for name, value in theirs.items():
        ours = sites[name]
        if real is not None:
            ours, value = real_queries(name, real, ours, value)
        worst = max(worst, require(f"transformers, {folder.name}, {name}", gap(ours, value), 1e-5))
    return len(theirs), worst


def lens_model(config, weights, kind, opt_in, length):
    """The same model as a TransformerLens HookedTransformer without any processing of its weights."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.pretrained.weight_conversions.llama import convert_llama_weights
    from transformers import LlamaConfig, LlamaForCausalLM

    c, rope = resolved(config), rope_settings(config)
    extra = {}
    if rope["rope_type"] == "llama3":
        extra = dict(use_NTK_by_parts_rope=True, NTK_by_parts_factor=rope["factor"],
                     NTK_by_parts_low_freq_factor=rope["low_freq_factor"],
                     NTK_by_parts_high_freq_factor=rope["high_freq_factor"],
                     NTK_original_ctx_len=rope["original_max_position_embeddings"])
    base, dh, original = rope["rope_theta"], c["dh"], c["max_position_embeddings"]
    if rope["rope_type"] == "dynamic" and length > original:  # TransformerLens lacks this type: give it the base it leads to
        base *= (rope["factor"] * length / original - (rope["factor"] - 1)) ** (dh / (dh - 2))
    kv = c["num_key_value_heads"]
    cfg = HookedTransformerConfig(
        n_layers=c["num_hidden_layers"], d_model=c["hidden_size"], n_ctx=64, d_head=dh, n_heads=c["num_attention_heads"],
        n_key_value_heads=None if kv == c["num_attention_heads"] else kv, d_mlp=c["intermediate_size"], act_fn="silu",
        d_vocab=c["vocab_size"], eps=c["rms_norm_eps"], normalization_type="RMS", final_rms=True, gated_mlp=True,
        positional_embedding_type="rotary", rotary_dim=dh, rotary_adjacent_pairs=False, rotary_base=base,
        rotary_scaling_factor=rope["factor"] if rope["rope_type"] == "linear" else 1.0,
        original_architecture="LlamaForCausalLM", use_attn_result=opt_in, use_split_qkv_input=opt_in,
        use_hook_mlp_in=opt_in, dtype=kind, device="cpu", **extra)
    known = {k: v for k, v in config.items() if not k.startswith("rope_")}
    source = LlamaForCausalLM(LlamaConfig(**known)).to(kind)
    source.load_state_dict(weights, strict=not c["tie_word_embeddings"])
    model = HookedTransformer(cfg)
    model.load_state_dict(convert_llama_weights(source, cfg), strict=False)
    return model.eval()


def check_lens(config, weights, ids, sites, kind, limit, real=None):
    """Every site there is. Its opt-in hooks change the shape of the others, hence one run without and one with them."""
    seen, worst = 0, 0.0
    opt_in_names = ("hook_q_input", "hook_k_input", "hook_v_input", "hook_mlp_in", "attn.hook_result")
    for opt_in in (False, True):
        model = lens_model(config, weights, kind, opt_in, ids.shape[1])
        with torch.no_grad():
            _, cache = model.run_with_cache(ids, attention_mask=None if real is None else real.long())
        for name, ours in sites.items():
            if name.endswith(opt_in_names) != opt_in:
                continue
            theirs = cache[name]
            ours = ours.expand_as(theirs) if name.endswith("_input") else ours
            if real is not None:
                ours, theirs = real_queries(name, real, ours, theirs)
            worst = max(worst, require(f"TransformerLens in {kind}, {name}", gap(ours, theirs), limit))
            seen += 1
    assert seen == len(sites)
    return worst


# ---- Putting it together. ----


def left_padded(lengths, vocab, random):
    width = max(lengths)
    ids = torch.randint(3, vocab, (len(lengths), width), generator=random)
    real = torch.arange(width)[None] >= width - torch.tensor(lengths)[:, None]
    return ids.masked_fill(~real, 0), real


PADDED_SITES = ("hook_rot_q", "hook_rot_k", "hook_attn_scores", "unembed.hook_out")


def once(sites):
    """The sites to store, and for each other one the stored site that holds the same values (resid_post is the next
    resid_pre; an input per head is the residual, its head axis of size one left out)."""
    kept, names, same = {}, {}, {}
    for name, value in sites.items():
        if value.data_ptr() in names:
            same[name] = names[value.data_ptr()]
        else:
            kept[name], names[value.data_ptr()] = value, name
    return kept, same


def make(spec, out):
    """One model's directory and its two golden files; returns its entry in golden.json."""
    config, folder = {**COMMON, **spec["config"]}, out / spec["name"]
    c = resolved(config)
    folder.mkdir()
    kind_key = "dtype" if "rope_parameters" in config else "torch_dtype"  # each form has its own word for it
    config[kind_key] = str(spec["storage"]).split(".")[1]
    write_json(folder / "config.json", config)
    write_weights(folder, random_weights(config, spec["seed"], spec["storage"]), spec["shards"])
    texts = write_tokenizer(folder) if spec["tokenizer"] else {}
    weights, random = read_weights(folder), torch.Generator().manual_seed(100 + spec["seed"])
    ids = torch.randint(3, config["vocab_size"], (spec["batch"], spec["length"]), generator=random)
    padded, real = left_padded(spec["padded"], config["vocab_size"], random) if spec["padded"] else (None, None)
    biased = config["attention_bias"] or config["mlp_bias"]
    print(spec["name"])
    for kind, suffix in ((torch.float32, "f32"), (torch.float64, "f64")):
        sites = forward(c, weights, ids, kind)
        batch = None if padded is None else forward(c, weights, padded, kind, real)
        if kind == torch.float32:
            print("  transformers:    %d sites, worst %.1e" % check_transformers(folder, ids, sites))
            if batch:
                print("  ... padded:      %d sites, worst %.1e" % check_transformers(folder, padded, batch, real))
        if not biased:
            # TransformerLens takes its llama3 frequencies in float32 always; elsewhere its float64 is float64.
            exact = kind == torch.float64 and rope_settings(config)["rope_type"] != "llama3"
            limit = 1e-11 if exact else 1e-5
            worst = check_lens(config, weights, ids, sites, kind, limit)
            print(f"  TransformerLens: {suffix}, {len(sites)} sites, worst {worst:.1e}")
            if batch:
                worst = check_lens(config, weights, padded, batch, kind, limit, real)
                print(f"  ... padded:      {suffix}, {len(batch)} sites, worst {worst:.1e}")
        golden, same = once(sites)
        golden.update({"padded/" + n: v for n, v in (batch or {}).items() if n.endswith(PADDED_SITES)})
        golden = {name: value.to(kind).contiguous() for name, value in golden.items()}
        save_file(golden, out / f"{spec['name']}.{suffix}.safetensors", metadata=NOTE)
    rows = [row[-n:].tolist() for row, n in zip(padded, spec["padded"])] if spec["padded"] else []
    return dict(name=spec["name"], ids=ids.tolist(), padded=rows, texts=texts, same=same)


def make_shipped(out):
    """The shipped model as transformers reads it: ids from its tokenizer, logits of a left-padded batch."""
    from transformers import AutoTokenizer

    texts = [json.loads(file.read_text())["prompts"][0]["clean"] for file in sorted(PROMPTS.glob("*.json"))]
    batch = AutoTokenizer.from_pretrained(SHIPPED)(texts, padding=True, padding_side="left", return_tensors="pt")
    ids, real = batch["input_ids"], batch["attention_mask"].bool()
    config = json.loads((SHIPPED / "config.json").read_text())
    sites = forward(resolved(config), read_weights(SHIPPED), ids, torch.float32, real)
    print("tiny-world\n  transformers:    %d sites, worst %.1e" % check_transformers(SHIPPED, ids, sites, real))
    save_file({"unembed.hook_out": sites["unembed.hook_out"].float()}, out / "tiny-world.f32.safetensors", metadata=NOTE)
    return [dict(text=text, ids=row[keep].tolist()) for text, row, keep in zip(texts, ids, real)]


PATCHED = "gqa-llama3"


def make_patching(out):
    """What every function of TransformerLens' patching module gives on two pairs of prompts: the mean logit difference.
    Prompts and answers are stored beside it. The weights are as loaded, so that the metric is the model's own."""
    from transformer_lens import patching

    spec = next(spec for spec in MODELS if spec["name"] == PATCHED)
    config, random = {**COMMON, **spec["config"]}, torch.Generator().manual_seed(200 + spec["seed"])
    clean = torch.randint(3, config["vocab_size"], (2, 7), generator=random)
    corrupt = clean.clone()
    corrupt[0, 2], corrupt[1, 4], corrupt[1, 5] = 7, 11, 23
    right, wrong = torch.randint(3, config["vocab_size"], (2, 2), generator=random)
    rows = torch.arange(len(clean))
    weights = read_weights(out / PATCHED)
    model = lens_model(config, weights, torch.float64, False, clean.shape[1])

    def metric(logits):
        return (logits[rows, -1, right] - logits[rows, -1, wrong]).mean()

    with torch.no_grad():
        clean_logits, cache = model.run_with_cache(clean)
        stored = {"clean": clean, "corrupt": corrupt, "right": right, "wrong": wrong,
                  "clean_metric": metric(clean_logits), "corrupt_metric": metric(model(corrupt))}
        names = sorted(name for name in vars(patching) if name.startswith("get_act_patch_"))
        for name in names:
            stored[name] = getattr(patching, name)(model, corrupt, cache, metric)
    print(f"{PATCHED}\n  TransformerLens: {len(names)} functions of its patching module")
    stored = {name: value.contiguous() for name, value in stored.items()}
    save_file(stored, out / f"{PATCHED}.patching.safetensors", metadata=NOTE)


def main():
    import safetensors, tokenizers, transformer_lens, transformers

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch)
        entries, shipped = [make(spec, out) for spec in MODELS], make_shipped(out)
        make_patching(out)
        versions = {m.__name__: m.__version__ for m in (torch, transformers, safetensors, tokenizers)}
        versions["transformer_lens"] = "3.5.1"
        write_json(out / "golden.json", {**ORIGIN, "versions": versions, "models": entries, "shipped": shipped})
        for path in out.rglob("*.safetensors"):
            path.chmod(0o644)
        for path in out.iterdir():  # only now: every check has passed
            shutil.rmtree(HERE / path.name, ignore_errors=True)
            shutil.move(path, HERE / path.name)


if __name__ == "__main__":
    main()
