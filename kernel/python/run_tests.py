"""Runs test modules of this folder by name and closes with a line of counts as cargo's test runner writes it."""

import sys
import time
import unittest

import client


class Lines(unittest.TestResult):
    """A line for each test, and what failed in full at the end."""

    def __init__(self):
        super().__init__()
        self.passed, self.began = 0, 0.0

    def startTest(self, test):
        super().startTest(test)
        self.began = time.monotonic()
        self.before = len(self.failures) + len(self.errors) + len(self.skipped)

    def stopTest(self, test):
        super().stopTest(test)
        wrong = len(self.failures) + len(self.errors) + len(self.skipped) > self.before
        self.passed += not wrong
        name = f"{type(test).__name__}.{test._testMethodName}"
        print(f"test {name} ... {'FAILED' if wrong else 'ok'} ({time.monotonic() - self.began:.1f} s)", flush=True)

    def close(self, seconds):
        wrong = self.failures + self.errors
        for test, text in wrong:
            print(f"\n---- {test}\n{text}")
        for test, reason in self.skipped:
            print(f"\n---- {test} left out: {reason}")
        failed = len({str(getattr(test, "test_case", test)) for test, _ in wrong})
        print(
            f"test result: {'FAILED' if wrong else 'ok'}. {self.passed} passed; {failed} failed; "
            f"{len(self.skipped)} ignored; finished in {seconds:.0f}s",
            flush=True,
        )
        return 1 if wrong or not self.passed + len(self.skipped) else 0


def main():
    began = time.monotonic()
    tests = unittest.defaultTestLoader.loadTestsFromNames(sys.argv[1:])
    result = Lines()
    tests.run(result)
    client.unshare()
    sys.exit(result.close(time.monotonic() - began))


if __name__ == "__main__":
    main()
