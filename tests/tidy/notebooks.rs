//! Rules that every notebook keeps, and what the repository may weigh.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{none, root};

const CODE_CELLS: usize = 20;
const NOTEBOOK: u64 = 1_000_000;
const MODELS: u64 = 16_000_000;
const TREE: u64 = 40_000_000;

/// One notebook, read.
struct Notebook {
    name: String,
    bytes: u64,
    cells: Vec<Value>,
}

impl Notebook {
    fn all() -> Vec<Notebook> {
        let mut paths: Vec<PathBuf> = fs::read_dir(root().join("notebooks"))
            .unwrap()
            .map(|item| item.unwrap().path())
            .collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "ipynb"));
        paths.sort();
        paths.iter().map(|path| Notebook::read(path)).collect()
    }

    fn read(path: &Path) -> Notebook {
        let text = fs::read_to_string(path).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        Notebook {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            bytes: text.len() as u64,
            cells: value["cells"].as_array().unwrap().clone(),
        }
    }

    /// The cells of one kind, `code` or `markdown`.
    fn of(&self, kind: &str) -> Vec<&Value> {
        self.cells.iter().filter(|cell| cell["cell_type"] == kind).collect()
    }

    /// All text cells in one.
    fn prose(&self) -> String {
        self.of("markdown").into_iter().map(|cell| text(&cell["source"]) + "\n\n").collect()
    }

    /// What is wrong with it, a line each.
    fn faults(&self) -> Vec<String> {
        let mut faults = self.faults_of_form();
        faults.extend(self.faults_of_outputs());
        faults.iter().map(|fault| format!("{}: {fault}", self.name)).collect()
    }

    fn faults_of_form(&self) -> Vec<String> {
        let (code, prose) = (self.of("code"), self.prose());
        let first =
            self.of("markdown").first().map(|cell| text(&cell["source"])).unwrap_or_default();
        let last = code.last().map(|cell| text(&cell["source"])).unwrap_or_default();
        let solutions = prose.matches("<summary>Solution ").count();
        let mut faults = Vec::new();
        let mut expect = |holds: bool, fault: String| {
            if !holds {
                faults.push(fault);
            }
        };
        expect(code.len() <= CODE_CELLS, format!("{} code cells", code.len()));
        expect(self.bytes <= NOTEBOOK, format!("{} bytes", self.bytes));
        expect(first.contains('?'), "no question at the top".into());
        expect(prose.contains("Before you run"), "asks for no prediction".into());
        expect(prose.contains("How this misleads"), "does not say how it misleads".into());
        expect(prose.contains("Exercises"), "has no exercises".into());
        expect((3..=5).contains(&solutions), format!("{solutions} solutions, expected 3 to 5"));
        expect(last.contains("assert"), "the last cell asserts nothing".into());
        let cells = code.iter().map(|cell| text(&cell["source"]));
        for cell in cells.chain(fences(&prose)) {
            faults.extend(numbered(&cell).map(|line| format!("a head or layer by number: {line}")));
        }
        faults
    }

    fn faults_of_outputs(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (number, cell) in self.of("code").into_iter().enumerate() {
            let outputs = cell["outputs"].as_array().unwrap();
            let wrong =
                |output: &&Value| output["output_type"] == "error" || output["name"] == "stderr";
            if cell["execution_count"] != number + 1 {
                faults.push(format!("code cell {} was not run in its turn", number + 1));
            }
            if let Some(output) = outputs.iter().find(wrong) {
                faults.push(format!("code cell {}: {output}", number + 1));
            }
        }
        if self.of("code").last().is_none_or(|cell| cell["outputs"] == Value::Array(Vec::new())) {
            faults.push("the last cell prints no numbers".into());
        }
        faults
    }
}

fn text(source: &Value) -> String {
    match source {
        Value::Array(lines) => lines.iter().filter_map(Value::as_str).collect(),
        other => other.as_str().unwrap_or_default().to_owned(),
    }
}

