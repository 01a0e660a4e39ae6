//! The command that starts a server.

use std::path::Path;

use crate::support::{Folder, command, ok, refused, world};

fn serve(more: &[&str]) -> std::process::Command {
    let mut serve = command(&["serve"]);
    serve.arg(world()).args(["--shared", "/dev/shm/residuals", "--python", "/opt/python"]);
    serve.args(["--dry-run"]).args(more);
    serve.env_remove("PYTHONPATH").env_remove("VLLM_CPU_OMP_THREADS_BIND");
    serve.env("VLLM_CPU_KVCACHE_SPACE", "2");
    serve
}

#[test]
fn a_dry_run_prints_a_command_that_keeps_every_state_of_the_stream() {
    let line = ok(&mut serve(&["--tensor-parallel", "2", "--port", "8123"]));
    for part in [
        "/opt/python -m vllm.entrypoints.openai.api_server --host 127.0.0.1 --port 8123",
        "--served-model-name tiny-world --dtype float32 --tensor-parallel-size 2",
        r#""method":"extract_hidden_states","num_speculative_tokens":1"#,
        r#""eagle_aux_hidden_state_layer_ids":[0,1,2,3,4]"#,
        r#""kv_connector":"ThalwegConnector","kv_connector_module_path":"thalweg_connector""#,
        r#""shared":"/dev/shm/residuals""#,
        "VLLM_LENS_DISABLE=1",
        "HF_HUB_OFFLINE=1",
    ] {
        assert!(line.contains(part), "no {part} in {line}");
    }
    assert_eq!(line.lines().count(), 1);
    assert!(!line.contains("VLLM_CPU_KVCACHE_SPACE="), "the user's own stays: {line}");
    assert!(!line.contains("prefix-caching") && !line.contains("data-parallel"), "{line}");
}

#[test]
fn options_after_two_dashes_are_vllms_and_come_last() {
    let line = ok(&mut serve(&["--data-parallel", "3", "--", "--max-model-len", "4096"]));
    assert!(line.contains("--data-parallel-size 3"), "{line}");
    assert!(line.trim_end().ends_with("--max-model-len 4096"), "{line}");
}

#[test]
fn a_server_that_steers_shares_no_prefixes() {
    // Pages of a steered prompt would be taken for those of the plain one.
    let line = ok(&mut serve(&["--steering"]));
    assert!(line.contains("--no-enable-prefix-caching"), "{line}");
    assert!(!line.contains("VLLM_LENS_DISABLE"), "{line}");
}

#[test]
fn what_cannot_be_served_is_told_in_a_line() {
    let folder = Folder::new("serve");
    let line = refused(&mut serve(&["--tensor-parallel", "0"]));
    assert!(line.contains("tensor parallel 0: expected 1 or more"), "{line}");

    let none = folder.path("none");
    let mut without = command(&["serve", "--shared", "/tmp/x", "--python", "p", "--dry-run"]);
    assert!(refused(without.arg(&none)).contains("config.json"));

    // A Python without vLLM: any program that fails.
    let shared = folder.path("shared");
    let mut real = command(&["serve", "--python", "/bin/false", "--shared"]);
    let line = refused(real.arg(&shared).arg(world()).env("XDG_CACHE_HOME", folder.path("cache")));
    assert!(line.contains("/bin/false has no vllm: cargo vllm installs it for CPUs"), "{line}");

    let mut nowhere = command(&["serve", "--shared"]);
    nowhere.arg(&shared).arg(world()).env("XDG_CACHE_HOME", folder.path("cache"));
    let line = refused(nowhere.env_remove("THALWEG_VLLM_PYTHON"));
    assert!(line.contains("vLLM is not installed: cargo vllm"), "{line}");
}

#[test]
fn the_connector_is_written_once_and_whole() {
    let folder = Folder::new("connector");
    let first = thalweg_capture::serve::write_connector(&folder.path("cache")).unwrap();
    let path = first.join("thalweg_connector.py");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("class ThalwegConnector"));
    std::fs::write(&path, "broken").unwrap();
    let again = thalweg_capture::serve::write_connector(&folder.path("cache")).unwrap();
    assert_eq!(again, first);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    assert_eq!(std::fs::read_dir(&first).unwrap().count(), 1, "{}", Path::new(&first).display());
}
