"""How alike two sets of vectors are, by reference packages and by definitions written out.

    python data/golden/analysis/compare.py

Procrustes and RSA are scipy's, canonical correlations statsmodels', SVCCA's components and the nearest neighbours scikit-learn's;
CKA, plain and debiased, is its definition with whole kernel matrices in numpy, PWCCA its definition on statsmodels' directions.

Origin: numbers drawn by this script from a seed. Licence: MIT OR Apache-2.0.
"""

import json
from pathlib import Path

import numpy as np
from scipy.linalg import orthogonal_procrustes
from scipy.spatial import procrustes
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from statsmodels.multivariate.cancorr import CanCorr

HERE = Path(__file__).resolve().parent


def centre(x):
    return x - x.mean(0)


def cka(x, y):
    k, l = (centre(t) @ centre(t).T for t in (x, y))
    return (k * l).sum() / np.sqrt((k * k).sum() * (l * l).sum())


def hsic(k, l):
    """Song's estimate, as it stands in Nguyen et al. 2021, equation 3."""
    n, one = len(k), np.ones(len(k))
    k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))
    whole = (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2))
    return (np.trace(k @ l) + whole - 2 / (n - 2) * (one @ k @ l @ one)) / (n * (n - 3))


def debiased(pairs):
    """Of one pair of sets, or of several batches."""
    kernels = [(x @ x.T, y @ y.T) for x, y in pairs]
    mean = [np.mean([hsic(kl[i], kl[j]) for kl in kernels]) for i, j in ((0, 1), (0, 0), (1, 1))]
    return mean[0] / np.sqrt(mean[1] * mean[2])


def neighbours(x, k):
    near = NearestNeighbors(n_neighbors=k, metric="cosine").fit(x)
    return near.kneighbors(return_distance=False)  # of the points themselves: without each itself


def canonical(x, y):
    """Correlations and PWCCA's weighted mean: x must have the fewer columns."""
    found = CanCorr(centre(y), centre(x))  # endog, exog
    correlations = np.asarray(found.cancorr)
    variates = centre(x) @ np.asarray(found.x_cancoef)
    variates /= np.linalg.norm(variates, axis=0)
    weights = np.abs(variates.T @ centre(x)).sum(1)
    return correlations, (correlations * weights).sum() / weights.sum()


def case(name, x, y, k, batch):
    k_x, k_y = neighbours(x, k), neighbours(y, k)
    mutual = np.mean([len(set(a) & set(b)) / k for a, b in zip(k_x, k_y)])
    width = max(x.shape[1], y.shape[1])
    padded = [np.pad(t, ((0, 0), (0, width - t.shape[1]))) for t in (x, y)]
    _, _, disparity = procrustes(*padded)
    _, scale = orthogonal_procrustes(centre(padded[0]), centre(padded[1]))
    correlations, weighted = canonical(x, y)
    cut = [PCA(n_components=0.9, svd_solver="full").fit_transform(t) for t in (x, y)]
    svcca = np.asarray(CanCorr(cut[1], cut[0]).cancorr).mean()
    batches = [(x[i:i + batch], y[i:i + batch]) for i in range(0, len(x), batch)]
    return dict(
        name=name, x=x.tolist(), y=y.tolist(), k=k, batch=batch, cka=cka(x, y), cka_debiased=debiased([(x, y)]),
        cka_minibatch=debiased(batches), disparity=disparity, nuclear=scale, cca=correlations.tolist(), pwcca=weighted,
        svcca=svcca, kept=[t.shape[1] for t in cut], mutual=mutual,
        rsa=spearmanr(pdist(x, "correlation"), pdist(y, "correlation")).statistic)


def main():
    random = np.random.default_rng(7)
    common = random.normal(size=(40, 3))
    x = np.round(common @ random.normal(size=(3, 4)) + 0.5 * random.normal(size=(40, 4)) + 2.0, 6)
    y = np.round(common @ random.normal(size=(3, 6)) + 0.8 * random.normal(size=(40, 6)), 6)
    apart = np.round(random.normal(size=(40, 6)) * np.arange(1, 7), 6)
    document = dict(origin="numbers drawn by data/golden/analysis/compare.py", licence="MIT OR Apache-2.0",
                    cases=[case("a common part", x, y, 5, 20), case("independent", x, apart, 3, 10)])
    path = HERE / "compare.json"
    path.write_text(json.dumps(document, separators=(",", ":")) + "\n")
    print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
