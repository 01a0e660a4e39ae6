//! What is wrong is said in one line that names it, and `capture check` finds it.

use std::fs;
use std::path::Path;
use std::process::Command;

use thalweg_capture::{Captured, check};

use crate::support::{Folder, command, content, ok, refused, run, same, text};

const WORDS: [&str; 4] =
    ["--prompts-per-shard", "10", "--sites", "hook_embed,blocks.{1..2}.hook_resid_post"];

fn whole(name: &str) -> (Folder, std::path::PathBuf, std::path::PathBuf) {
    let folder = Folder::new(name);
    let prompts = folder.write("prompts.txt", &text(30));
    let out = folder.path("out");
    ok(&mut run(&prompts, &out, &WORDS));
    assert!(ok(command(&["check"]).arg(&out)).contains("whole"));
    (folder, prompts, out)
}

/// The one fault of a directory; opening it says the same, where the shards are at fault.
fn fault(out: &Path, opens: bool) -> String {
    let said = refused(command(&["check"]).arg(out));
    match Captured::open(out) {
        Ok(_) => assert!(opens, "it opens in spite of: {said}"),
        Err(error) => assert!(!opens && !error.to_string().contains('\n'), "{error}"),
    }
    said
}

#[test]
fn damaged_shards_are_found() {
    let (_folder, prompts, out) = whole("damaged");
    let shard = out.join("shard-00001.safetensors");
    let bytes = fs::read(&shard).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let text = String::from_utf8(bytes[8..8 + header].to_vec()).unwrap();
    let with = |text: &str| {
        [&(text.len() as u64).to_le_bytes(), text.as_bytes(), &bytes[8 + header..]].concat()
    };

    fs::write(&shard, &bytes[..bytes.len() - 100]).unwrap();
    assert!(fault(&out, false).contains("shard-00001.safetensors: damaged"));
    fs::write(&shard, &bytes[..6]).unwrap();
    assert!(fault(&out, false).contains("shorter than 8 bytes"));
    fs::write(&shard, [&u64::MAX.to_le_bytes(), &bytes[8..]].concat()).unwrap();
    assert!(fault(&out, false).contains("the header claims"));
    fs::write(&shard, with(&text.replace(",128]", ",64,2]"))).unwrap();
    assert!(fault(&out, false).contains("expected F32 ["), "a wrong shape");
    fs::write(&shard, with(&text.replace("hook_embed", "hook_bedem"))).unwrap();
    assert!(fault(&out, false).contains("it lacks hook_embed"));
    fs::write(&shard, with(&text.replace("\"shard\":\"1\"", "\"shard\":\"2\""))).unwrap();
    assert!(fault(&out, false).contains("it is shard 2 under a wrong name"));
    let mut twice = bytes.clone();
    twice[8 + header] ^= 1; // the first row's prompt
    fs::write(&shard, &twice).unwrap();
    assert!(fault(&out, true).contains("missing or twice"));
    fs::remove_file(&shard).unwrap();
    assert!(fault(&out, false).contains("missing"));
    ok(&mut run(&prompts, &out, &WORDS));
    assert_eq!(fs::read(&shard).unwrap(), bytes, "the capture goes on and makes it again");
    assert!(check(&out).unwrap().is_empty());
}

#[test]
fn what_is_of_another_capture_is_found() {
    let (folder, prompts, out) = whole("foreign");
    let other = folder.path("other");
    ok(run(&prompts, &other, &WORDS).args(["--kind", "bf16"]));
    fs::copy(other.join("shard-00000.safetensors"), out.join("shard-00000.safetensors")).unwrap();
    assert!(fault(&out, false).contains("it belongs to another capture"));
    let said = refused(&mut run(&prompts, &out, &WORDS));
    assert!(said.contains("it belongs to another capture"), "{said}");
    fs::remove_file(out.join("shard-00000.safetensors")).unwrap();
    ok(&mut run(&prompts, &out, &WORDS));
    let index = out.join("index/shard-00002.parquet");
    let bytes = fs::read(&index).unwrap();
    fs::copy(out.join("index/shard-00001.parquet"), &index).unwrap();
    assert!(fault(&out, true).contains("shard-00002.parquet: it does not say of row 0"));
    fs::remove_file(&index).unwrap();
    assert!(fault(&out, true).contains("shard-00002.parquet: cannot be read"));
    fs::write(&index, bytes).unwrap();
    fs::write(out.join("shard-00003.safetensors"), "").unwrap();
    assert!(fault(&out, true).contains("shard-00003.safetensors: not of this capture"));
    fs::remove_file(out.join("shard-00003.safetensors")).unwrap();
    let manifest = fs::read_to_string(out.join("capture.json")).unwrap();
    fs::write(out.join("capture.json"), manifest.replace("capture 1", "capture 9")).unwrap();
    assert!(fault(&out, false).contains("its format is \"thalweg capture 9\""));
    fs::write(out.join("capture.json"), manifest.replace("\"tokens\": ", "\"tokens\": 1")).unwrap();
    assert!(fault(&out, true).contains("its totals are not those of the shards"));
}

#[test]
fn a_call_that_differs_names_what_differs() {
    let (folder, prompts, out) = whole("differs");
    for (words, expected) in [
        (["--kind", "f16"], "kind \"f32\", and now it is \"f16\""),
        (["--positions", "last"], "positions \"all\", and now it is \"last\""),
        (["--max-tokens", "5"], "max_tokens 64, and now it is 5"),
        (["--batch-tokens", "5"], "batch_tokens 4096, and now it is 5"),
        (["--compute", "f64"], "model."),
    ] {
        let said = refused(run(&prompts, &out, &WORDS).args(words));
        assert!(said.contains(expected), "{said}");
    }
    let said = refused(&mut run(&folder.write("other.txt", &text(31)), &out, &WORDS));
    assert!(said.contains("begun with prompts."), "{said}");
    // The same prompts from elsewhere are the same prompts.
    ok(&mut run(&folder.write("moved.txt", &text(30)), &out, &WORDS));
    let full = folder.path("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("thesis.tex"), "").unwrap();
    let said = refused(&mut run(&prompts, &full, &WORDS));
    assert!(said.contains("neither empty nor a capture"), "{said}");
    assert!(refused(command(&["check"]).arg(&full)).contains("capture.json"));
}

#[test]
fn a_full_disk_is_one_line_and_leaves_whole_shards() {
    let (folder, prompts, out) = whole("disk");
    // No file may grow beyond 100 kB; a shard takes more.
    let cut = folder.path("cut");
    let call = run(&prompts, &cut, &WORDS);
    let mut limited = Command::new("bash");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 100; exec \"$0\" \"$@\""]).arg(call.get_program());
    limited.args(call.get_args()).env("OMP_NUM_THREADS", "1");
    let said = refused(&mut limited);
    assert!(said.contains("cannot write") && said.contains("shard-00000.safetensors"), "{said}");
    assert!(said.contains("the same command goes on"), "{said}");
    assert!(
        content(&cut)
            .iter()
            .all(|(name, _)| !name.ends_with(".partial") && !name.starts_with("shard"))
    );
    ok(&mut run(&prompts, &cut, &WORDS));
    same(&out, &cut);
}
