"""Goldens of edge attribution patching and of circuits: the published code of EAP-IG (Hanna, Pezzelle & Belinkov 2024,
https://github.com/hannamw/EAP-IG, MIT, commit 795f5607), run on the random model data/golden/mha-bf16-shards in float64.
Its numbers alone are kept, none of its code. It knows a key for every query head, hence a model without groups.

Made by this script from seed 7; licence: MIT OR Apache-2.0. Run with the versions of data/golden/requirements.txt and
a clone of that commit:

    git clone https://github.com/hannamw/EAP-IG && git -C EAP-IG checkout 795f5607
    python data/golden/analysis/eap_ig.py EAP-IG
"""

import json
import pathlib
import sys
from unittest import mock

import torch

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(pathlib.Path(sys.argv[1]) / "src")]

sys.modules["eap.visualization"] = mock.MagicMock()  # draws, with packages that nothing here needs

import make_golden  # noqa: E402
from eap import attribute, evaluate  # noqa: E402
from eap.graph import Graph  # noqa: E402

FOLDER = HERE.parent / "mha-bf16-shards"
RIGHT, WRONG, STEPS, SIZES = 5, 11, 6, [3, 10, 25, 50, 80, 110]


class OnThisDevice:
    """torch, whose `zeros` puts nothing on a GPU: the code names one where this model needs none."""

    def __getattr__(self, name):
        return getattr(torch, name)

    def zeros(self, *size, device=None, **options):
        return torch.zeros(*size, **options)


def ids_as_they_are(model, rows, max_length=None):
    """In place of the tokenizer: prompts are ids, all of one length."""
    tokens = torch.tensor(rows)
    return tokens, torch.ones_like(tokens), torch.full((len(rows),), tokens.shape[1]), tokens.shape[1]


def metric(logits, clean_logits, lengths, labels):
    return logits[:, -1, RIGHT] - logits[:, -1, WRONG]


def main():
    attribute.torch = evaluate.torch = OnThisDevice()
    attribute.tokenize_plus = evaluate.tokenize_plus = ids_as_they_are
    config = json.loads((FOLDER / "config.json").read_text())
    weights = {name: tensor.double() for name, tensor in make_golden.read_weights(FOLDER).items()}
    model = make_golden.lens_model(config, weights, torch.float64, True, 40)
    clean, corrupt = torch.randint(3, 61, (2, 3, 6), generator=torch.Generator().manual_seed(7)).tolist()
    data = [(clean, corrupt, None)]
    golden = {"origin": "made by data/golden/analysis/eap_ig.py", "licence": "MIT OR Apache-2.0", "model": FOLDER.name,
              "clean": clean, "corrupt": corrupt, "right": RIGHT, "wrong": WRONG, "steps": STEPS, "methods": {}}
    total = lambda *args: metric(*args).sum()
    for name, scores in [("EAP", lambda graph: attribute.get_scores_eap(model, graph, data, total, quiet=True)),
                         ("EAP-IG", lambda graph: attribute.get_scores_eap_ig(model, graph, data, total, STEPS, quiet=True))]:
        graph = Graph.from_model(model)
        exact = scores(graph)
        graph.scores[:] = exact
        found = {"scores": (exact * graph.real_edge_mask).tolist(), "circuits": []}
        for choice in ("Top", "Greedy"):
            for n in SIZES:
                (graph.apply_topn if choice == "Top" else graph.apply_greedy)(n)
                values = evaluate.evaluate_graph(model, graph, data, metric, quiet=True)
                edges = graph.in_graph.logical_and(graph.real_edge_mask).nonzero().tolist()
                found["circuits"].append({"choice": choice, "n": n, "edges": edges, "metric": values.tolist()})
        golden["methods"][name] = found
    short = json.loads(json.dumps(golden), parse_float=lambda x: float(f"{float(x):.15g}"))
    (HERE / "eap_ig.json").write_text(json.dumps(short, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
