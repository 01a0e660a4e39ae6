"""A JupyterLab of our Python environment on a copy of notebooks, with settings, signatures and workspaces of its own."""

import json
import os
import pathlib
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile

import chromium


class Lab:
    """Serves copies of `notebooks` from a folder that has `data` beside it. `kernel` names the specification by which kernels
    start; without it a Python kernel that nobody uses takes the place of ours, for that costs nothing."""

    def __init__(self, notebooks, data, real_kernel=False):
        self.home = tempfile.TemporaryDirectory(prefix="thalweg-lab-", ignore_cleanup_errors=True)
        home = pathlib.Path(self.home.name)
        self.folder = home / "clone" / "notebooks"
        self.folder.mkdir(parents=True)
        (home / "clone" / "data").symlink_to(data)
        for notebook in notebooks:
            shutil.copy(notebook, self.folder)
        self.environment = {
            **os.environ,
            "JUPYTER_CONFIG_DIR": str(home / "config"),
            "JUPYTER_DATA_DIR": str(home / "data"),
            "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
            "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
            "THALWEG_SPARE": "0",
        }
        if not real_kernel:
            self.environment["JUPYTER_PATH"] = str(stand_in(home / "kernels"))
        quiet = home / "settings" / "@jupyterlab" / "apputils-extension"
        quiet.mkdir(parents=True)
        (quiet / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
        self.token, self.port = secrets.token_hex(16), free_port()
        self.log = home / "log"
        self.process = self.start()
        chromium.until(self.answers, 120, "JupyterLab did not start")

    def start(self):
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--ServerApp.port={self.port}"]
        command += ["--ServerApp.ip=127.0.0.1", f"--IdentityProvider.token={self.token}", "--ServerApp.port_retries=0"]
        command += ["--expose-app-in-browser"]  # as window.jupyterapp
        with open(self.log, "w") as log:
            return subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=log, stderr=log)

    def answers(self):
        assert self.process.poll() is None, self.log.read_text()
        return chromium.fetched(f"http://127.0.0.1:{self.port}/api/status?token={self.token}")

    def address(self, name):
        """The page of one notebook, in a workspace of its own, so that no other one opens beside it."""
        workspace = name.split(".")[0]
        return f"http://127.0.0.1:{self.port}/lab/workspaces/{workspace}/tree/{name}?token={self.token}"

    def kernels(self):
        """The states of all running kernels."""
        return [one["execution_state"] for one in chromium.fetched(f"http://127.0.0.1:{self.port}/api/kernels?token={self.token}")]

    def trust(self, name):
        """What `jupyter trust` does."""
        command = [sys.executable, "-m", "nbformat.sign", str(self.folder / name)]
        subprocess.run(command, env=self.environment, check=True, stdout=subprocess.DEVNULL)

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=60)
        self.home.cleanup()


def stand_in(folder):
    spec = folder / "kernels" / "thalweg"
    spec.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "Rust (thalweg)", "language": "rust"}))
    return folder


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
