"""Runs a notebook without a browser and writes an HTML page; then the hidden solutions of its exercises, in the same kernel.

A cell fails if the kernel replies an error or if it prints anything on stderr: a notebook that warns is not finished.
What a solution shows is kept nowhere.
"""

import argparse
import asyncio
import os
import pathlib
import re
import sys
import time

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

import solutions


class CellFailed(Exception):
    pass


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("notebook", type=pathlib.Path)
    arguments.add_argument("--html", type=pathlib.Path, help="write the page here")
    arguments.add_argument("--save", action="store_true", help="keep the outputs in the notebook")
    arguments.add_argument("--timeout", type=int, default=600, help="seconds a cell may take")
    arguments.add_argument("--no-solutions", action="store_true", help="leave the solutions of the exercises out")
    arguments.add_argument("--folder", type=pathlib.Path, help="where the kernel works (the notebook's own folder)")
    options = arguments.parse_args()
    notebook = nbformat.read(options.notebook, as_version=4)
    failed = 0
    try:
        found = [] if options.no_solutions else solutions.of_cells(notebook.cells)
        failed = asyncio.run(run(notebook, found, options))
    except (CellFailed, ValueError) as failure:
        tell(options.notebook.name, failure)
        close(0, 1)
    close(1 + len(found) - failed, failed)


def tell(name, failure):
    print(f"{name}: {failure}", file=sys.stderr, flush=True)


def close(passed, failed):
    """Ends with the counts as cargo's test runner writes them: one for the notebook, one for each solution."""
    print(f"test result: {'FAILED' if failed else 'ok'}. {passed} passed; {failed} failed; 0 ignored", flush=True)
    os._exit(1 if failed else 0)  # nbclient's own clean-up stumbles over a kernel that never started


async def run(notebook, found, options):
    """Runs all cells, keeps what they gave, then runs the solutions; returns how many of those fail."""
    client = NotebookClient(
        notebook,
        kernel_name="thalweg",
        startup_timeout=600,
        timeout=options.timeout,
        record_timing=False,
        resources={"metadata": {"path": str(options.folder or options.notebook.resolve().parent)}},
    )
    try:
        began = time.time()
        async with client.async_setup_kernel():
            await run_cells(client, notebook, options, began)
            failed = 0
            for solution in found:
                failed += not await solves(client, solution, options.notebook.name)
            return failed
    except RuntimeError as error:
        raise CellFailed(f"the kernel did not start: {error}") from None


async def run_cells(client, notebook, options, began):
    name = options.notebook.name
    print(f"{name}: kernel ready after {time.time() - began:.1f} s", flush=True)
    cells = [(index, cell) for index, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    for number, (index, cell) in enumerate(cells, 1):
        cell_began = time.time()
        await run_cell(client, cell, index, number)
        print(f"  cell {number}/{len(cells)}: {time.time() - cell_began:.1f} s", flush=True)
    took = time.time() - began
    if options.html:
        options.html.parent.mkdir(parents=True, exist_ok=True)
        options.html.write_text(page(notebook), encoding="utf-8")
    if options.save:
        save(notebook, options.notebook)
    print(f"{name}: ran in {took:.0f} s" + (f", see {options.html}" if options.html else ""), flush=True)


async def solves(client, solution, name):
    """Whether every fence of the solution runs; each is a cell at the notebook's end, for the while of its run."""
    began = time.time()
    for place, code in enumerate(solution.fences, 1):
        cell = nbformat.v4.new_code_cell(code)
        client.nb.cells.append(cell)
        try:
            await run_cell(client, cell, len(client.nb.cells) - 1, place)
        except CellFailed as failure:
            tell(name, f"the solution of exercise {solution.number}: {failure}")
            return False
        finally:
            client.nb.cells.pop()
    print(f"  solution {solution.number}: {time.time() - began:.1f} s", flush=True)
    return True


async def run_cell(client, cell, index, number):
    try:
        await client.async_execute_cell(cell, index, execution_count=number)
    except (CellExecutionError, DeadKernelError) as error:
        errors = [plain(output) for output in cell.outputs if is_error(output)]
        raise CellFailed(told(cell, number, errors or [str(error)])) from None
    errors = [plain(output) for output in cell.outputs if is_error(output)]
    if errors:
        raise CellFailed(told(cell, number, errors))


def is_error(output):
    return output.output_type == "error" or (output.output_type == "stream" and output.name == "stderr")


def plain(output):
    text = output.text if output.output_type == "stream" else "\n".join(output.traceback or [output.evalue])
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def told(cell, number, errors):
    source = "\n".join("    " + line for line in cell.source.splitlines())
    return f"cell {number} failed:\n{source}\n{''.join(errors).strip()}"


def page(notebook):
    """The notebook as HTML, with plotly.js in it once; everything else a figure needs is in its own output."""
    import plotly
    from nbconvert import HTMLExporter

    # RequireJS, which nbconvert adds by default, would catch plotly.js and leave no window.Plotly. To embed images,
    # nbconvert parses each piece of HTML in the text by itself and closes `<details>` there: solutions would be in plain sight.
    body, _ = HTMLExporter(require_js_url="", embed_images=False).from_notebook_node(notebook)
    script = pathlib.Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    head = "<script>" + script.read_text(encoding="utf-8") + "</script>\n</head>"
    return body.replace("</head>", head, 1)


def save(notebook, path):
    notebook.metadata = {
        "kernelspec": {"display_name": "Rust (thalweg)", "language": "rust", "name": "thalweg"},
        "language_info": {"name": "rust", "file_extension": ".rs", "mimetype": "text/rust"},
    }
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            if "execution_count" in output:
                output["execution_count"] = cell.execution_count  # the number that the cell itself has
    nbformat.write(notebook, path)


if __name__ == "__main__":
    main()
