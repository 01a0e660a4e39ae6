"""A kernel as a test sees it: started like JupyterLab does, every message checked against the protocol and kept."""

import atexit
import os
import pathlib
import re
import time
from queue import Empty

from jsonschema import ValidationError
from jupyter_client.manager import KernelManager
from jupyter_kernel_test.msgspec_v5 import schema_fragments, validate_message

CLONE = pathlib.Path(__file__).resolve().parents[2]
NOTEBOOKS = CLONE / "notebooks"
MODEL = """let model = Model::load("../data/models/tiny-world")?;
let tokens = model.tokens("When Mary and John went to the store , John gave a drink to")?;
let kept = vec![1, 2, 3];"""
PATIENCE = 120  # seconds: a busy machine is slow, and no test asserts a time


class Cell:
    """One execute request: its reply, and what the kernel published for it, in the order of arrival."""

    def __init__(self, reply, published):
        self.reply = reply["content"]
        self.published = [(message["msg_type"], message["content"]) for message in published]

    @property
    def status(self):
        return self.reply["status"]

    @property
    def count(self):
        return self.reply["execution_count"]

    @property
    def stdout(self):
        return self.stream("stdout")

    @property
    def stderr(self):
        return self.stream("stderr")

    def stream(self, name):
        return "".join(content["text"] for content in self.of("stream") if content["name"] == name)

    def of(self, kind):
        return [content for what, content in self.published if what == kind]

    @property
    def result(self):
        """The plain text of the cell's value, or None."""
        texts = [content["data"].get("text/plain") for content in self.of("execute_result")]
        return texts[-1] if texts else None

    @property
    def shown(self):
        """Every bundle on show, the value of the cell among them."""
        return [c["data"] for kind, c in self.published if kind in ("display_data", "execute_result")]

    @property
    def told(self):
        """All that the reply says of an error, without colours."""
        parts = [self.reply.get("ename", ""), self.reply.get("evalue", ""), *self.reply.get("traceback", [])]
        return plain("\n".join(parts))

    def __str__(self):
        return f"reply {self.reply}\npublished {self.published}"


class Connection:
    """A client of a kernel that runs: requests, and the messages that answer them."""

    def __init__(self, client):
        self.client = client
        self.client.start_channels()
        self.published, self.replies = [], {}

    def run(self, code, timeout=None, **options):
        """Runs a cell to its end."""
        return self.wait(self.send(code, **options), timeout)

    def send(self, code, **options):
        return self.client.execute(code, allow_stdin=False, **options)

    def wait(self, request, timeout=None):
        reply = self.reply_to(request, timeout)
        self.until(lambda: self.is_idle(request), timeout, "the kernel never said that it is idle")
        return Cell(reply, self.published_for(request))

    def reply_to(self, request, timeout=None):
        what = "no reply" if isinstance(request, str) else "none of the replies"
        self.until(lambda: request in self.replies, timeout, what)
        return self.replies[request]

    def ask(self, kind, *arguments, **options):
        """The content of the reply to a request such as `complete`, `inspect` or `kernel_info`."""
        return self.reply_to(getattr(self.client, kind)(*arguments, **options))["content"]

    def published_for(self, request):
        return [message for message in self.published if message["parent_header"].get("msg_id") == request]

    def seen(self, request):
        """The text that has arrived so far on standard output."""
        return "".join(
            message["content"]["text"]
            for message in self.published_for(request)
            if message["msg_type"] == "stream" and message["content"]["name"] == "stdout"
        )

    def wait_for(self, request, text, timeout=None):
        """Waits until `text` has arrived on standard output; the cell may still run."""
        self.until(lambda: text in self.seen(request), timeout, f"{text!r} never arrived")

    def is_idle(self, request):
        return any(
            message["msg_type"] == "status" and message["content"]["execution_state"] == "idle"
            for message in self.published_for(request)
        )

    def until(self, done, timeout, what):
        """Reads messages until `done()`."""
        timeout = timeout or PATIENCE
        end = time.monotonic() + timeout
        while not done():
            if time.monotonic() > end:
                raise AssertionError(f"{what} within {timeout} s")
            self.read()

    def read(self, pause=0.02):
        """Takes in what has arrived; waits a moment if nothing has."""
        while (message := taken(self.client.get_shell_msg)) is not None:
            self.replies[message["parent_header"].get("msg_id")] = checked(message)
        message = taken(self.client.get_iopub_msg, pause)
        while message is not None:
            self.published.append(checked(message))
            message = taken(self.client.get_iopub_msg)

    def close(self):
        self.client.stop_channels()


class Kernel(Connection):
    """A kernel of our own, ended with `stop`; unless `environment` says otherwise no spare is made for its end."""

    def __init__(self, name="thalweg", environment=None, folder=NOTEBOOKS):
        self.manager = KernelManager(kernel_name=name)
        self.manager.start_kernel(cwd=str(folder), env={**os.environ, "THALWEG_SPARE": "0", **(environment or {})})
        super().__init__(self.manager.client())

    @classmethod
    def ready(cls, **options):
        """A kernel that has run a first cell, which is number 1."""
        kernel = cls(**options)
        kernel.run("()")
        return kernel

    @property
    def pid(self):
        return self.manager.provisioner.process.pid

    def interrupt(self):
        self.manager.interrupt_kernel()

    def restart(self):
        """What a front end's button does: the process is shut down and another one started."""
        self.close()
        self.manager.restart_kernel()
        super().__init__(self.manager.client())

    def stop(self):
        self.close()
        if self.manager.has_kernel:
            self.manager.shutdown_kernel()


def shared():
    """The one kernel that most tests use, for a start takes long; it has loaded a model, and a test leaves it usable."""
    if not hasattr(shared, "kernel"):
        shared.kernel = Kernel.ready()
        atexit.register(unshare)
        loaded = shared.kernel.run(MODEL)
        assert loaded.status == "ok", loaded
    return shared.kernel


def unshare():
    if hasattr(shared, "kernel"):
        shared.kernel.stop()
        del shared.kernel


def taken(get, timeout=0):
    try:
        return get(timeout=timeout)
    except Empty:
        return None


def checked(message):
    """The message, if it is as the protocol wants it. Of aborted requests the schema knows an old form only."""
    if message["content"].get("status") != "aborted" and message["msg_type"] in schema_fragments:
        try:
            validate_message(message)
        except ValidationError as error:
            raise AssertionError(f"{message['msg_type']}: {error.message}\n{message['content']}") from None
    return message


def plain(text):
    """The text without terminal colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)
