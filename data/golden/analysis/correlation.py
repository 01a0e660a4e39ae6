"""Correlations of scipy and statsmodels, for the tests of src/analysis/correlate.

Writes correlation.json beside itself. Inputs are drawn here from a seed (or are Anscombe's quartet, whose
numbers are facts of the literature) and stored with the answers. Origin: made by this script. Licence:
MIT OR Apache-2.0.

    pip install -r data/golden/analysis/requirements.txt
    python data/golden/analysis/correlation.py
"""

import json
from pathlib import Path

import numpy as np
from scipy import stats
from statsmodels.api import OLS, add_constant
from statsmodels.stats.multitest import multipletests

rng = np.random.default_rng(5)


def distance_correlation(x, y):
    """Szekely, Rizzo and Bakirov 2007, the definition (V-statistic)."""

    def centred(x):
        d = np.abs(x[:, None] - x[None, :])
        return d - d.mean(0)[None, :] - d.mean(1)[:, None] + d.mean()

    a, b = centred(x), centred(y)
    return float(np.sqrt((a * b).mean() / np.sqrt((a * a).mean() * (b * b).mean())))


def partial(x, y, given):
    """Correlation of the residuals of ordinary least squares, with its p value."""
    z = add_constant(np.column_stack(given))
    rx, ry = OLS(x, z).fit().resid, OLS(y, z).fit().resid
    r = float(np.corrcoef(rx, ry)[0, 1])
    df = len(x) - 2 - len(given)
    t = r * np.sqrt(df / (1 - r * r))
    return {"r": r, "p": float(2 * stats.t.sf(abs(t), df))}


def case(name, x, y, given=()):
    x, y = np.asarray(x, float), np.asarray(y, float)
    pearson, spearman = stats.pearsonr(x, y), stats.spearmanr(x, y)
    found = {
        "name": name,
        "x": x.tolist(),
        "y": y.tolist(),
        "given": [np.asarray(z, float).tolist() for z in given],
        "pearson": {"r": float(pearson.statistic), "p": float(pearson.pvalue)},
        "spearman": {"r": float(spearman.statistic), "p": float(spearman.pvalue)},
        "ranks": stats.rankdata(x).tolist(),
        "distance": distance_correlation(x, y),
    }
    if given:
        found["partial"] = partial(x, y, given)
    if len(x) <= 6:
        exact = stats.permutation_test(
            (y,),
            lambda y: np.corrcoef(x, y)[0, 1],
            permutation_type="pairings",
            n_resamples=np.inf,
            alternative="two-sided",
        )
        # two-sided as twice the smaller tail in scipy; here as the share of larger magnitudes
        null = np.abs(exact.null_distribution)
        found["permutation"] = float((null >= abs(exact.statistic) - 1e-12).mean())
    return found


x = rng.normal(size=40)
z = rng.normal(size=40)
w = rng.normal(size=40) * 100 + 7
noisy = 0.4 * x + z + 0.01 * w + rng.normal(size=40)
ties = rng.integers(0, 4, size=30).astype(float)
few = rng.normal(size=6)
anscombe = [10, 8, 13, 9, 11, 14, 6, 4, 12, 7, 5]
quartet = [
    (anscombe, [8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68]),
    (anscombe, [9.14, 8.14, 8.74, 8.77, 9.26, 8.10, 6.13, 3.10, 9.13, 7.26, 4.74]),
    (anscombe, [7.46, 6.77, 12.74, 7.11, 7.81, 8.84, 6.08, 5.39, 8.15, 6.42, 5.73]),
    ([8] * 7 + [19] + [8] * 3, [6.58, 5.76, 7.71, 8.84, 8.47, 7.04, 5.25, 12.50, 5.56, 7.91, 6.89]),
]
cases = [
    case("noisy line", x, noisy, [z]),
    case("two given", x, noisy, [z, w]),
    case("ties", ties, ties + rng.integers(0, 3, size=30)),
    case("parabola", x, x * x + 0.1 * rng.normal(size=40)),
    case("six", few, few + rng.normal(size=6)),
] + [case(f"Anscombe {i + 1}", x, y) for i, (x, y) in enumerate(quartet)]

p = np.concatenate([rng.uniform(size=20), rng.uniform(size=6) * 0.01, [0.02, 0.02, 1.0]])
rng.shuffle(p)
adjusted = {
    method: multipletests(p, method=method)[1].tolist() for method in ["fdr_bh", "fdr_by"]
}
text = json.dumps({"cases": cases, "p": p.tolist(), "adjusted": adjusted}, indent=1)
Path(__file__).with_suffix(".json").write_text(text + "\n")
