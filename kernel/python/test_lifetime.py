"""How kernels begin, live beside each other and end."""

import json
import subprocess
import sys
import time
import unittest

import psutil
from jupyter_client.blocking.client import BlockingKernelClient

from client import NOTEBOOKS, PATIENCE, Connection, Kernel

# Starts a kernel as a front end does, says where it is, and waits until it is killed.
FRONT_END = """
import json, sys, time
from jupyter_client.manager import KernelManager
manager = KernelManager(kernel_name="thalweg")
manager.start_kernel(cwd=sys.argv[1])
print(json.dumps([manager.connection_file, manager.provisioner.process.pid]), flush=True)
time.sleep(3600)
"""


class TwoKernels(unittest.TestCase):
    """One of our own, and one whose front end is killed in the end."""

    @classmethod
    def setUpClass(cls):
        cls.first = Kernel()
        cls.addClassCleanup(cls.first.stop)
        cls.front_end = subprocess.Popen([sys.executable, "-c", FRONT_END, NOTEBOOKS], stdout=subprocess.PIPE)
        cls.addClassCleanup(cls.front_end.kill)
        cls.file, cls.pid = json.loads(cls.front_end.stdout.readline())
        client = BlockingKernelClient(connection_file=cls.file)
        client.load_connection_file()
        cls.second = Connection(client)

    def test_1_a_kernel_answers_while_it_warms_up(self):
        cell = self.first.send("1")
        self.assertEqual(self.first.ask("kernel_info")["language_info"]["name"], "rust")
        self.assertEqual(self.first.ask("is_complete", "1 + 1")["status"], "complete")
        self.assertEqual(self.first.ask("comm_info")["comms"], {})
        self.assertNotIn(cell, self.first.replies)
        done = self.first.wait(cell)
        self.assertEqual((done.result, done.count), ("1", 1))

    def test_2_two_kernels_never_mix(self):
        kernels = {"Rhine": self.first, "Danube": self.second}
        for name, kernel in kernels.items():
            kernel.run(f'let mine = String::from("{name}");')
        for number in range(6):
            sent = {name: kernel.send(f'println!("{name} {number} is {{mine}}"); {number}{len(name)}')
                    for name, kernel in kernels.items()}
            for name, kernel in kernels.items():
                cell = kernel.wait(sent[name])
                self.assertEqual(cell.stdout, f"{name} {number} is {name}\n")
                self.assertEqual(cell.result, str(int(f"{number}{len(name)}")))

    def test_3_a_kernel_and_all_that_it_started_end_with_the_front_end(self):
        self.second.run("1")
        kernel = psutil.Process(self.pid)
        family = [kernel, *kernel.children(recursive=True)]
        self.assertGreater(len(family), 1, "cells run in a process of their own")
        cell = self.second.send('println!("runs"); loop {}')
        self.second.wait_for(cell, "runs")
        self.front_end.kill()
        self.front_end.wait()
        _, alive = psutil.wait_procs(family, timeout=PATIENCE)
        self.assertEqual(alive, [])
        self.second.close()
        self.assertEqual(self.first.run("mine.len()").result, "5")

    def test_4_a_kernel_that_is_shut_down_leaves_no_process(self):
        kernel = psutil.Process(self.first.pid)
        family = kernel.children(recursive=True)
        self.first.stop()
        _, alive = psutil.wait_procs(family, timeout=PATIENCE)
        self.assertEqual(alive, [])


class WarmSpare(unittest.TestCase):
    def test_a_spare_takes_over_at_a_restart_and_ends_with_the_kernel(self):
        kernel = Kernel(environment={"THALWEG_SPARE": "1"})
        self.addCleanup(kernel.stop)
        kernel.run("let before = 1;")
        spare = self.spare(kernel)
        kernel.restart()
        cells = int(kernel.run("std::process::id()").result)
        self.assertIn(cells, [child.pid for child in spare.children()], "the spare runs the cells")
        self.assertEqual(kernel.run("before").status, "error")
        self.assertIn(str(NOTEBOOKS), kernel.run("std::env::current_dir()?").result)
        kernel.stop()
        _, alive = psutil.wait_procs([spare], timeout=PATIENCE)
        self.assertEqual(alive, [])

    def spare(self, kernel):
        """The spare that a kernel starts when it has been idle for a while."""
        for _ in range(PATIENCE):
            for child in psutil.Process(kernel.pid).children():
                if child.cmdline()[1:] == ["spare"]:
                    return child
            time.sleep(1)
        raise AssertionError("no spare was started")


if __name__ == "__main__":
    unittest.main()
