"""Sparse autoencoders and transcoders of every architecture, and what SAELens makes of them.

Writes small directories in SAELens' format under `sae/`, and `sae.json`: for each the input and
SAELens' own latents and output. Everything is drawn from a seed here.

    pip install -r data/golden/requirements.txt && pip install --no-deps sae-lens==6.54.12
    python data/golden/analysis/sae.py

Only the package's SAE classes are imported, not its training stack. Origin: made by this script.
Licence: MIT OR Apache-2.0.
"""

import importlib.util
import json
import logging
import shutil
import sys
import types
from pathlib import Path

import torch

# The package's own __init__ imports what trains SAEs and downloads data; its classes need neither.
found = importlib.util.find_spec("sae_lens")
package = types.ModuleType("sae_lens")
package.__path__ = list(found.submodule_search_locations)
package.__version__ = "6.54.12"
package.logger = logging.getLogger("sae_lens")
sys.modules["sae_lens"] = package

from safetensors.torch import load_file, save_file  # noqa: E402
from sae_lens import saes  # noqa: E402
from sae_lens.registry import register_sae_class, register_sae_training_class  # noqa: E402

HERE = Path(__file__).parent
IN, LATENTS, OUT, N = 6, 10, 4, 5
RESID = {"hook_name": "blocks.0.hook_resid_post"}
Z = {"hook_name": "blocks.1.attn.hook_z"}
MLP = {"hook_name": "blocks.1.hook_mlp_in", "hook_name_out": "blocks.1.mlp.hook_post"}

CLASSES = {
    "standard": (saes.StandardSAE, saes.StandardSAEConfig),
    "gated": (saes.GatedSAE, saes.GatedSAEConfig),
    "jumprelu": (saes.JumpReLUSAE, saes.JumpReLUSAEConfig),
    "topk": (saes.TopKSAE, saes.TopKSAEConfig),
    "transcoder": (saes.Transcoder, saes.TranscoderConfig),
    "skip_transcoder": (saes.SkipTranscoder, saes.SkipTranscoderConfig),
    "jumprelu_transcoder": (saes.JumpReLUTranscoder, saes.JumpReLUTranscoderConfig),
    "jumprelu_skip_transcoder": (saes.JumpReLUSkipTranscoder, saes.JumpReLUSkipTranscoderConfig),
}
for name, pair in CLASSES.items():
    register_sae_class(name, *pair)
register_sae_training_class(
    "batchtopk", saes.BatchTopKTrainingSAE, saes.BatchTopKTrainingSAEConfig
)

# Directory, architecture, options of the config.
CASES = [
    ("standard", "standard", {"metadata": RESID, "apply_b_dec_to_input": True}),
    ("standard-plain", "standard", {"metadata": RESID, "apply_b_dec_to_input": False}),
    ("layer-norm", "standard", {"metadata": RESID, "normalize_activations": "layer_norm"}),
    ("constant-norm", "topk",
     {"metadata": RESID, "normalize_activations": "constant_norm_rescale", "k": 3}),
    ("hook-z", "standard", {"metadata": Z, "reshape_activations": "hook_z"}),
    ("gated", "gated", {"metadata": RESID, "apply_b_dec_to_input": True}),
    ("jumprelu", "jumprelu", {"metadata": RESID, "apply_b_dec_to_input": False}),
    ("topk", "topk", {"metadata": RESID, "k": 3}),
    ("topk-by-norm", "topk",
     {"metadata": RESID, "k": 3, "rescale_acts_by_decoder_norm": True}),
    ("transcoder", "transcoder", {"metadata": MLP, "d_out": OUT, "apply_b_dec_to_input": False}),
    ("transcoder-layer-norm", "transcoder",
     {"metadata": MLP, "d_out": OUT, "apply_b_dec_to_input": False,
      "normalize_activations": "layer_norm"}),
    ("skip-transcoder", "skip_transcoder",
     {"metadata": MLP, "d_out": OUT, "apply_b_dec_to_input": False}),
    ("jumprelu-transcoder", "jumprelu_transcoder",
     {"metadata": MLP, "d_out": OUT, "apply_b_dec_to_input": False}),
    ("jumprelu-skip-transcoder", "jumprelu_skip_transcoder",
     {"metadata": MLP, "d_out": OUT, "apply_b_dec_to_input": False}),
]