/// The Rust in text cells.
fn fences(prose: &str) -> Vec<String> {
    let opened = prose.split("```rust\n").skip(1);
    opened.map(|rest| rest.split("```").next().unwrap_or_default().to_owned()).collect()
}

/// The lines that name a head or a layer by its number. The first layer (0) and the last (-1) are places, not findings.
fn numbered(code: &str) -> impl Iterator<Item = &str> {
    const HEADS: &[&str] = &[".head(", ".heads(", ".kv_head(", "Axis::Head, ", "Axis::KvHead, "];
    const LAYERS: &[&str] = &[".at(", "Block(", "blocks.", "Axis::Layer, "];
    let names = |line: &str, calls: &[&str], least: char| {
        let arguments = calls.iter().flat_map(|call| line.split(call).skip(1));
        arguments.into_iter().any(|rest| {
            let bare = rest.trim_start_matches(['&', '[', '(']).trim_start_matches("vec![");
            // A grid is read with `.at(&[..])`; a site has one number.
            let grid = rest.starts_with('&');
            !grid && bare.starts_with(|digit: char| digit.is_ascii_digit() && digit >= least)
        })
    };
    code.lines().map(str::trim).filter(move |line| {
        !line.starts_with("//") && (names(line, HEADS, '0') || names(line, LAYERS, '1'))
    })
}

#[test]
fn every_notebook_keeps_the_form_of_the_course() {
    let notebooks = Notebook::all();
    assert!(!notebooks.is_empty(), "notebooks/ is empty");
    none("notebooks", notebooks.iter().flat_map(Notebook::faults).collect());
}

#[test]
fn heads_and_layers_by_number_are_seen_and_places_are_not() {
    let found: Vec<&str> = numbered(
        "plan.intervene(Point::Z.at(layer), zero.head(3));
         Point::ResidPost.at(2);
         run.cache.get(\"blocks.1.attn.hook_z\")?;
         zero.head([1, 4]);
         scores.select(Axis::Head, 3)?;
         Point::ResidPre.at(0); Point::ResidPost.at(last); cut.at(&[-1])?; scores.at(&[1, 2])?;
         grid.select(Axis::Layer, -1)?; grid.select(Axis::Layer, 0)?; zero.head(head);
         // .head(3)",
    )
    .collect();
    assert_eq!(found.len(), 5, "{found:?}");
}

#[test]
fn the_models_and_the_whole_tree_are_small() {
    let files = tracked();
    let weigh = |below: &str| -> u64 {
        let below = root().join(below);
        files.iter().filter(|path| path.starts_with(&below)).map(|path| size(path)).sum()
    };
    let (models, tree) = (weigh("data/models"), weigh(""));
    assert!(models > 1_000_000 && models <= MODELS, "data/models: {models} bytes");
    assert!(tree > models && tree <= TREE, "the tracked tree: {tree} bytes");
}

fn size(path: &Path) -> u64 {
    fs::symlink_metadata(path).map_or(0, |data| data.len())
}

/// What git tracks or would add; where there is no git, everything but what is built.
fn tracked() -> Vec<PathBuf> {
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(root());
    match git.output() {
        Ok(listing) if listing.status.success() => {
            let names = String::from_utf8_lossy(&listing.stdout).into_owned();
            names
                .split('\0')
                .filter(|name| !name.is_empty())
                .map(|name| root().join(name))
                .collect()
        }
        _ => below(&root()),
    }
}

fn below(dir: &Path) -> Vec<PathBuf> {
    let items = fs::read_dir(dir).unwrap().map(|item| item.unwrap().path());
    let kept =
        items.filter(|path| !["target", ".git", "lab"].iter().any(|left| path.ends_with(left)));
    kept.flat_map(|path| if path.is_dir() { below(&path) } else { vec![path] }).collect()
}
