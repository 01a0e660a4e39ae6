"""The same forward pass in thalweg, transformers and TransformerLens, interleaved in one run: prints one table of ratios.

    python benches/peers/peers.py --bridge-python OTHER/bin/python [--pairs 300] [--patchings 10] [--threads 2] [--clock wall]

Run it in a Python with requirements.txt installed; --bridge-python is one with requirements-bridge.txt (without it the
TransformerBridge is left out). It needs cargo and a libtorch set up as for `cargo bench`. The model is random: d_model 512,
8 layers, 8 heads, 4 key/value heads, d_mlp 1376, 8000 words; one prompt of 64 tokens, float32.

Then the same activation patching: the stream into every layer and each of 24 positions (a prompt of 24 tokens), as TransformerLens'
`patching.get_act_patch_resid_pre` does it, cell by cell; and thalweg's beside its own loop of runs, also for 64 positions. The prompts
differ at a third of the way, and thalweg need not run the cells before; where they differ from the first token on, it must run all.

Every contestant is a process that holds the model and is asked for one timed pass at a time. A round asks each of them once,
in an order that turns from round to round, so that a slow moment of the machine meets all alike. A ratio is the median of
the ratios within rounds, with a 95 % bootstrap interval; two processes of the same contestant show what a ratio of nothing
looks like. Other load on the machine widens the intervals and should be absent; where it cannot be, `--clock cpu` takes the
processor time of a pass, all threads together, which other load changes far less than the time on the wall (Linux only).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
SHAPE = dict(hidden_size=512, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=4, intermediate_size=1376,
             vocab_size=8000, max_position_embeddings=128)
LENGTH = 64


def write_model(folder):
    """A random Llama of the shape, one prompt, and a tokenizer of numbers (the TransformerBridge insists on one)."""
    import torch
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SHAPE)).save_pretrained(folder)
    ids = torch.randint(2, SHAPE["vocab_size"], (LENGTH,))
    (folder / "ids.txt").write_text(" ".join(map(str, ids.tolist())))
    words = {str(i): i for i in range(SHAPE["vocab_size"])}
    Tokenizer(models.WordLevel(words, unk_token="0")).save(str(folder / "tokenizer.json"))
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "0", "eos_token": "1"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))


def build_child(name="peer_child"):
    """Builds the bench of this name with optimisation; returns the path of its executable."""
    command = ["cargo", "bench", "--no-run", "--bench", name, "--message-format", "json"]
    out = subprocess.run(command, cwd=HERE, stdout=subprocess.PIPE, check=True, text=True).stdout
    messages = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    return [m["executable"] for m in messages if m.get("executable") and m["target"]["name"] == name][-1]


class Contestant:
    """A child process that answers one line with one line."""

    def __init__(self, command, threads, clock):
        env = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        if clock == "cpu":
            env["OMP_WAIT_POLICY"] = "passive"  # a thread that spins while it waits would count as working
        self.clock = clock
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self.process.args}: ended without an answer to {line!r}")
        return [float(x) for x in answer.split()]

    def busy(self):
        """Nanoseconds that the process's threads have run; exact while it waits for a line."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)

    def time(self, mode):
        """Milliseconds of one pass, or of one patching, whose mode says over how many positions: "patching 24"."""
        line = " ".join([*mode.split()[:1], "1", *mode.split()[1:]])
        if self.clock == "wall":
            return self.ask(line)[0] / 1e6
        before = self.busy()
        self.ask(line)
        return (self.busy() - before) / 1e6

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def ratio(a, b, random):
    """Median of a/b within rounds, and its 95 % bootstrap interval."""
    r = np.array(a) / np.array(b)
    draws = np.median(r[random.integers(0, len(r), (2000, len(r)))], axis=1)
    return np.median(r), *np.quantile(draws, [0.025, 0.975])


def measure(lanes, pairs):
    """lanes: name -> (contestant, mode). Milliseconds by name, one value a round."""
    times, names = {name: [] for name in lanes}, list(lanes)
    for contestant, mode in lanes.values():
        contestant.time(mode)  # warm
    for turn in range(pairs):
        for name in names[turn % len(names):] + names[: turn % len(names)]:
            contestant, mode = lanes[name]
            time.sleep(0.002)  # lets the threads of the one before fall asleep
            times[name].append(contestant.time(mode))
        if sys.stderr.isatty():
            print(f"\rround {turn + 1} of {pairs}", end="", file=sys.stderr)
    return times


ROWS = [  # what is compared with what
    ("thalweg forward", "thalweg forward, a second process"),
    ("thalweg forward", "transformers sdpa"),
    ("thalweg forward", "transformers eager"),
    ("thalweg forward", "HookedTransformer forward"),
    ("thalweg forward", "TransformerBridge forward"),
    ("thalweg eager", "transformers eager"),
    ("thalweg everything cached", "thalweg forward"),
    ("thalweg everything cached", "thalweg eager"),
    ("thalweg residuals cached", "thalweg forward"),
    ("thalweg everything cached", "HookedTransformer everything cached"),
    ("thalweg everything cached", "TransformerBridge everything cached"),
    ("HookedTransformer everything cached", "HookedTransformer forward"),
    ("TransformerBridge everything cached", "TransformerBridge forward"),
    ("TransformerBridge forward", "transformers eager"),
]


