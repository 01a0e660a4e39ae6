//! A test of its own in a process of its own, for what hangs on the environment.

use std::path::Path;
use std::process::{Command, Output};

/// Names the case that the child is to run.
const CASE: &str = "THALWEG_TEST_CASE";

/// In the child: the case to run.
pub(crate) fn case() -> Option<String> {
    std::env::var(CASE).ok()
}

/// Runs one test of this binary as a child, in no notebook but what `variables` say.
pub(crate) fn child(test: &str, case: &str, variables: &[(&str, &Path)]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(CASE, case);
    for name in ["THALWEG_DISPLAY", "EVCXR_IS_RUNTIME", "THALWEG_INTERRUPT"] {
        command.env_remove(name);
    }
    command.envs(variables.iter().copied());
    command
}

/// What a child that must succeed wrote to standard output and error.
pub(crate) fn written(mut child: Command) -> (String, String) {
    let Output { status, stdout, stderr } = child.output().unwrap();
    let [out, err] = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(status.success(), "{out}\n{err}");
    (out, err)
}
