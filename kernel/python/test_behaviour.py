"""What a cell shows, in which order, and how cells count and wait."""

import pathlib
import tempfile
import unittest

from client import shared

HOLD = "std::thread::sleep(std::time::Duration::from_millis(300));"
FLUSH = "{ use std::io::Write; std::io::stdout().flush()?; }"


class Gate:
    """A file that a cell waits for: it lets a test look at what has arrived while the cell still runs."""

    def __init__(self, case):
        folder = tempfile.TemporaryDirectory()
        case.addCleanup(folder.cleanup)
        self.path = pathlib.Path(folder.name) / "open"

    @property
    def wait(self):
        """Rust that waits for the file, at most a minute."""
        return (
            f'for _ in 0..6000 {{ if std::path::Path::new("{self.path}").exists() {{ break }} '
            "std::thread::sleep(std::time::Duration::from_millis(10)); }"
        )

    def open(self):
        self.path.touch()


class Outputs(unittest.TestCase):
    def setUp(self):
        self.kernel = shared()

    def check(self, code):
        cell = self.kernel.run(code)
        self.assertEqual(cell.status, "ok", cell)
        return cell

    def test_a_partial_line_arrives_while_the_cell_runs(self):
        gate = Gate(self)
        cell = self.kernel.send(f'print!("half a"); {FLUSH} {gate.wait} println!(" river");')
        self.kernel.wait_for(cell, "half a")
        self.assertNotIn(cell, self.kernel.replies)
        gate.open()
        self.assertEqual(self.kernel.wait(cell).stdout, "half a river\n")

    def test_a_line_that_is_drawn_again_arrives_with_each_carriage_return(self):
        gate = Gate(self)
        cell = self.kernel.send(f'print!("\\r1 of 2"); {FLUSH} {gate.wait} print!("\\r2 of 2"); {FLUSH}')
        self.kernel.wait_for(cell, "\r1 of 2")
        self.assertNotIn("2 of 2", self.kernel.seen(cell))
        gate.open()
        self.assertEqual(self.kernel.wait(cell).stdout, "\r1 of 2\r2 of 2")

    def test_standard_error_is_a_stream_of_its_own_and_no_failure(self):
        cell = self.check('println!("out"); eprintln!("err");')
        self.assertEqual((cell.stdout, cell.stderr), ("out\n", "err\n"))

    def test_text_that_is_not_utf8_does_not_stop_the_kernel(self):
        cell = self.check("{ use std::io::Write; std::io::stdout().write_all(b\"a\\xff\\xfeb\\n\")?; }")
        self.assertTrue(cell.stdout.startswith("a") and cell.stdout.endswith("b\n"), cell)

    def test_many_lines_arrive_whole_and_in_order(self):
        cell = self.check('for line in 0..5000 { println!("line {line}"); }')
        self.assertEqual(cell.stdout, "".join(f"line {line}\n" for line in range(5000)))

    def test_three_displays_in_a_cell_are_three_outputs_between_the_text_around_them(self):
        shows = ' '.join(f'println!("before {i}"); display("shown {i}");' for i in range(3))
        cell = self.check(shows)
        order = [
            content["text"] if kind == "stream" else content["data"]["text/plain"]
            for kind, content in cell.published
            if kind in ("stream", "display_data")
        ]
        self.assertEqual([text.strip() for text in order], [
            "before 0", "shown 0", "before 1", "shown 1", "before 2", "shown 2",
        ])

    def test_a_value_of_each_kind_is_a_result_and_a_statement_is_none(self):
        self.assertEqual(self.check("kept.len()").result, "3")
        self.assertIsNone(self.check("let fourth = 4;").result)
        self.assertEqual(self.check("()").shown, [])
        figure = self.check("heatmap(&Grid::of(&Tensor::eye(2, (Kind::Float, Device::Cpu)), &[Axis::Query, Axis::Key], \"\")?)?")
        kinds = figure.shown[0]
        self.assertIn("text/html", kinds)
        self.assertIsInstance(kinds["application/vnd.plotly.v1+json"], dict)

    def test_two_hundred_updates_arrive_in_order_at_one_place(self):
        cell = self.check(
            'let shown = display("step 0"); for step in 1..=200 { shown.update(&format!("step {step}")); }'
        )
        steps = [(kind, content) for kind, content in cell.published if kind.endswith("display_data")]
        self.assertEqual([kind for kind, _ in steps], ["display_data"] + 200 * ["update_display_data"])
        self.assertEqual([c["data"]["text/plain"] for _, c in steps], [f"step {step}" for step in range(201)])
        self.assertEqual(len({c["transient"]["display_id"] for _, c in steps}), 1)

    def test_a_later_cell_updates_what_an_earlier_one_shows(self):
        first = self.check('let place = display("empty");').of("display_data")[0]
        later = self.check('place.update("filled");').of("update_display_data")[0]
        self.assertEqual(later["data"]["text/plain"], "filled")
        self.assertEqual(later["transient"], first["transient"])

    def test_clearing_waits_only_if_told_to(self):
        cell = self.check('println!("old"); clear_output(true); clear_output(false); println!("new");')
        self.assertEqual([c["wait"] for c in cell.of("clear_output")], [True, False])
        self.assertEqual([kind for kind, _ in cell.published if kind in ("stream", "clear_output")],
                         ["stream", "clear_output", "clear_output", "stream"])


