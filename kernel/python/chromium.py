"""A headless Chromium, driven by its DevTools protocol; it reaches this machine and nothing else."""

import base64
import json
import pathlib
import shutil
import subprocess
import tempfile
import time
import urllib.request

import websocket

NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    "--remote-debugging-port=0",
]


def installed():
    """The path of a Chromium on this machine, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """One browser with one page."""

    def __init__(self, width=1300, height=1600):
        self.profile = tempfile.TemporaryDirectory(prefix="thalweg-chromium-", ignore_cleanup_errors=True)
        command = [installed(), *OPTIONS, f"--user-data-dir={self.profile.name}", f"--window-size={width},{height}", "about:blank"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.number = 0
        self.socket = websocket.create_connection(self.address(), suppress_origin=True, timeout=300)
        self.ask("Page.enable")
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def address(self):
        """The page's own socket, once the browser has written its port."""
        file = pathlib.Path(self.profile.name) / "DevToolsActivePort"
        port = until(lambda: file.exists() and file.read_text().split("\n")[0], 60, "Chromium did not start")
        pages = lambda: [page for page in fetched(f"http://127.0.0.1:{port}/json") if page["type"] == "page"]
        return until(pages, 60, "Chromium opened no page")[0]["webSocketDebuggerUrl"]

    def ask(self, method, **parameters):
        """One command of the protocol, and its result."""
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == self.number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]

    def open(self, url):
        self.ask("Page.navigate", url=url)

    def reload(self):
        self.run("window.thalwegOld = true")
        self.ask("Page.reload")
        self.wait("!window.thalwegOld", "the page was not loaded anew")

    def run(self, script):
        """The value of a JavaScript expression; a promise is awaited."""
        result = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, f"{script}: {result['exceptionDetails']}"
        return result["result"].get("value")

    def wait(self, script, what, seconds=300):
        """Waits until the expression is true, also while a page is loaded."""

        def holds():
            try:
                return self.run(script)
            except AssertionError:
                return False

        return until(holds, seconds, what)

    def click(self, selector, text=""):
        """A click of the mouse in the middle of the first element shown that matches and contains `text`."""
        place = self.wait(
            f"""(() => {{
                const shown = [...document.querySelectorAll({json.dumps(selector)})].filter(
                    one => one.textContent.includes({json.dumps(text)}) && one.getBoundingClientRect().width > 0);
                if (!shown.length) return null;
                const box = shown[0].getBoundingClientRect();
                return [box.x + box.width / 2, box.y + box.height / 2];
            }})()""",
            f"no {selector} with {text!r} to click",
        )
        self.point(*place)
        for kind in ["mousePressed", "mouseReleased"]:
            self.ask("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def point(self, x, y):
        """Moves the mouse there."""
        self.ask("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def picture(self, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot")["data"]))

    def close(self):
        self.socket.close()
        self.process.terminate()
        self.process.wait(timeout=30)
        self.profile.cleanup()


def fetched(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)


def until(value, seconds, what):
    """Waits until `value()` is something, and returns it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if found := value():
                return found
        except OSError:
            pass  # nobody listens yet
        time.sleep(0.2)
    raise AssertionError(f"{what} within {seconds} s")
