//! The recipes, run in miniature.

mod data_parallel;
mod slurm;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) fn recipe(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes").join(name)
}

/// A program for the test: a short script in bash.
fn program(path: &Path, text: &str) {
    fs::write(path, format!("#!/bin/bash\n{text}")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A recipe without the variables that the test itself was started with.
pub(crate) fn bash(recipe: &Path) -> Command {
    let mut command = Command::new("bash");
    command.arg(recipe).env("OMP_NUM_THREADS", "1");
    for name in ["SLURM_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "TASKS", "PORT"] {
        command.env_remove(name);
    }
    command
}
