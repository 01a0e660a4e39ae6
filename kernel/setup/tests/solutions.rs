//! How solutions of exercises are read from notebooks; Python's own tests, which need nothing but Python.

use std::path::Path;
use std::process::Command;

#[test]
fn solutions_are_read_from_text_cells_as_they_are_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("python");
    let mut python = Command::new("python3");
    python.args(["-B", "-m", "unittest", "test_solutions"]).current_dir(folder);
    let output = python.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