PATCHING_ROWS = [
    ("thalweg patching", "thalweg patching, a second process"),
    ("HookedTransformer patching", "thalweg patching"),
    ("HookedTransformer patching", "thalweg patching, first tokens differ"),
    ("TransformerBridge patching", "thalweg patching"),
    ("TransformerBridge patching", "thalweg patching, first tokens differ"),
    ("thalweg patching, a run each", "thalweg patching"),
    ("thalweg patching of 64 positions, a run each", "thalweg patching of 64 positions"),
]


def report(times, rows, pairs, threads, clock):
    random = np.random.default_rng(0)
    print(f"\n{pairs} interleaved rounds, {threads} threads, {clock} time, float32\n")
    for name, values in times.items():
        low, mid, high = np.quantile(values, [0.1, 0.5, 0.9])
        print(f"{name:46} {mid:9.1f} ms   (10 % to 90 %: {low:.1f} to {high:.1f})")
    print(f"\n{'ratio of times':96} median   95 % interval")
    for a, b in rows:
        if a in times and b in times:
            mid, low, high = ratio(times[a], times[b], random)
            print(f"{a + ' / ' + b:96} {mid:6.3f}   {low:.3f} to {high:.3f}")


def patching_lanes(peers):
    """The patchings, after a look that all find the same effects."""
    lanes = {
        "thalweg patching": (peers["ours"], "patching 24"),
        "thalweg patching, a second process": (peers["ours again"], "patching 24"),
        "thalweg patching, first tokens differ": (peers["ours"], "patching 24 0"),
        "thalweg patching, a run each": (peers["ours"], "naive 24"),
        "thalweg patching of 64 positions": (peers["ours"], "patching 64"),
        "thalweg patching of 64 positions, a run each": (peers["ours"], "naive 64"),
        "HookedTransformer patching": (peers["hooked"], "patching 24"),
    }
    if "bridge" in peers:
        lanes["TransformerBridge patching"] = (peers["bridge"], "patching 24")
    truth = np.array(peers["hooked"].ask("effects 24"))
    for name in {"ours", "bridge"} & set(peers):
        gap = np.abs(np.array(peers[name].ask("effects 24")) - truth).max() / np.abs(truth).max()
        if gap > 1e-4:
            raise SystemExit(f"{name} finds other effects: {gap:.1e} of the largest from those of HookedTransformer")
    return lanes


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bridge-python", help="a Python with requirements-bridge.txt")
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--patchings", type=int, default=10, help="rounds of the patching, 0 to leave it out")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_model(folder)
        rust = [build_child(), str(folder)]
        python = lambda kind, exe=sys.executable: [exe, str(HERE / "child.py"), kind, str(folder)]
        commands = {"ours": rust, "ours again": rust, **{k: python(k) for k in ("sdpa", "eager", "hooked")}}
        if options.bridge_python:
            commands["bridge"] = python("bridge", options.bridge_python)
        peers = {name: Contestant(command, options.threads, options.clock) for name, command in commands.items()}
        lanes = {
            "thalweg forward": (peers["ours"], "forward"),
            "thalweg forward, a second process": (peers["ours again"], "forward"),
            "thalweg eager": (peers["ours"], "eager"),
            "thalweg residuals cached": (peers["ours"], "residuals"),
            "thalweg everything cached": (peers["ours"], "cached"),
            "transformers sdpa": (peers["sdpa"], "forward"),
            "transformers eager": (peers["eager"], "forward"),
            "HookedTransformer forward": (peers["hooked"], "forward"),
            "HookedTransformer everything cached": (peers["hooked"], "cached"),
        }
        if "bridge" in peers:
            lanes["TransformerBridge forward"] = (peers["bridge"], "forward")
            lanes["TransformerBridge everything cached"] = (peers["bridge"], "cached")
        truth = np.array(peers["eager"].ask("logits"))
        for name, peer in peers.items():
            gap = np.abs(np.array(peer.ask("logits")) - truth).max() / np.abs(truth).max()
            if gap > 1e-4:
                raise SystemExit(f"{name} computes something else: its logits are {gap:.1e} from those of transformers")
        if options.pairs:
            report(measure(lanes, options.pairs), ROWS, options.pairs, options.threads, options.clock)
        if options.patchings:
            lanes = patching_lanes(peers)
            report(measure(lanes, options.patchings), PATCHING_ROWS, options.patchings, options.threads, options.clock)
        for peer in peers.values():
            peer.close()


if __name__ == "__main__":
    main()
