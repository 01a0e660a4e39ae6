//! `slurm.sh`: its tasks, with Slurm's variables set by hand, and both of its jobs, with a `sbatch` that
//! runs at once what Slurm would run later.

use std::path::Path;
use std::process::{Command, Stdio};

use super::{bash, program, recipe};
use crate::support::{Folder, command, content, ok, run, same, text, world};

const WORDS: [&str; 8] =
    ["--device", "cpu", "--compute", "f32", "--prompts-per-shard", "12", "--batch-tokens", "64"];

fn slurm(prompts: &Path, out: &Path) -> Command {
    let mut command = bash(&recipe("slurm.sh"));
    command.env("CAPTURE", env!("CARGO_BIN_EXE_capture")).env("MODEL", world());
    command.env("PROMPTS", prompts).env("OUT", out);
    command
}

fn task(prompts: &Path, out: &Path, i: usize, n: usize) -> Command {
    let mut command = slurm(prompts, out);
    command.args(WORDS).env("SLURM_JOB_ID", "7");
    command.env("SLURM_ARRAY_TASK_ID", i.to_string());
    command.env("SLURM_ARRAY_TASK_COUNT", n.to_string());
    command
}

/// The job that runs when the tasks have ended.
fn check(prompts: &Path, out: &Path) -> Command {
    let mut command = slurm(prompts, out);
    command.env("SLURM_JOB_ID", "8");
    command
}

#[test]
fn the_tasks_of_an_array_together_make_what_one_worker_makes() {
    let folder = Folder::new("slurm");
    let prompts = folder.write("prompts.txt", &text(120));
    let (whole, array) = (folder.path("whole"), folder.path("array"));
    ok(&mut run(&prompts, &whole, &WORDS[4..]));
    let together =
        [3, 1].map(|i| task(&prompts, &array, i, 4).stdout(Stdio::null()).spawn().unwrap());
    for mut task in together {
        assert!(task.wait().unwrap().success());
    }
    let early = check(&prompts, &array).output().unwrap();
    assert_eq!(early.status.code(), Some(1));
    assert!(String::from_utf8(early.stdout).unwrap().contains("missing"));
    for i in [0, 2, 2] {
        ok(&mut task(&prompts, &array, i, 4)); // one of them is queued again
    }
    ok(&mut check(&prompts, &array));
    same(&whole, &array);
}

#[test]
fn one_task_of_an_array_submitted_again_takes_its_own_share() {
    let folder = Folder::new("slurm-again");
    let prompts = folder.write("prompts.txt", &text(60));
    let (alone, whole) = (folder.path("alone"), folder.path("whole"));
    for i in 0..3 {
        let mut again = task(&prompts, &alone, i, 1); // an array of one task, numbered i
        ok(again.env("TASKS", "3"));
        let shards = |dir: &Path| {
            content(dir).iter().filter(|(name, _)| name.ends_with(".safetensors")).count()
        };
        assert!(shards(&alone) > 0);
    }
    ok(&mut run(&prompts, &whole, &WORDS[4..]));
    same(&whole, &alone);
    let strange = task(&prompts, &alone, 3, 1).output().unwrap();
    assert_eq!(strange.status.code(), Some(2));
    assert!(String::from_utf8(strange.stderr).unwrap().contains("worker 3/1"));
}

#[test]
fn called_on_the_login_node_it_submits_the_array_and_then_the_check() {
    let folder = Folder::new("slurm-login");
    let prompts = folder.write("prompts.txt", &text(60));
    let (out, whole, log) = (folder.path("out"), folder.path("whole"), folder.path("log"));
    let sbatch = r#"
        echo "$@" >> "$LOG"
        array= id=8
        while [[ $1 == --* ]]; do [[ $1 == --array=0-* ]] && array=${1#--array=0-}; shift; done
        if [[ -n $array ]]; then
          id=7
          for ((i = 0; i <= array; i++)); do
            SLURM_JOB_ID=7 SLURM_ARRAY_TASK_ID=$i SLURM_ARRAY_TASK_COUNT=$((array + 1)) bash "$@" >> "$LOG" 2>&1 &
          done
          wait
        else
          SLURM_JOB_ID=8 bash "$@" >> "$LOG" 2>&1
        fi
        echo $id"#;
    program(&folder.path("sbatch"), sbatch);
    let path = std::env::var("PATH").unwrap();
    let here = folder.path("").display().to_string();
    let mut login = slurm(&prompts, &out);
    login.env("PATH", format!("{here}:{path}")).env("LOG", &log).env("TASKS", "3");
    login.env("SBATCH_EACH", "--gpus=1 --partition=gpu").args(WORDS);
    let said = ok(&mut login);
    assert_eq!(said, "capture: array 7 of 3 tasks, then check 8\n");
    let log = std::fs::read_to_string(log).unwrap();
    let first = log.lines().next().unwrap();
    assert!(first.starts_with("--parsable --array=0-2 --gpus=1 --partition=gpu "), "{first}");
    assert!(first.ends_with(&WORDS.join(" ")), "{first}");
    let (array, check) = log.split_once("--dependency=afterany:7").unwrap();
    assert!(!array.contains("whole") && check.trim_end().ends_with("out: whole"), "{log}");
    ok(&mut run(&prompts, &whole, &WORDS[4..]));
    same(&whole, &out);
}

#[test]
fn statistics_by_an_array_are_those_of_one_worker() {
    let folder = Folder::new("slurm-statistics");
    let prompts = folder.write("prompts.txt", &text(60));
    let (whole, array) = (folder.path("whole"), folder.path("array"));
    let mut one = command(&["statistics"]);
    ok(one.args([&prompts, &whole]).arg("--model").arg(world()).args(WORDS));
    for i in [2, 0, 1] {
        ok(task(&prompts, &array, i, 3).env("WHAT", "statistics"));
    }
    ok(&mut check(&prompts, &array));
    same(&whole, &array);
}

#[test]
fn what_is_not_said_is_asked_for() {
    let output = bash(&recipe("slurm.sh")).env_remove("PROMPTS").output().unwrap();
    assert!(!output.status.success());
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("PROMPTS: a file of prompts"), "{error}");
}
