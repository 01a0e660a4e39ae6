"""Writes chats.json: conversations as transformers renders them with the templates beside it, and
token ids by the tokenizer of tiny-world. Run with the versions of ../requirements.txt and jinja2 3.1.6:

    python data/golden/chat/make.py

Origin: templates, conversations and this script were written for this project. Licence: MIT OR Apache-2.0.
"""

import datetime
import json
from pathlib import Path

import jinja2
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

HERE = Path(__file__).parent
TODAY = (2025, 3, 9)


class Clock(datetime.datetime):
    """A clock that stands still."""

    @classmethod
    def now(cls, tz=None):
        return cls(*TODAY)


chat_template_utils.datetime = Clock

TOOL = {
    "type": "function",
    "function": {
        "name": "depth_of",
        "description": "How deep a river is at a place, in metres; \"°C\" is no answer.",
        "parameters": {
            "type": "object",
            "properties": {"river": {"type": "string"}, "km": {"type": "number", "default": 1.0}},
            "required": ["river"],
        },
    },
}
BREW = {"type": "function", "function": {"name": "brew", "parameters": {}}}


def said(*words):
    return [{"role": words[i], "content": words[i + 1]} for i in range(0, len(words), 2)]


def called(name, arguments):
    return {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": name, "arguments": arguments}}]}


SHORT = said("user", "Who is there?")
LONG = said(
    "system", "  Answer in one word.\n", "user", " Which way does water run? ", "assistant", "\nDown. ",
    "user", "And smoke?", "assistant", "Up",
)
MORE = LONG + said("user", "Grüße, 河 😀?")
WITH_TOOL = [
    *said("user", "How deep is the Rhine?"),
    called("depth_of", {"river": "Rhein, \"alt\"", "km": 1.0, "deep": None}),
    {"role": "tool", "content": {"metres": 7.25, "list": [1, True]}},
    *said("assistant", "About 7 m.", "user", "Thanks"),
]
BUILTIN = [*said("system", "Look it up.", "user", "Depth?"), called("search", {"query": "depth", "lang": "de"}),
           {"role": "ipython", "content": "7 m"}]
PARTS = [{"role": "user", "content": [{"type": "text", "text": "See "}, {"type": "image"}, {"type": "text", "text": "this"}]}]

CASES = [
    ("llama2", SHORT, {}), ("llama2", LONG, {}), ("llama2", MORE, {}),
    ("llama2", said("user", "One", "user", "Two"), {}), ("llama2", said("assistant", "One"), {}),
    ("llama31", SHORT, {}), ("llama31", LONG, {"add_generation_prompt": False}), ("llama31", MORE, {}),
    ("llama31", WITH_TOOL, {"tools": [TOOL, BREW]}), ("llama31", WITH_TOOL, {"tools": [TOOL], "tools_first": False}),
    ("llama31", BUILTIN, {"builtin": ["search", "interpreter"], "date_string": "1 May 2026"}),
    ("llama31", said("system", "Alone."), {"tools": [TOOL]}),
    ("llama31", [{"role": "assistant", "tool_calls": [{}, {}]}], {}),
    ("llama32", SHORT, {}), ("llama32", MORE, {}), ("llama32", PARTS, {}), ("llama32", LONG, {"date_string": "2 June"}),
    ("llama32", [], {}),
    ("odds", LONG, {"extra": "words"}), ("odds", MORE + MORE, {"extra": 0}), ("odds", [], {}),
]


def main():
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(HERE / "../../models/tiny-world/tokenizer.json"), bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    cases = []
    for name, messages, options in CASES:
        options = {"add_generation_prompt": True, **options}
        case = {"template": name, "messages": messages, **options}
        try:
            if not messages:
                # transformers takes no empty list; what it would render is the same call below it.
                rendered = chat_template_utils.render_jinja_template(
                    [messages], chat_template=(HERE / f"{name}.jinja").read_text(), **tokenizer.special_tokens_map, **options
                )
                case["text"] = rendered[0][0]
            else:
                template = (HERE / f"{name}.jinja").read_text()
                case["text"] = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, **options)
        except jinja2.exceptions.TemplateError as error:
            case["error"] = str(error)
        cases.append(case)
    words = said("user", "Mary went to the store .", "assistant", "John went to the garden .")
    spaced = "{{ bos_token }} {% for m in messages %}{{ m.role }} : {{ m.content }} {% endfor %}"
    ids = tokenizer.apply_chat_template(words, chat_template=spaced, tokenize=True, return_dict=False)
    golden = {
        "origin": "made by data/golden/chat/make.py", "licence": "MIT OR Apache-2.0", "today": TODAY,
        "special": tokenizer.special_tokens_map, "cases": cases,
        "tokens": {"template": spaced, "messages": words, "ids": ids},
    }
    (HERE / "chats.json").write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
