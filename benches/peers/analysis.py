"""PCA, linear CKA, t-SNE, silhouette and k-means in thalweg and scikit-learn, interleaved in one run: prints one table of ratios.

    python benches/peers/analysis.py [--rounds 7] [--threads 2] [--only pca tsne]

Run it in a Python with requirements-analysis.txt installed; it needs cargo and a libtorch set up as for `cargo bench`. Data are
drawn here, f64, twenty blobs, and both sides read the same file. Sizes are those of benches/analysis.rs. CKA, which
scikit-learn lacks, is its definition in numpy.

Each side is a process that holds the data and does the task once when asked. A round asks each side once, in an order
drawn anew. A ratio is the median of the ratios within rounds, with its 95 % bootstrap interval; both of the time on the wall and of
processor time, all threads together, which other load changes far less (Linux only).
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from peers import Contestant, build_child, ratio

SHAPES = dict(pca=(20_000, 2048), pca_randomized=(20_000, 2048), cka=(20_000, 512), tsne=(5_000, 50),
              silhouette=(10_000, 64), kmeans=(20_000, 128))


def draw(task, path):
    n, d = SHAPES[task]
    random = np.random.default_rng(0)
    centers = 3 * random.normal(size=(20, d))
    np.save(path, centers[np.arange(n) % 20] + random.normal(size=(n, d)))


def work(task, x):
    """A function that does the task once in scikit-learn and returns a number of the result."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from sklearn.metrics import silhouette_score

    def explained(**options):
        fit = PCA(10, **options)
        fit.fit_transform(x)
        return fit.explained_variance_ratio_.sum()

    def cka(y):
        a, b = x - x.mean(0), y - y.mean(0)
        return ((a.T @ b) ** 2).sum() / np.sqrt(((a.T @ a) ** 2).sum() * ((b.T @ b) ** 2).sum())

    def kl():
        fit = TSNE(2, perplexity=30, init="pca", learning_rate="auto", random_state=0, n_jobs=None)
        fit.fit_transform(x)
        return fit.kl_divergence_

    other = np.roll(x, 1, axis=1) * np.sin(x) if task == "cka" else None
    return {
        "pca": lambda: explained(svd_solver="covariance_eigh"),
        "pca_randomized": lambda: explained(svd_solver="randomized", iterated_power=4, n_oversamples=10, random_state=0),
        "cka": lambda: cka(other),
        "tsne": kl,
        "silhouette": lambda: silhouette_score(x, np.arange(len(x)) % 20),
        "kmeans": lambda: KMeans(20, n_init=10, random_state=0).fit(x).inertia_,
    }[task]


def child(task, path):
    once = work(task, np.load(path))
    for _ in sys.stdin:
        start = time.perf_counter_ns()
        found = once()
        print(time.perf_counter_ns() - start, found, flush=True)


def measure(sides, rounds, random):
    """Seconds on the wall and of processor by side, and the last number of each."""
    wall, cpu, found = ({name: [] for name in sides} for _ in range(3))
    for turn in range(rounds + 1):
        for name in random.permutation(list(sides)):
            before = sides[name].busy()
            taken, number = sides[name].ask("run")
            if turn > 0 or rounds == 0:  # the first warms
                wall[name].append(taken / 1e9)
                cpu[name].append((sides[name].busy() - before) / 1e9)
            found[name] = number
    return wall, cpu, found


def main():
    if sys.argv[1:2] == ["child"]:
        return child(*sys.argv[2:])
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7, help="beside one that warms; 0 takes that one")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=list(SHAPES))
    options = parser.parse_args()
    os.environ["OPENBLAS_NUM_THREADS"] = str(options.threads)
    random, binary = np.random.default_rng(0), build_child("analysis_peer")
    print(f"{options.rounds} rounds, {options.threads} threads, f64; medians\n")
    print("| task | thalweg, s (processor) | scikit-learn, s (processor) | ratio on the wall | ratio of processor time | results |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for task in options.only:
            path = str(Path(folder) / "data.npy")
            draw(task, path)
            commands = {"thalweg": [binary, task, path], "scikit-learn": [sys.executable, __file__, "child", task, path]}
            sides = {name: Contestant(command, options.threads, "cpu") for name, command in commands.items()}
            wall, cpu, found = measure(sides, options.rounds, random)
            for side in sides.values():
                side.close()
            seconds = [f"{np.median(wall[name]):.2f} ({np.median(cpu[name]):.2f})" for name in sides]
            ratios = ["{:.2f} ({:.2f} to {:.2f})".format(*ratio(times["thalweg"], times["scikit-learn"], random)) for times in (wall, cpu)]
            results = " / ".join(f"{found[name]:.6g}" for name in sides)
            n, d = SHAPES[task]
            print(f"| {task}, {n} x {d} | " + " | ".join(seconds + ratios + [results]) + " |", flush=True)


if __name__ == "__main__":
    main()
