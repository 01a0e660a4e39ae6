"""How long a reader waits, beside stock evcxr_jupyter on the same prebuilt folder: `cargo lab --latency 5`.

Each round starts both kernels anew, one after the other, in an order drawn by `--seed`. Stock needs one more cell,
`:dep thalweg` and the prelude's import; it counts in what is measured from the start and not in a cell's own time.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import time

import client
from client import NOTEBOOKS, Kernel

KINDS = {"thalweg": {"THALWEG_SPARE": "1"}, "stock": {"THALWEG_STOCK": "1"}}
DEPENDENCY = ':dep thalweg = { path = ".." }\nuse thalweg::prelude::*;'
SMALL = [
    "1 + 1",
    "let depth = 3;",
    "depth * 2",
    'println!("{depth}");',
    "model.config().n_layers",
    "tokens.batch()",
    "model.top(&tokens, 3)?",
    "let z = run.cache.get(Point::ResidPost.at(0))?;",
    'format!("{:?}", run.logits.size())',
    "heatmap(&resid_norms(&run.cache)?)?",
]
# What is measured, and the ratio to stock that is aimed at.
LANES = {
    "kernel_info": 0.2,
    "ready: the first cell, `1`": None,
    "from the start to the first `let` of the model": None,
    "from the start to the first figure of 01 (cold)": 0.6,
    "the first `let` of the model, its cell alone": None,
    "the first figure of 01, its cell alone": None,
    "median of ten small cells": 0.35,
    "restart to kernel_info": None,
    "restart to the first figure of 01 (warm spare)": 0.2,
}


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--pause", type=float, default=30, help="seconds of reading before the restart")
    arguments.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS, help="for trying out")
    arguments.add_argument("--one", choices=KINDS, help="measure one kernel once, as JSON")
    options = arguments.parse_args()
    client.PATIENCE, client.checked = 600, lambda message: message  # stock's messages break the protocol
    if options.one:
        print(json.dumps(measured(options.one, options.pause)))
        return
    draw = random.Random(options.seed)
    times = {kind: {lane: [] for lane in LANES} for kind in options.kinds}
    for number in range(1, options.rounds + 1):
        for kind in draw.sample(options.kinds, len(options.kinds)):
            for lane, seconds in apart(kind, options.pause).items():
                times[kind][lane].append(seconds)
            told = ", ".join(f"{seconds[-1]:.2f}" for seconds in times[kind].values())
            print(f"round {number}, {kind}: {told}", flush=True)
    print(table(times))


def apart(kind, pause):
    """`measured` in a front end of its own: a spare belongs to its front end, and a cold start must find none."""
    one = [sys.executable, __file__, "--one", kind, "--pause", str(pause)]
    seconds = json.loads(subprocess.run(one, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])
    time.sleep(3)  # the last kernels end
    return seconds


def measured(kind, pause):
    """Seconds of each lane, for one kernel from its start to its end."""
    clock = Clock()
    kernel = Kernel(environment=KINDS[kind])
    try:
        seconds = {"kernel_info": clock.after(lambda: kernel.ask("kernel_info"))}
        seconds["ready: the first cell, `1`"] = clock.after(lambda: run(kernel, "1"))
        cells = to_first_figure()
        if kind == "stock":
            run(kernel, DEPENDENCY)
        seconds["the first `let` of the model, its cell alone"] = run(kernel, cells[0])
        seconds["from the start to the first `let` of the model"] = clock.now()
        alone = [run(kernel, cell) for cell in cells[1:]]
        seconds["the first figure of 01, its cell alone"] = alone[-1]
        seconds["from the start to the first figure of 01 (cold)"] = clock.now()
        seconds["median of ten small cells"] = statistics.median(run(kernel, cell) for cell in SMALL)
        time.sleep(pause)
        clock = Clock()
        kernel.restart()
        seconds["restart to kernel_info"] = clock.after(lambda: kernel.ask("kernel_info"))
        for cell in [DEPENDENCY] * (kind == "stock") + cells:
            run(kernel, cell)
        seconds["restart to the first figure of 01 (warm spare)"] = clock.now()
    finally:
        kernel.stop()
    return seconds


class Clock:
    def __init__(self):
        self.began = time.monotonic()

    def now(self):
        return time.monotonic() - self.began

    def after(self, work):
        work()
        return self.now()


def run(kernel, code):
    """Seconds until the cell's reply and all its outputs are here."""
    clock = Clock()
    cell = kernel.run(code)
    if cell.status != "ok":
        raise SystemExit(f"the cell failed:\n{code}\n{cell.told}{cell.stderr}")
    return clock.now()


def to_first_figure():
    """The code cells of 01 up to and with the one that draws first."""
    (path,) = NOTEBOOKS.glob("01*.ipynb")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    codes = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    first = next(index for index, code in enumerate(codes) if "heatmap(" in code)
    return codes[: first + 1]


def table(times):
    """The medians as Markdown, in seconds, with the fastest and slowest round, and the ratios."""
    kinds = list(times)
    lines = ["| what | " + " | ".join(f"{kind}, s" for kind in kinds) + " | ratio | aim |", "|---" * (len(kinds) + 3) + "|"]
    for lane, aim in LANES.items():
        medians = {kind: statistics.median(times[kind][lane]) for kind in kinds}
        shown = [f"{medians[kind]:.2f} ({min(times[kind][lane]):.2f}-{max(times[kind][lane]):.2f})" for kind in kinds]
        ratio = f"{medians['thalweg'] / medians['stock']:.2f}" if len(kinds) == 2 else ""
        lines.append(f"| {lane} | {' | '.join(shown)} | {ratio} | {f'at most {aim}' if aim else ''} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
