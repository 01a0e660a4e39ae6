//! Memory follows from the batch, not from the shard.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{Folder, run, text};

/// The most memory that a call took, MB, and the size of its shard.
fn most(mut call: Command, out: &Path) -> (f64, f64) {
    let mut child = call.stdout(Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0.0;
    loop {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kb = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        most = kb.map_or(most, |kb| f64::max(most, kb / 1e3));
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            let shard = out.join("shard-00000.safetensors");
            return (most, fs::metadata(shard).unwrap().len() as f64 / 1e6);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn memory_does_not_grow_with_the_shard() {
    let folder = Folder::new("memory");
    let sites = "hook_resid_pre,hook_resid_mid,hook_resid_post,hook_attn_out,hook_mlp_out,mlp.hook_pre,mlp.hook_post";
    let words = ["--sites", sites, "--batch-tokens", "512", "--prompts-per-shard", "100000"];
    let of = |n: usize| {
        let out = folder.path(&format!("out-{n}"));
        most(run(&folder.write(&format!("{n}.txt"), &text(n)), &out, &words), &out)
    };
    let ((small, _), (large, shard)) = (of(150), of(1500));
    assert!(shard > 200.0, "the shard has only {shard:.0} MB");
    assert!(large - small < 60.0, "{small:.0} MB, and {large:.0} MB for a shard of {shard:.0} MB");
}
