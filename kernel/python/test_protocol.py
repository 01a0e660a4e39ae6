"""Jupyter's own test of kernels, whole, on thalweg-kernel."""

import os
import unittest

import jupyter_kernel_test

from client import NOTEBOOKS, PATIENCE

SHOW = 'display("a river");'
jupyter_kernel_test.TIMEOUT = PATIENCE


class Protocol(jupyter_kernel_test.KernelTests):
    kernel_name = "thalweg"
    language_name = "rust"
    file_extension = ".rs"

    code_hello_world = 'println!("hello, world");'
    code_stderr = 'eprintln!("a warning");'
    code_execute_result = [
        {"code": "1 + 1", "result": "2"},
        {"code": '"Rhine".to_string()', "result": '"Rhine"'},
        {"code": "vec![1, 2, 3]", "result": "[1, 2, 3]"},
        {"code": "Point::ResidPre.at(3)"},
        {"code": 'heatmap(&Grid::of(&Tensor::eye(2, (Kind::Float, Device::Cpu)), &[Axis::Query, Axis::Key], "")?)?',
         "mime": "text/html"},
    ]
    code_history_pattern = "1*1"
    supported_history_operations = ("tail", "range", "search")
    code_display_data = [
        {"code": SHOW, "mime": "text/plain"},
        {"code": 'display(&Html("<b>wide</b>".to_owned()));', "mime": "text/html"},
        {"code": f"{SHOW} {SHOW}", "mime": "text/plain"},
    ]
    code_clear_output = "clear_output(false);"
    code_generate_error = 'panic!("the boat sank");'
    code_inspect_sample = "Model"
    completion_samples = [
        {"text": "Tens", "matches": {"Tensor"}},
        {"text": "Model::loa", "matches": {"load", "load_on", "load_spread"}},
    ]
    complete_code_samples = [
        "1 + 1",
        "let depth = 3;",
        "fn sink(depth: u32) -> u32 {\n    depth + 1\n}",
        "for layer in 0..4 {\n    println!(\"{layer}\");\n}",
        ":vars",
        "// only a comment",
        "model.run(&tokens, &Plan::new())?",
        'let text = "a } in a string";',
    ]
    incomplete_code_samples = [
        "fn sink(depth: u32) {",
        "let sum = vec![1, 2,",
        "println!(\"{}\",",
        'let text = "begun',
        "/* a comment",
        "let plan = Plan::new()\n    .cache(",
    ]
    invalid_code_samples = ["let = 3;", "fn 3() {}", "1 + 1)", "let depth = 3; }"]

    @classmethod
    def setUpClass(cls):
        folder = os.getcwd()
        os.chdir(NOTEBOOKS)
        os.environ["THALWEG_SPARE"] = "0"
        try:
            super().setUpClass()
        finally:
            os.chdir(folder)
        cls.kc.execute_interactive("()", timeout=PATIENCE)  # waits for the end of the warm-up

    test_pager = None  # this kernel has none

    def execute_helper(self, code, timeout=PATIENCE, **options):
        return super().execute_helper(code, timeout, **options)

    def test_error(self):
        for code in [self.code_generate_error, "let depth: u32 = \"three\";", 'std::fs::read("no-such-chart")?;']:
            with self.subTest(code=code):
                self.code_generate_error = code
                super().test_error()

    def test_comm_info(self):
        self.flush_channels()
        request = self.kc.comm_info()
        reply = self.get_non_kernel_info_reply(timeout=PATIENCE)
        jupyter_kernel_test.validate_message(reply, "comm_info_reply", request)
        self.assertEqual(reply["content"]["comms"], {})


if __name__ == "__main__":
    unittest.main()
