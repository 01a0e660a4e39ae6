"""The headless runner and the mutation check, on small notebooks whose kernel is Python's, for that one starts at once."""

import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

import mutate
import nbformat
from labserver import stand_in

HERE = pathlib.Path(__file__).parent


def solution(number, *codes):
    fences = "\n".join(f"```rust\n{code}\n```\n" for code in codes)
    return f"<details><summary>Solution {number}</summary>\n\n{fences}\n</details>\n"


class Runner(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="thalweg-runner-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.environment = {**os.environ, "JUPYTER_PATH": str(stand_in(self.folder / "kernels"))}

    def run_notebook(self, text, *options):
        cells = [nbformat.v4.new_code_cell("a = 2"), nbformat.v4.new_code_cell("print(a + 1)"), nbformat.v4.new_markdown_cell(text)]
        self.path = self.folder / "01_river.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=cells), self.path)
        command = [sys.executable, HERE / "run_notebook.py", self.path, *options]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True)

    def test_solutions_run_in_order_after_the_last_cell_and_leave_no_trace_in_the_notebook(self):
        text = solution(1, "assert a == 2; b = a", "assert b == 2") + solution(2, "assert b == 2")
        done = self.run_notebook(text, "--save")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("test result: ok. 3 passed; 0 failed", done.stdout)
        self.assertRegex(done.stdout, r"01_river.ipynb: ran in \d+ s")
        kept = nbformat.read(self.path, as_version=4)
        self.assertEqual([cell.cell_type for cell in kept.cells], ["code", "code", "markdown"])
        self.assertEqual(kept.cells[1].outputs[0].text, "3\n")

    def test_a_solution_is_folded_away_on_the_page(self):
        self.run_notebook(solution(1, "assert a == 2"), "--html", str(self.folder / "page.html"))
        page = (self.folder / "page.html").read_text(encoding="utf-8")
        folded = page.split("<details><summary>Solution 1</summary>")[1].split("</details>")[0]
        self.assertIn("assert", folded)

    def test_a_solution_that_fails_names_its_exercise_and_the_notebook_and_the_next_ones_are_run(self):
        done = self.run_notebook(solution(1, "a") + solution(2, "a +\n 'x'") + solution(3, "a"))
        self.assertEqual(done.returncode, 1)
        self.assertIn("01_river.ipynb: the solution of exercise 2: cell 1 failed", done.stderr)
        self.assertIn("test result: FAILED. 3 passed; 1 failed", done.stdout)

    def test_solutions_are_left_out_where_they_are_not_wanted_and_a_gap_in_their_numbers_is_an_error(self):
        self.assertIn("1 passed; 0 failed", self.run_notebook(solution(1, "nonsense"), "--no-solutions").stdout)
        done = self.run_notebook(solution(2, "a"))
        self.assertIn("solution 2 stands where solution 1 should", done.stderr)
        self.assertIn("0 passed; 1 failed", done.stdout)


class Mutation(unittest.TestCase):
    def test_models_and_checkpoints_get_places_and_all_else_is_linked(self):
        with tempfile.TemporaryDirectory() as folder:
            data, clone = pathlib.Path(folder) / "data", pathlib.Path(folder) / "clone"
            clone.mkdir()
            for file in ["prompts/a.json", "models/river/config.json", "models/river-sae/cfg.json", "models/run/README.md"]:
                (data / file).parent.mkdir(parents=True, exist_ok=True)
                (data / file).write_text("{}")
            for step in ["step-0", "step-9"]:
                (data / "models/run" / step).mkdir()
                (data / "models/run" / step / "config.json").write_text("{}")
            found = mutate.imitate(data, clone)
            models = ["river", "run/step-0", "run/step-9"]
            self.assertEqual(found, [(data / "models" / one, clone / "data/models" / one) for one in models])
            for linked in ["prompts", "models/river-sae", "models/run/README.md"]:
                self.assertTrue((clone / "data" / linked).is_symlink(), linked)
            self.assertFalse((clone / "data/models/run").is_symlink())
            for model, copy in found:
                copy.mkdir()
            mutate.complete(found)
            self.assertTrue((clone / "data/models/river/config.json").exists())

    def test_what_assertions_say_is_read(self):
        told = "loss 3\nassertion bites: it copies\nassertion holds: a: b\n"
        self.assertEqual(mutate.TOLD.findall(told), [("bites", "it copies"), ("holds", "a: b")])
