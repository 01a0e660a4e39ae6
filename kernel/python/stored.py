"""Writes notebooks with the outputs that are stored in them as HTML pages, without running anything."""

import argparse
import pathlib

import nbformat

from run_notebook import page


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("notebooks", type=pathlib.Path, nargs="+")
    arguments.add_argument("--into", type=pathlib.Path, required=True, help="the folder of the pages")
    options = arguments.parse_args()
    options.into.mkdir(parents=True, exist_ok=True)
    for notebook in options.notebooks:
        text = page(nbformat.read(notebook, as_version=4))
        (options.into / f"{notebook.stem}.html").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