def draw(sae, generator):
    """Every parameter drawn anew; decoder rows of different lengths."""
    with torch.no_grad():
        for name, parameter in sorted(sae.named_parameters()):
            value = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            if name == "threshold":
                value = value.abs() * 0.5
            elif not name.startswith("W"):
                value = value * 0.3
            elif name == "W_dec":
                rows = torch.rand(len(value), 1, generator=generator, dtype=torch.float64)
                value = value * (0.5 + rows)
            parameter.copy_(value)


def expected(directory, x):
    """Latents and output as SAELens computes them from the directory."""
    sae = saes.SAE.load_from_disk(directory)
    with torch.no_grad():
        latents = sae.encode(x)
        return latents.flatten().tolist(), sae(x).flatten().tolist()


def main():
    generator = torch.Generator().manual_seed(3)
    root = HERE / "sae"
    shutil.rmtree(root, ignore_errors=True)
    entries = {}

    def record(name, x, directory=None):
        latents, out = expected(directory or root / name, x)
        shape = list(x.shape)
        entries[name] = {"shape": shape, "x": x.flatten().tolist(), "latents": latents, "out": out}

    for name, architecture, options in CASES:
        cls, config = CLASSES[architecture]
        options = dict(options, d_in=IN, d_sae=LATENTS, dtype="float64")
        options["metadata"] = saes.sae.SAEMetadata(**options["metadata"])
        sae = cls(config(**options))
        draw(sae, generator)
        sae.save_model(root / name)
        shape = (N, 2, IN // 2) if name == "hook-z" else (N, IN)
        record(name, torch.randn(shape, generator=generator, dtype=torch.float64) * 2 + 0.5)

    # BatchTopK in training, as a checkpoint holds it: SAELens itself runs it as a JumpReLU SAE.
    for name, rescale in [("batchtopk", False), ("batchtopk-by-norm", True)]:
        config = saes.BatchTopKTrainingSAEConfig(
            d_in=IN, d_sae=LATENTS, dtype="float64", k=2.5, rescale_acts_by_decoder_norm=rescale,
            metadata=saes.sae.SAEMetadata(**RESID),
        )
        sae = saes.BatchTopKTrainingSAE(config)
        draw(sae, generator)
        sae.topk_threshold.fill_(0.7)
        sae.save_model(root / name)
        inference = root / "inference"
        sae.save_inference_model(inference)
        x = torch.randn(N, IN, generator=generator, dtype=torch.float64) * 2
        record(name, x, inference)
        shutil.rmtree(inference)

    # The form of versions 3 to 5: everything at the top, TopK as an activation function, bfloat16.
    old = root / "old-topk"
    old.mkdir()
    weights = {k: v.to(torch.bfloat16) for k, v in load_file(root / "topk/sae_weights.safetensors").items()}
    weights["scaling_factor"] = torch.ones(LATENTS, dtype=torch.bfloat16)
    save_file(weights, old / "sae_weights.safetensors")
    cfg = {
        "hook_point": "blocks.0.hook_resid_post", "hook_point_layer": 0,
        "hook_point_head_index": None, "d_in": IN, "d_sae": LATENTS, "dtype": "torch.float32",
        "device": "cpu", "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 2},
        "normalize_activations": False, "prepend_bos": True, "context_size": 128,
        "model_name": "none", "dataset_path": "none", "lp_norm": 1.0,
    }
    (old / "cfg.json").write_text(json.dumps(cfg))
    record("old-topk", torch.randn(N, IN, generator=generator, dtype=torch.float32))

    # No file names the machine it was made on.
    for path in sorted(root.glob("*/cfg.json")):
        path.write_text(json.dumps(json.loads(path.read_text()), indent=1) + "\n")
    (HERE / "sae.json").write_text(json.dumps({"sae_lens": "6.54.12", "cases": entries}) + "\n")


main()
