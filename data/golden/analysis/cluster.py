"""Numbers of scikit-learn and scipy on data drawn here: k-means, silhouette, agreement of groupings, linkage, HDBSCAN.

    python data/golden/analysis/cluster.py

Writes cluster.json beside it. Origin: made by this script, from seed 1. Licence: MIT OR Apache-2.0.
Needs requirements.txt.
"""

import json
from pathlib import Path

import numpy as np
from scipy.cluster.hierarchy import fcluster, leaves_list, linkage
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, silhouette_samples, silhouette_score


def listed(x):
    """Rounded to 15 digits, which f64 keeps."""
    return [float(f"{v:.15g}") for v in np.asarray(x, dtype=np.float64).ravel()]


def blobs(random, n, d, k, apart, strays=0):
    centers = random.uniform(-apart, apart, size=(k, d))
    planted = np.arange(n) % k
    x = centers[planted] + random.normal(size=(n, d))
    if strays:
        x = np.concatenate([x, random.uniform(-3 * apart, 3 * apart, size=(strays, d))])
    return np.array(listed(x)).reshape(-1, d), planted.tolist()


def main():
    random = np.random.default_rng(1)
    out = {"origin": "made by data/golden/analysis/cluster.py", "licence": "MIT OR Apache-2.0"}
    x, planted = blobs(random, 90, 6, 4, 6)
    fit = KMeans(4, n_init=10, random_state=0).fit(x)
    many = KMeans(7, n_init=1000, random_state=0, tol=0).fit(x)
    out["kmeans"] = {
        "n": 90, "d": 6, "x": listed(x), "planted": planted, "labels": fit.labels_.tolist(), "inertia": float(fit.inertia_),
        "inertia_of_7": float(many.inertia_), "silhouette": float(silhouette_score(x, fit.labels_)),
        "silhouettes": listed(silhouette_samples(x, fit.labels_)),
    }
    pairs = []
    for n, a, b in [(30, 3, 4), (50, 6, 2), (12, 12, 3), (20, 1, 1), (20, 1, 3), (9, 9, 9)]:
        a, b = random.integers(0, a, n).tolist(), random.integers(0, b, n).tolist()
        pairs.append({"a": a, "b": b, "ari": float(adjusted_rand_score(a, b)), "nmi": float(normalized_mutual_info_score(a, b))})
    out["agreement"] = pairs
    y, _ = blobs(random, 25, 3, 3, 3)
    out["linkage"] = {"n": 25, "d": 3, "x": listed(y)}
    for method in ("ward", "average", "complete", "single"):
        table = linkage(y, method)
        out["linkage"][method] = {
            "table": listed(table), "leaves": leaves_list(table).tolist(), "four": fcluster(table, 4, "maxclust").tolist(),
        }
    z, _ = blobs(random, 120, 4, 3, 8, strays=12)
    fit = HDBSCAN(min_cluster_size=8, min_samples=8, copy=True).fit(z)
    out["hdbscan"] = {"n": len(z), "d": 4, "x": listed(z), "smallest": 8, "labels": fit.labels_.tolist()}
    Path(__file__).with_suffix(".json").write_text(json.dumps(out) + "\n")


if __name__ == "__main__":
    main()
