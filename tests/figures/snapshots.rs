//! The plotly JSON and the SVG of every kind of figure are as they were; a change shows as a difference
//! in `tests/figures/snapshots`. To take new ones:
//! `THALWEG_SNAPSHOTS=new cargo test --test integration figures::snapshots`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::{gallery, tools};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/figures/snapshots")
}

#[test]
fn plotly_s_python_package_takes_every_snapshot() {
    let Some(python) = tools::python() else {
        return tools::skip(
            "figures against plotly's Python package: no environment of the lab here",
        );
    };
    let script = folder().with_file_name("schema.py");
    let ran = Command::new(python).arg(script).arg(folder()).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let taken = String::from_utf8_lossy(&ran.stdout).lines().count();
    assert!(taken >= 20, "only {taken} snapshots have plotly JSON");
}

#[test]
fn json_and_svg_of_every_kind_are_as_they_were() {
    let folder = folder();
    let renew = std::env::var_os("THALWEG_SNAPSHOTS").is_some();
    let mut changed = Vec::new();
    let mut known = vec!["README.md".to_string()];
    for (name, figure) in gallery::all() {
        let bundle = figure.bundle().unwrap();
        let json: serde_json::Value = serde_json::from_str(&bundle.plotly).unwrap_or_default();
        for (ending, text) in
            [("json", pretty(&json, 0)), ("svg", bundle.svg.replace("><", ">\n<"))]
        {
            let file = format!("{name}.{ending}");
            // What plotly does not draw has no JSON.
            if ending == "json" && bundle.plotly.is_empty() {
                continue;
            }
            let path = folder.join(&file);
            if renew {
                fs::write(&path, text + "\n").unwrap();
            } else if fs::read_to_string(&path).ok().as_deref() != Some(&(text + "\n")) {
                changed.push(file.clone());
            }
            known.push(file);
        }
    }
    assert!(changed.is_empty(), "not as in tests/figures/snapshots: {changed:?}");
    let stray = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let stray: Vec<String> = stray.filter(|file| !known.contains(file)).collect();
    assert!(stray.is_empty(), "no figure of the gallery: {stray:?}");
}

/// JSON with a line for each entry of its first three levels.
fn pretty(json: &serde_json::Value, depth: usize) -> String {
    let indent = " ".repeat(depth + 1);
    let joined = |lines: Vec<String>, [open, close]: [char; 2]| match lines.is_empty() {
        true => format!("{open}{close}"),
        false => {
            let lines: Vec<String> = lines.iter().map(|line| format!("\n{indent}{line}")).collect();
            format!("{open}{}\n{}{close}", lines.join(","), " ".repeat(depth))
        }
    };
    match json {
        serde_json::Value::Object(entries) if depth < 3 => {
            let line = |(key, value)| format!("{key:?}: {}", pretty(value, depth + 1));
            joined(entries.iter().map(line).collect(), ['{', '}'])
        }
        serde_json::Value::Array(items)
            if depth < 3 && items.iter().any(|item| item.is_object()) =>
        {
            joined(items.iter().map(|item| pretty(item, depth + 1)).collect(), ['[', ']'])
        }
        other => other.to_string(),
    }
}
