"""Runs notebooks on models whose weights are shuffled, to see that their assertions bite.

Each notebook runs in a folder of its own that looks like the clone: `notebooks/` to work in, and `data/` beside it with
everything as it is but `models/`, where each model is the same with every weight tensor in a random order. A first
hidden cell makes those models and replaces `assert!`, `assert_eq!` and `assert_ne!` by macros that tell what each assertion found and go on,
so that each is tried. A notebook passes if at least one bites and no cell fails in another way before one has.
"""

import argparse
import asyncio
import pathlib
import re
import sys
import tempfile
import time

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

import run_notebook
from run_notebook import CellFailed

MACROS = """
macro_rules! told_of_assertion {
    ($holds:expr, $($words:tt)+) => {
        println!("assertion {}: {}", if $holds { "holds" } else { "bites" }, format!($($words)+))
    };
}
macro_rules! assert {
    ($holds:expr $(,)?) => { told_of_assertion!($holds, "{}", stringify!($holds)) };
    ($holds:expr, $($words:tt)+) => { told_of_assertion!($holds, $($words)+) };
}
macro_rules! assert_eq {
    ($left:expr, $right:expr $(,)?) => { told_of_assertion!($left == $right, "{} == {}", stringify!($left), stringify!($right)) };
    ($left:expr, $right:expr, $($words:tt)+) => { told_of_assertion!($left == $right, $($words)+) };
}
macro_rules! assert_ne {
    ($left:expr, $right:expr $(,)?) => { told_of_assertion!($left != $right, "{} != {}", stringify!($left), stringify!($right)) };
    ($left:expr, $right:expr, $($words:tt)+) => { told_of_assertion!($left != $right, $($words)+) };
}
"""
TOLD = re.compile(r"^assertion (holds|bites): (.*)$", re.MULTILINE)
SEED = 1


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("notebooks", type=pathlib.Path, nargs="+")
    arguments.add_argument("--data", type=pathlib.Path, required=True, help="the clone's data folder")
    arguments.add_argument("--jobs", type=int, default=2, help="kernels at a time")
    options = arguments.parse_args()
    loading = [path for path in options.notebooks if loads_a_model(nbformat.read(path, as_version=4))]
    for path in options.notebooks:
        if path not in loading:
            print(f"{path.stem} loads no model of data/models", flush=True)
    bitten = asyncio.run(all_of(loading, options))
    run_notebook.close(sum(bitten), len(bitten) - sum(bitten))


def loads_a_model(notebook):
    return any("data/models" in cell.source for cell in notebook.cells if cell.cell_type == "code")


async def all_of(notebooks, options):
    turns = asyncio.Semaphore(options.jobs)

    async def one(path):
        async with turns:
            return await bites(path, options.data.resolve())

    return await asyncio.gather(*[one(path) for path in notebooks])


async def bites(path, data):
    """Whether the notebook's assertions see that its models are shuffled; prints which do."""
    began = time.time()
    with tempfile.TemporaryDirectory(prefix="thalweg-shuffled-") as folder:
        clone = pathlib.Path(folder)
        models = imitate(data, clone)
        assertions, failure = await mutated(nbformat.read(path, as_version=4), models, clone / "notebooks")
    biting = sum(what == "bites" for what, _ in assertions)
    seconds = time.time() - began
    if biting:
        print(f"test the assertions of {path.stem} bite ... ok ({biting} of {len(assertions)}, {seconds:.0f} s)", flush=True)
    else:
        print(f"test the assertions of {path.stem} bite ... FAILED ({seconds:.0f} s)", flush=True)
        why = failure or f"all {len(assertions)} hold on shuffled weights: the assertions do not bite"
        print(f"{path.stem}: {why}", file=sys.stderr, flush=True)
    for what, words in assertions:
        if what == "holds":
            print(f"  holds on shuffled weights too: {words}", flush=True)
    return bool(biting)


def imitate(data, clone):
    """Makes the folders of a clone with no models yet; returns, for each model, where it is and where its shuffled copy belongs."""
    (clone / "notebooks").mkdir()
    models = clone / "data" / "models"
    models.mkdir(parents=True)
    for item in data.iterdir():
        if item.name != "models":
            (clone / "data" / item.name).symlink_to(item)
    return place(data / "models", models)


def place(folder, copy):
    found = []
    for item in sorted(folder.iterdir()):
        if (item / "config.json").exists():
            found.append((item, copy / item.name))
        elif item.is_dir() and any(item.glob("*/config.json")):  # checkpoints
            (copy / item.name).mkdir()
            found += place(item, copy / item.name)
        else:
            (copy / item.name).symlink_to(item)  # made for a model, such as a sparse autoencoder: it finds another one
    return found


async def mutated(notebook, models, folder):
    """What each assertion found, in order, and what a cell that failed said."""
    client = NotebookClient(
        notebook, kernel_name="thalweg", startup_timeout=600, timeout=600, record_timing=False, resources={"metadata": {"path": str(folder)}}
    )
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    first = nbformat.v4.new_code_cell(shuffling(models))
    notebook.cells = [first, *cells]
    assertions = []
    try:
        async with client.async_setup_kernel():
            await run_notebook.run_cell(client, first, 0, 0)
            complete(models)
            for number, cell in enumerate(cells, 1):
                try:
                    await client.async_execute_cell(cell, number)
                except CellExecutionError:
                    pass  # told by the cell's outputs below
                except Exception as error:  # the kernel died, or the cell took too long
                    return assertions, f"on shuffled weights cell {number}: {error}"
                assertions += TOLD.findall(printed(cell))
                errors = [run_notebook.plain(output) for output in cell.outputs if output.output_type == "error"]
                if errors:
                    return assertions, "on shuffled weights " + run_notebook.told(cell, number, errors)
    except (CellFailed, RuntimeError) as error:
        return [], str(error)
    return assertions, None


def shuffling(models):
    """The hidden first cell."""
    lines = [f"    Model::load({quoted(model)})?.shuffled({SEED})?.save({quoted(copy)})?;" for model, copy in models]
    return MACROS + "{\n" + "\n".join(lines) + "\n}"


def complete(models):
    """Links what a model's folder holds besides the model, such as the log of its training."""
    for model, copy in models:
        for item in model.iterdir():
            if not (copy / item.name).exists():
                (copy / item.name).symlink_to(item)


def quoted(path):
    return 'r#"' + str(path) + '"#'


def printed(cell):
    return "".join(output.text for output in cell.outputs if output.output_type == "stream" and output.name == "stdout")


if __name__ == "__main__":
    main()
