"""Completions and hover: what is there, under its name, with the first sentence of its docs."""

import re
import unittest

from client import CLONE, plain, shared

SOURCES = sorted((CLONE / "src").rglob("*.rs"))


def first_sentence(item, within=""):
    """The first sentence of the docs of `item` (as it is declared, such as `pub fn run`) in the file that holds `within`."""
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        found = re.search(rf"((?:^[ \t]*///.*\n)+)(?:^[ \t]*#\[.*\n)*^[ \t]*{re.escape(item)}\b", text, re.MULTILINE)
        if found and within in text:
            docs = " ".join(line.strip().removeprefix("///").strip() for line in found[1].splitlines())
            return re.match(r".*?[.:](?=\s|$)", docs)[0]
    raise AssertionError(f"no docs of {item}")


def words(text):
    """The words alone: not the marks of Markdown or HTML, nor where lines break."""
    return " ".join(re.findall(r"\w+", re.sub(r"<[^>]*>", "", plain(text))))


class Completions(unittest.TestCase):
    def setUp(self):
        self.kernel = shared()

    def offers(self, code, *names):
        reply = self.kernel.ask("complete", code)
        offered = [match.removesuffix("()") for match in reply["matches"]]
        for name in names:
            self.assertIn(name, offered, f"after {code!r}")
        for name in offered:
            self.assertFalse("evcxr" in name or "Fallback" in name, f"{name} after {code!r}")
        return reply

    def explains(self, reply, name, sentence):
        """The list itself says what the name is for."""
        kinds = reply["metadata"]["_jupyter_types_experimental"]
        (one,) = [kind for kind in kinds if kind["text"].removesuffix("()") == name]
        self.assertIn(words(sentence), words(one["documentation"]))

    def test_names_of_the_prelude(self):
        self.offers("Mod", "Model")
        self.offers("let lens = logit_l", "logit_lens")
        self.offers("Inter", "Intervention")
        self.offers("disp", "display")

    def test_variables(self):
        self.offers("kep", "kept")

    def test_methods_of_a_model(self):
        reply = self.offers("model.", "run", "sweep", "tokens", "logits", "generate", "top", "config")
        self.assertEqual((reply["cursor_start"], reply["cursor_end"]), (6, 6))
        self.explains(reply, "run", first_sentence("pub fn run", "impl Model"))
        self.assertNotIn("run_program", reply["matches"], "what a notebook cannot name is not offered")

    def test_the_begun_word_is_replaced_and_characters_are_counted_not_bytes(self):
        reply = self.offers('let río = "→"; model.swe', "sweep")
        self.assertEqual((reply["cursor_start"], reply["cursor_end"]), (21, 24))

    def test_methods_of_a_plan(self):
        reply = self.offers("Plan::new().", "cache", "intervene", "logits_at", "gradients", "freeze", "attention")
        self.explains(reply, "cache", first_sentence("pub fn cache", "impl Plan"))

    def test_points(self):
        self.offers("Point::", "ResidPre", "Q", "Pattern", "Z", "MlpPost", "ResidPost")

    def test_interventions(self):
        reply = self.offers("Intervention::", "zero", "mean", "patch", "set", "add", "scale", "custom")
        self.explains(reply, "zero", first_sentence("pub fn zero", "impl Intervention"))

    def test_names_defined_in_the_cell_itself(self):
        self.offers("let plan = Plan::new();\nplan.interv", "intervene")

    def test_a_kernel_that_is_asked_nonsense_offers_nothing(self):
        self.assertEqual(self.kernel.ask("complete", "no_such_name.")["matches"], [])
        self.assertEqual(self.kernel.ask("complete", "")["status"], "ok")


class Hover(unittest.TestCase):
    def setUp(self):
        self.kernel = shared()

    def tells(self, code, sentence, cursor=None):
        reply = self.kernel.ask("inspect", code, cursor)
        self.assertTrue(reply["found"], code)
        for kind in ("text/plain", "text/html"):
            if kind in reply["data"]:
                self.assertIn(words(sentence), words(reply["data"][kind]), f"{kind} of {code!r}")
        self.assertIn("text/plain", reply["data"])
        return reply["data"]

    def test_types_and_functions_of_the_prelude(self):
        self.tells("Model", first_sentence("pub struct Model"))
        self.tells("logit_lens", first_sentence("pub fn logit_lens"))
        self.tells("display", first_sentence("pub fn display"))

    def test_methods(self):
        self.tells("model.run", first_sentence("pub fn run", "impl Model"))
        self.tells("Plan::new().cache", first_sentence("pub fn cache", "impl Plan"))
        self.tells("Intervention::zero", first_sentence("pub fn zero", "impl Intervention"))

    def test_points(self):
        self.tells("Point::ResidPre", "ResidPre")

    def test_the_cursor_may_stand_anywhere_in_the_cell(self):
        code = "let run = model.run(&tokens, &Plan::new())?;\nrun.logits.size()"
        self.tells(code, first_sentence("pub fn run", "impl Model"), code.index("run(") + 1)

    def test_a_variable_tells_its_type_and_angle_brackets_are_escaped(self):
        self.kernel.run("let currents: Vec<Option<String>> = vec![None];")
        data = self.tells("currents", "")
        self.assertIn("Vec<Option<String>>", plain(data["text/plain"]))
        if "text/html" in data:
            self.assertNotIn("<String", data["text/html"])
            self.assertNotIn("<Option", data["text/html"])

    def test_what_is_not_there_is_not_found(self):
        reply = self.kernel.ask("inspect", "no_such_name")
        self.assertEqual((reply["status"], reply["found"]), ("ok", False))


if __name__ == "__main__":
    unittest.main()
