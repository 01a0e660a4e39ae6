"""A failed cell says what happened, costs nothing that was there before it, and the next cell runs."""

import time
import unittest

from client import MODEL, shared

WRONG_SHAPES = "let a = Tensor::ones([2, 3], (Kind::Float, Device::Cpu));\n"
GRAD = "(Tensor::ones([1], (Kind::Float, Device::Cpu)).set_requires_grad(true) * 2.0).requires_grad()"


class Failure(unittest.TestCase):
    def setUp(self):
        self.kernel = shared()

    def fails(self, code, *words):
        """The cell fails, saying `words`; what was there is there, and grad mode is on as before."""
        cell = self.kernel.run(code)
        self.check_error(cell, *words)
        after = self.kernel.run(f'println!("{{}} {{}} {{}}", kept.len(), model.config().n_layers, {GRAD});')
        self.assertEqual(after.stdout, "3 4 true\n", after)
        return cell

    def check_error(self, cell, *words):
        self.assertEqual(cell.status, "error", cell)
        (error,) = cell.of("error")
        for part in ("ename", "evalue", "traceback"):
            self.assertTrue(cell.reply[part], cell)
            self.assertEqual(error[part], cell.reply[part])
        self.assertNotIn("\n", cell.reply["evalue"])
        for word in words:
            self.assertIn(word, cell.told)

    def test_a_panic(self):
        cell = self.fails('let new = 1;\npanic!("the boat sank at {}", kept.len());', "the boat sank at 3")
        self.assertEqual(cell.reply["evalue"], "the boat sank at 3")
        self.assertNotIn("evcxr", cell.told)
        self.assertEqual(cell.stderr, "")

    def test_an_error_that_leaves_through_a_question_mark(self):
        cell = self.fails(
            'use thalweg::anyhow::Context;\nstd::fs::read("no-such-chart").context("no chart of the river")?;',
            "no chart of the river", "No such file",
        )
        self.assertIn("no chart of the river", cell.reply["evalue"])

    def test_an_error_of_the_library_stands_alone_in_its_line(self):
        cell = self.fails('"blocks.1.attn.hook_patern".parse::<Site>()?;', "did you mean")
        self.assertIn("hook_pattern", cell.reply["evalue"])

    def test_code_that_does_not_compile(self):
        cell = self.fails('let depth: u32 = "three";', "mismatched types", '"three"')
        self.assertIn("mismatched types", cell.reply["evalue"])

    def test_a_name_that_does_not_exist(self):
        self.fails("kept.lenn()", "lenn")

    def test_code_that_does_not_parse(self):
        for code in ["let = 3;", "let a = 1;\nlet", "1 + 1)", "}", "fn 3() {}", "let depth = ;"]:
            with self.subTest(code=code):
                self.assertIn("compile error", self.fails(code).reply["ename"])

    def test_an_exception_of_libtorch(self):
        cell = self.fails(f"{WRONG_SHAPES}a.matmul(&a);", "2x3")
        self.assertNotIn("frame #", cell.told)

    def test_an_exception_of_libtorch_returned_as_an_error(self):
        cell = self.fails(f"{WRONG_SHAPES}a.f_matmul(&a)?;", "2x3")
        self.assertNotIn("frame #", cell.told)

    def test_a_panic_inside_no_grad_leaves_gradients_on(self):
        self.fails('thalweg::tch::no_grad(|| { if kept.len() > 1 { panic!("inside") } });', "inside")

    def test_a_guard_of_an_earlier_cell_outlives_a_panic(self):
        self.kernel.run("let guard = thalweg::tch::no_grad_guard();")
        self.kernel.run('thalweg::tch::with_grad(|| { if kept.len() > 1 { panic!("inside") } });')
        self.assertEqual(self.kernel.run(GRAD).result, "false")
        self.kernel.run("drop(guard);")
        self.assertEqual(self.kernel.run(GRAD).result, "true")

    def test_a_panic_of_another_thread_is_told_and_fails_nothing(self):
        cell = self.kernel.run('let _ = std::thread::spawn(|| panic!("aside")).join();')
        self.assertEqual(cell.status, "ok", cell)
        self.assertIn("aside", cell.stderr)

    def test_variables_of_a_failed_cell_are_not_there_and_may_be_defined_again(self):
        self.fails('let rising = 5; if kept.len() > 1 { panic!("late") }', "late")
        self.assertEqual(self.kernel.run("let rising = 6; rising").result, "6")

    def test_a_variable_that_the_failed_cell_only_read_is_whole(self):
        self.fails("let all: i32 = kept.iter().sum(); let nothing = kept[all as usize];", "out of bounds")


