"""Numbers of scikit-learn and tensorly on data drawn here: PCA, t-SNE's probabilities, divergence and gradient,
trustworthiness, HOSVD and Tucker.

    python data/golden/analysis/decompose.py

Writes decompose.json beside it. Origin: made by this script, from seed 0. Licence: MIT OR Apache-2.0.
Needs requirements.txt.
"""

import json
from pathlib import Path

import numpy as np
import tensorly
from scipy.spatial.distance import pdist, squareform
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE, trustworthiness
from sklearn.manifold._t_sne import _joint_probabilities, _kl_divergence
from tensorly.decomposition import tucker


def listed(x):
    """Rounded to 15 digits, which f64 keeps."""
    return [float(f"{v:.15g}") for v in np.asarray(x, dtype=np.float64).ravel()]


def pca(random):
    out = []
    for n, d in [(30, 6), (8, 12)]:
        x = random.normal(size=(n, d)) * (3.0 / (1 + np.arange(d))) @ random.normal(size=(d, d)) + 5
        x = np.array(listed(x)).reshape(n, d)
        k = 4
        fit = PCA(k, svd_solver="full").fit(x)
        out.append({
            "n": n, "d": d, "k": k, "x": listed(x), "components": listed(fit.components_), "scores": listed(fit.transform(x)),
            "variance": listed(fit.explained_variance_), "ratio": listed(fit.explained_variance_ratio_),
        })
    return out


def tsne(random):
    n, d, perplexity = 40, 5, 8.0
    x = random.normal(size=(n, d))
    x[20:] += 2.5
    x = np.array(listed(x)).reshape(n, d)
    # scikit-learn takes distances in f32, and entropies to 1e-5: the probabilities are good to about that.
    joint = _joint_probabilities(squareform(pdist(x, "sqeuclidean")).astype(np.float32), perplexity, 0)
    layout = np.array(listed(random.normal(size=(n, 2)))).reshape(n, 2)
    kl, gradient = _kl_divergence(layout.ravel(), joint, 1, n, 2)
    blobs = np.concatenate([random.normal(size=(50, 10)) + 4 * random.normal(size=10) for _ in range(4)])
    fits = [TSNE(2, perplexity=15, init="pca", method=method, random_state=0).fit(blobs) for method in ("exact", "barnes_hut")]
    return {
        "n": n, "d": d, "perplexity": perplexity, "x": listed(x), "p": listed(squareform(joint)), "layout": listed(layout),
        "kl": float(kl), "gradient": listed(gradient),
        "trustworthiness": {str(k): float(trustworthiness(x, layout, n_neighbors=k)) for k in (1, 5, 12)},
        "blobs": {
            "n": 200, "d": 10, "perplexity": 15, "x": listed(np.float32(blobs)),
            "kl": [float(fit.kl_divergence_) for fit in fits],
            "trustworthiness": [float(trustworthiness(blobs, fit.embedding_, n_neighbors=5)) for fit in fits],
        },
    }


def tensors(random):
    shape, ranks = (5, 9, 7), [2, 3, 3]
    x = random.normal(size=shape) * 0.3
    factors = [random.normal(size=(length, rank)) for length, rank in zip(shape, ranks)]
    x = x + tensorly.tenalg.multi_mode_dot(random.normal(size=ranks), factors)
    x = np.array(listed(x)).reshape(shape)

    def reconstruct(rounds):
        parts = tucker(tensorly.tensor(x), rank=ranks, init="svd", svd="truncated_svd", n_iter_max=rounds, tol=1e-14)
        return np.asarray(tensorly.tucker_to_tensor(parts))

    # HOSVD alone: singular vectors of the unfoldings, projected.
    bases = [np.linalg.svd(tensorly.unfold(x, mode), full_matrices=False)[0][:, :rank] for mode, rank in enumerate(ranks)]
    core = tensorly.tenalg.multi_mode_dot(x, [basis.T for basis in bases])
    hosvd = tensorly.tenalg.multi_mode_dot(core, bases)
    best = reconstruct(500)
    return {
        "shape": shape, "ranks": ranks, "x": listed(x), "hosvd": listed(hosvd), "tucker": listed(best),
        "hosvd_error": float(np.linalg.norm(x - hosvd) / np.linalg.norm(x)),
        "tucker_error": float(np.linalg.norm(x - best) / np.linalg.norm(x)),
    }


def main():
    random = np.random.default_rng(0)
    out = {"origin": "made by data/golden/analysis/decompose.py", "licence": "MIT OR Apache-2.0"}
    out |= {"pca": pca(random), "tsne": tsne(random), "tucker": tensors(random)}
    Path(__file__).with_suffix(".json").write_text(json.dumps(out) + "\n")


if __name__ == "__main__":
    main()
