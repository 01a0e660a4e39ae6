//! Rules of the house that no compiler checks.

mod notebooks;

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `dir` with one of these extensions, with its text.
fn files(dir: &str, extensions: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open = vec![root().join(dir)];
    while let Some(path) = open.pop() {
        let Ok(entries) = fs::read_dir(&path) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            let built = path.ends_with("target") || hidden;
            if path.is_dir() && !built {
                open.push(path);
            } else if has_extension(&path, extensions)
                && let Ok(text) = fs::read_to_string(&path)
            {
                let name = path.strip_prefix(root()).unwrap_or(&path);
                found.push((name.display().to_string(), text));
            }
        }
    }
    found.sort();
    found
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let own = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    extensions.contains(&own)
}

/// The library's lines, less comments: file, line number, code.
fn code() -> Vec<(String, usize, String)> {
    let mut lines = Vec::new();
    for (name, text) in files("src", &["rs"]) {
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if !code.trim().is_empty() {
                lines.push((name.clone(), number + 1, code.to_owned()));
            }
        }
    }
    lines
}

fn none(what: &str, offenders: Vec<String>) {
    assert!(offenders.is_empty(), "{what}:\n  {}", offenders.join("\n  "));
}

/// What a module may import: itself, and everything of a lower stage.
const STAGES: &[(&str, &[&str])] = &[
    ("interrupt", &[]),
    ("show", &[]),
    ("rng", &[]),
    ("index", &[]),
    ("config", &[]),
    ("record", &["show", "text"]),
    ("base64", &[]),
    ("http", &[]),
    ("files", &[]),
    ("text", &["index"]),
    ("prompts", &["text", "index", "rng", "hook", "grid"]),
    ("hook", &["config", "text", "index", "files", "record", "interrupt"]),
    ("grid", &["hook::site", "record", "show"]),
    (
        "remote",
        &["base64", "text", "hook", "index", "files", "http", "record", "show", "interrupt"],
    ),
    (
        "model",
        &[
            "config",
            "text",
            "index",
            "files",
            "hook",
            "rng",
            "prompts",
            "grid",
            "http",
            "record",
            "remote",
            "show",
            "interrupt",
        ],
    ),
    (
        "analysis",
        &[
            "config",
            "text",
            "index",
            "hook",
            "rng",
            "prompts",
            "grid",
            "model",
            "record",
            "files",
            "show",
            "interrupt",
        ],
    ),
    ("figure", &["base64", "text", "grid", "hook::site", "record", "show"]),
];

#[test]
fn modules_import_only_what_lies_below_them() {
    let mut offenders = Vec::new();
    for (file, number, line) in code() {
        let path = file.trim_start_matches("src/").trim_end_matches(".rs");
        let own = path.split('/').next().unwrap_or_default();
        let Some((_, allowed)) = STAGES.iter().find(|stage| stage.0 == own) else { continue };
        for part in line.split("crate::").skip(1) {
            let named = part.split([';', ',', ' ', '(', ')', '{', '<']).next().unwrap_or_default();
            let lies_in = |module: &str| {
                named
                    .strip_prefix(module)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
            };
            if !allowed.iter().any(|module| lies_in(module)) && !lies_in(own) {
                offenders.push(format!("{file}:{number}: {own} names crate::{named}"));
            }
        }
    }
    none("imports against the direction", offenders);
}

#[test]
fn the_forward_page_knows_the_tap_and_not_the_plan() {
    let page = fs::read_to_string(root().join("src/model/forward.rs")).unwrap();
    for word in ["Plan", "Program", "Intervention", "Cache"] {
        assert!(!page.contains(word), "src/model/forward.rs names {word}");
    }
}

#[test]
fn every_source_file_that_was_written_by_hand_has_at_most_400_lines() {
    let all = ["src", "tests", "book", "capture", "kernel", "examples", "benches"].into_iter();
    let long = all.flat_map(|dir| files(dir, &["rs"])).filter_map(|(name, text)| {
        let lines = text.lines().count();
        let exported = text.starts_with("//! Exported from "); // as long as its notebook
        (lines > 400 && !exported).then(|| format!("{name} has {lines} lines"))
    });
    none("long files", long.collect());
}

#[test]
fn one_file_of_the_library_writes_what_notebooks_and_people_read() {
    let words = ["println!", "print!(", "dbg!", "stdout()", "stderr()"];
    let offenders = code().into_iter().filter(|(file, _, line)| {
        file != "src/show/outlet.rs" && words.iter().any(|word| line.contains(word))
    });
    none("prints", offenders.map(|(file, n, line)| format!("{file}:{n}: {line}")).collect());
}

#[test]
fn the_library_has_no_global_state_no_unsafe_code_and_nothing_unfinished() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    assert!(lib.contains("#![forbid(unsafe_code)]"), "src/lib.rs does not forbid unsafe code");
    let words = ["todo!", "unimplemented!", "unsafe {", "thread_local!", "OnceLock", "LazyLock"];
    let offenders = code().into_iter().filter(|(_, _, line)| {
        let start = line.trim_start().trim_start_matches("pub ").trim_start_matches("pub(crate) ");
        start.starts_with("static ") || words.iter().any(|word| line.contains(word))
    });
    none("not here", offenders.map(|(file, n, line)| format!("{file}:{n}: {line}")).collect());
    let marks = [concat!("FIX", "ME"), concat!("TO", "DO"), concat!("XX", "X:")];
    let mut unfinished = Vec::new();
    for dir in ["src", "tests", "book", "capture", "kernel", "examples", "benches", "notebooks"] {
        for (name, text) in files(dir, &["rs", "py", "ipynb", "md"]) {
            let marked = marks.iter().any(|mark| text.contains(mark));
            if marked || text.contains(concat!("#[ign", "ore")) {
                unfinished.push(name);
            }
        }
    }
    none("unfinished or ignored", unfinished);
}

#[test]
fn notebooks_ask_for_no_dependency() {
    let notebooks = files("notebooks", &["ipynb"]);
    let asking = notebooks.iter().filter(|(_, text)| text.contains(":dep "));
    none("notebooks with :dep", asking.map(|(name, _)| name.clone()).collect());
}

#[test]
fn no_file_names_a_path_of_one_machine() {
    let paths = ["/ro", "/wo", "/ho"].into_iter().zip(["ot/", "rk/", "me/"]);
    let paths: Vec<String> = paths.map(|(a, b)| format!("{a}{b}")).collect();
    let mut offenders = Vec::new();
    for dir in [
        "src",
        "tests",
        "book",
        "capture",
        "kernel",
        "examples",
        "benches",
        "notebooks",
        "data",
        ".ci",
    ] {
        let kinds = ["rs", "py", "ipynb", "md", "json", "toml", "sh", "html", "txt", ""];
        for (name, text) in files(dir, &kinds) {
            // A path begins a word: "ad/home/x" is a relative one.
            let names = |path: &String| {
                text.match_indices(path.as_str()).any(|(at, _)| {
                    let before = text[..at].chars().next_back();
                    !before.is_some_and(|c| c.is_alphanumeric() || "_.-}>".contains(c))
                })
            };
            if paths.iter().any(names) {
                offenders.push(name);
            }
        }
    }
    none("absolute paths", offenders);
}