class Interrupt(unittest.TestCase):
    def setUp(self):
        self.kernel = shared()

    def stopped(self, code):
        cell = self.kernel.send(f'println!("runs");\n{code}')
        self.kernel.wait_for(cell, "runs")
        self.kernel.interrupt()
        cell = self.kernel.wait(cell)
        self.assertEqual(cell.status, "error", cell)
        self.assertIn("interrupt", cell.told.lower())
        after = self.kernel.run('println!("{} {}", kept.len(), model.top(&tokens, 1).is_ok());')
        self.assertEqual(after.stdout, "3 true\n", after)

    def test_many_runs_of_a_model_are_stopped_and_variables_are_kept(self):
        self.stopped("for _ in 0..1000000 { model.run(&tokens, &Plan::new())?; }")

    def test_a_long_sweep_is_stopped_and_variables_are_kept(self):
        self.stopped(
            "let plans: Vec<Plan> = (0..50000).map(|i| Plan::new()\n"
            "    .intervene(Point::Z.at(i % 4), Intervention::scale(i as f64).head(0))).collect();\n"
            'let metric = Metric::logit_diff(model.token("Mary")?, model.token("John")?);\n'
            "model.sweep(&tokens, &plans, &metric)?"
        )

    def test_a_loop_that_asks_is_stopped(self):
        self.stopped("loop { check_interrupt()?; }")

    def test_an_interrupt_while_no_cell_runs_stops_nothing(self):
        self.kernel.interrupt()
        time.sleep(1)  # it and the cell come on sockets of their own: the cell might be there first
        self.assertEqual(self.kernel.run("model.top(&tokens, 1).is_ok()").result, "true")

    def test_cells_behind_an_interrupted_one_are_aborted(self):
        first = self.kernel.send('println!("runs"); loop { check_interrupt()?; }')
        second = self.kernel.send('println!("second");')
        self.kernel.wait_for(first, "runs")
        self.kernel.interrupt()
        self.assertEqual(self.kernel.wait(first).status, "error")
        self.assertEqual(self.kernel.wait(second).stdout, "")


class Lost(unittest.TestCase):
    """The process that runs the cells is gone: the error says what went with it."""

    def setUp(self):
        self.kernel = shared()
        self.kernel.run("let treasure = 1;\nfn sink(depth: u32) -> u32 { depth + 1 }")
        self.addCleanup(self.kernel.run, MODEL)

    def check_lost(self, cell):
        self.assertEqual(cell.status, "error", cell)
        for name in ("treasure", "kept", "model"):
            self.assertIn(name, cell.told)
        after = self.kernel.run("println!(\"{} {}\", sink(6), Point::Z.at(1));")
        self.assertEqual(after.stdout, "7 blocks.1.attn.hook_z\n", after)
        self.assertEqual(self.kernel.run("treasure").status, "error")

    def test_a_second_interrupt_ends_a_loop_that_never_asks(self):
        cell = self.kernel.send('println!("runs"); let mut n = 0u64; loop { n = std::hint::black_box(n.wrapping_add(1)); }')
        self.kernel.wait_for(cell, "runs")
        self.kernel.interrupt()
        self.assertEqual(self.kernel.ask("kernel_info")["status"], "ok")
        for _ in range(25):
            self.kernel.read()
        self.assertNotIn(cell, self.kernel.replies, "one interrupt must not cost the variables")
        self.kernel.interrupt()
        self.check_lost(self.kernel.wait(cell))

    def test_a_cell_that_aborts(self):
        self.check_lost(self.kernel.run('println!("last words"); std::process::abort();'))

    def test_a_cell_that_exits(self):
        self.check_lost(self.kernel.run("std::process::exit(3);"))

    def test_a_process_killed_from_outside(self):
        self.check_lost(self.kernel.run(
            'std::process::Command::new("kill").args(["-9", &std::process::id().to_string()]).status()?;'
            "std::thread::sleep(std::time::Duration::from_secs(60));"
        ))


if __name__ == "__main__":
    unittest.main()
