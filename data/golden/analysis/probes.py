"""Linear probes by scikit-learn, for tests/hidden/probes.rs.

    python data/golden/analysis/probes.py

Writes probes.json beside this file: data drawn from a seed, and what LogisticRegression,
RidgeClassifier, LinearDiscriminantAnalysis and NearestCentroid make of them. Packages as in
requirements.txt. Origin: made by this script. Licence: MIT OR Apache-2.0.
"""

import json
from pathlib import Path

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import StandardScaler


def data(rng, n, d, classes, apart):
    y = np.arange(n) % classes
    centres = rng.normal(size=(classes, d)) * apart
    scale = np.exp(rng.normal(size=d) * 0.7)
    x = (centres[y] + rng.normal(size=(n, d))) * scale + rng.normal(size=d)
    return np.round(x, 6), y


def fitted(model, x, y):
    model.fit(x, y)
    return {
        "weights": np.atleast_2d(model.coef_).tolist(),
        "bias": np.atleast_1d(model.intercept_).tolist(),
        "predicted": model.predict(x).tolist(),
    }


def standardised(model, x, y):
    """Weights and bias for the data as they are."""
    scaler = StandardScaler().fit(x)
    model.fit(scaler.transform(x), y)
    weights = np.atleast_2d(model.coef_) / scaler.scale_
    return {
        "weights": weights.tolist(),
        "bias": (np.atleast_1d(model.intercept_) - weights @ scaler.mean_).tolist(),
        "predicted": model.predict(scaler.transform(x)).tolist(),
    }


def logistic(l2):
    return LogisticRegression(C=1 / l2, tol=1e-13, max_iter=1000, solver="newton-cholesky")


def case(name, rng, n, d, classes, apart, shrinkage):
    x, y = data(rng, n, d, classes, apart)
    return {
        "name": name,
        "x": x.tolist(),
        "y": y.tolist(),
        "l2": 0.7,
        "alpha": 3.0,
        "shrinkage": shrinkage,
        "logistic": fitted(logistic(0.7), x, y),
        "logistic standardised": standardised(logistic(0.7), x, y),
        "ridge": fitted(RidgeClassifier(alpha=3.0), x, y),
        "lda": fitted(LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage or None), x, y),
        "nearest centroid": NearestCentroid().fit(x, y).predict(x).tolist(),
    }


def main():
    rng = np.random.default_rng(7)
    cases = [
        case("two classes", rng, 60, 6, 2, 0.4, 0.0),
        case("three classes", rng, 75, 5, 3, 0.5, 0.3),
        case("wide", rng, 20, 32, 2, 0.3, 0.5),
        case("wide, four classes", rng, 24, 30, 4, 0.3, 0.2),
    ]
    path = Path(__file__).with_suffix(".json")
    origin = {"made by": "data/golden/analysis/probes.py", "licence": "MIT OR Apache-2.0"}
    path.write_text(json.dumps({**origin, "cases": cases}) + "\n")


main()