class Counts(unittest.TestCase):
    def setUp(self):
        self.kernel = shared()

    def test_each_cell_has_the_next_number_and_a_failed_one_too(self):
        first = self.kernel.run("1").count
        failed = self.kernel.run("nonsense!")
        self.assertEqual((failed.status, failed.count), ("error", first + 1))
        third = self.kernel.run("3")
        self.assertEqual(third.count, first + 2)
        self.assertEqual(third.of("execute_input"), [{"code": "3", "execution_count": first + 2}])
        self.assertEqual(third.of("execute_result")[0]["execution_count"], first + 2)

    def test_silent_cells_and_cells_outside_the_history_do_not_count(self):
        before = self.kernel.run("1").count
        silent = self.kernel.run("2", silent=True)
        self.assertEqual(silent.of("execute_input") + silent.of("execute_result"), [])
        self.kernel.run("3", store_history=False)
        self.assertEqual(self.kernel.run("4").count, before + 1)
        history = self.kernel.ask("history", hist_access_type="tail", n=2)["history"]
        self.assertEqual([code for _, _, code in history], ["1", "4"])


class Queue(unittest.TestCase):
    def setUp(self):
        self.kernel = shared()

    def queued(self, **options):
        """Three cells sent at once, of which the second fails."""
        sources = [f"{HOLD} 1", 'panic!("the boat sank");', 'println!("third");']
        sent = [self.kernel.send(code, **options) for code in sources]
        return [self.kernel.wait(request) for request in sent]

    def test_cells_behind_a_failed_one_are_aborted(self):
        first, second, third = self.queued()
        self.assertEqual((first.status, second.status), ("ok", "error"))
        self.assertIn(third.status, ("aborted", "error"))
        self.assertEqual(third.stdout, "")
        self.assertEqual(third.of("error"), [])
        self.assertEqual(self.kernel.run("kept.len()").result, "3")

    def test_they_run_if_the_front_end_says_so(self):
        first, second, third = self.queued(stop_on_error=False)
        self.assertEqual((first.status, second.status, third.status), ("ok", "error", "ok"))
        self.assertEqual(third.stdout, "third\n")

    def test_while_a_cell_runs_the_kernel_answers(self):
        gate = Gate(self)
        cell = self.kernel.send(f'println!("runs"); {gate.wait}')
        self.kernel.wait_for(cell, "runs")
        self.assertEqual(self.kernel.ask("kernel_info")["language_info"]["name"], "rust")
        self.assertEqual(self.kernel.ask("is_complete", "fn a() {")["status"], "incomplete")
        self.assertEqual(self.kernel.ask("history", hist_access_type="tail", n=1)["status"], "ok")
        self.assertEqual(self.kernel.ask("comm_info")["comms"], {})
        self.assertNotIn(cell, self.kernel.replies)
        gate.open()
        self.assertEqual(self.kernel.wait(cell).status, "ok")


if __name__ == "__main__":
    unittest.main()
