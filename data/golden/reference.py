"""The reference: what a Llama computes, as plain tensor arithmetic in float64, every hook site named, shaped and valued as in
TransformerLens. make_golden.py checks it against transformers and TransformerLens. Licence: MIT OR Apache-2.0."""

import math

import torch


def rope_settings(config):
    """The rope type's settings as one dictionary, from the old config form (rope_theta, rope_scaling) or the new one."""
    rope = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    rope.setdefault("rope_theta", config.get("rope_theta"))
    rope.setdefault("rope_type", rope.get("type", "default"))
    return rope


def inverse_frequencies(config, length, kind):
    """One angular frequency per pair of coordinates. `kind` is the precision of every step: float32 repeats transformers."""
    rope, dh = rope_settings(config), config["dh"]
    base, factor = rope["rope_theta"], rope.get("factor")
    original = config["max_position_embeddings"]
    if rope["rope_type"] == "dynamic" and length > original:
        # transformers has the length as a tensor here, so even this scalar goes through float32.
        length = torch.tensor(length).to(kind)
        base = base * ((factor * length / original) - (factor - 1)) ** (dh / (dh - 2))
    inverse = 1.0 / (base ** (torch.arange(0, dh, 2).to(kind) / dh))
    if rope["rope_type"] == "linear":
        inverse = inverse / factor
    if rope["rope_type"] == "llama3":
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        context = rope["original_max_position_embeddings"]
        wavelength = 2 * math.pi / inverse
        smooth = (context / wavelength - low) / (high - low)
        between = (1 - smooth) * inverse / factor + smooth * inverse
        scaled = torch.where(wavelength > context / low, inverse / factor, inverse)
        medium = (wavelength >= context / high) & (wavelength <= context / low)
        inverse = torch.where(medium, between, scaled)
    return inverse


def rope_table(config, positions, kind):
    """cos and sin [b, p, 1, dh], computed in `kind`, returned in float64."""
    inverse = inverse_frequencies(config, int(positions.max()) + 1, kind)
    angles = positions.to(kind)[..., None] * inverse
    angles = torch.cat([angles, angles], -1)[:, :, None]
    return angles.cos().double(), angles.sin().double()


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


def linear(x, weights, name):
    bias = weights.get(name + ".bias")
    y = x @ weights[name + ".weight"].T
    return y if bias is None else y + bias


@torch.no_grad()
def forward(config, weights, ids, kind, real=None):
    """Every site by its TransformerLens name. `weights` in float64; `kind` is the precision of the rope table;
    `real` [b, p] is False at padding. Inputs per head are held once: [b, p, 1, d] instead of [b, p, heads, d]."""
    heads, kv, dh = config["num_attention_heads"], config["num_key_value_heads"], config["dh"]
    batch, length = ids.shape
    real = torch.ones_like(ids, dtype=torch.bool) if real is None else real
    positions = (real.cumsum(-1) - 1).clamp(min=0)
    cos, sin = rope_table(config, positions, kind)
    seen = torch.ones(length, length, dtype=torch.bool).tril() & real[:, None, None, :] & real[:, None, :, None]
    site = {}

    def norm(x, name, weight):
        scale = site[name + ".hook_scale"] = (x.pow(2).mean(-1, keepdim=True) + config["rms_norm_eps"]).sqrt()
        site[name + ".hook_normalized"] = x / scale
        return x / scale * weights[weight]

    x = site["hook_embed"] = weights["model.embed_tokens.weight"][ids]
    for layer in range(config["num_hidden_layers"]):
        at, w = f"blocks.{layer}.", f"model.layers.{layer}."
        site[at + "hook_resid_pre"] = x
        for name in ["hook_q_input", "hook_k_input", "hook_v_input"]:
            site[at + name] = x[:, :, None]
        u = norm(x, at + "ln1", w + "input_layernorm.weight")
        q = site[at + "attn.hook_q"] = linear(u, weights, w + "self_attn.q_proj").view(batch, length, heads, dh)
        k = site[at + "attn.hook_k"] = linear(u, weights, w + "self_attn.k_proj").view(batch, length, kv, dh)
        v = site[at + "attn.hook_v"] = linear(u, weights, w + "self_attn.v_proj").view(batch, length, kv, dh)
        q = site[at + "attn.hook_rot_q"] = rotate(q, cos, sin)
        k = site[at + "attn.hook_rot_k"] = rotate(k, cos, sin)
        k, v = k.repeat_interleave(heads // kv, 2), v.repeat_interleave(heads // kv, 2)
        scores = torch.einsum("bqhe,bkhe->bhqk", q, k) / math.sqrt(dh)
        scores = site[at + "attn.hook_attn_scores"] = scores.masked_fill(~seen, -math.inf)
        pattern = site[at + "attn.hook_pattern"] = scores.softmax(-1).masked_fill(~seen, 0.0)
        z = site[at + "attn.hook_z"] = torch.einsum("bhqk,bkhe->bqhe", pattern, v)
        w_o = weights[w + "self_attn.o_proj.weight"].view(-1, heads, dh)
        site[at + "attn.hook_result"] = torch.einsum("bqhe,dhe->bqhd", z, w_o)
        a = site[at + "hook_attn_out"] = linear(z.flatten(2), weights, w + "self_attn.o_proj")
        x = site[at + "hook_resid_mid"] = site[at + "hook_mlp_in"] = x + a
        n = norm(x, at + "ln2", w + "post_attention_layernorm.weight")
        gate = site[at + "mlp.hook_pre"] = linear(n, weights, w + "mlp.gate_proj")
        up = site[at + "mlp.hook_pre_linear"] = linear(n, weights, w + "mlp.up_proj")
        post = site[at + "mlp.hook_post"] = gate * gate.sigmoid() * up
        m = site[at + "hook_mlp_out"] = linear(post, weights, w + "mlp.down_proj")
        x = site[at + "hook_resid_post"] = x + m
    final = norm(x, "ln_final", "model.norm.weight")
    unembed = "model.embed_tokens.weight" if config["tie_word_embeddings"] else "lm_head.weight"
    site["unembed.hook_out"] = final @ weights[unembed].T
    return site


def gap(ours, theirs):
    """max|ours - theirs| / max|theirs| over entries that are not masked; masked ones must be masked in both."""
    masked = torch.isneginf(theirs)
    if ours.shape != theirs.shape or not torch.equal(torch.isneginf(ours), masked):
        return math.inf
    ours, theirs = ours.double().masked_fill(masked, 0.0), theirs.double().masked_fill(masked, 0.0)
    return float((ours - theirs).abs().max() / theirs.abs().max())
