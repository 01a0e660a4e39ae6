//! Small notebooks translated, without building them.

use std::fs;
use std::path::{Path, PathBuf};

use super::notebook::{Cell, Kind};
use super::program::{Frame, Program};
use super::project::{self, Source};

fn cells(sources: &[&str]) -> Vec<Cell> {
    let mut number = 0;
    let cell = |source: &&str| {
        let kind = if source.starts_with("# ") { Kind::Text } else { Kind::Code };
        number += usize::from(kind == Kind::Code);
        Cell { kind, source: source.to_string(), number, left_out: None }
    };
    sources.iter().map(cell).collect()
}

fn frame() -> Frame {
    Frame { notebook: "n.ipynb".into(), run: None, folder: "\".\"".into() }
}

/// The program as rustc's own parser sees it, up to what the export adds at its end.
fn program(sources: &[&str]) -> String {
    let text = Program::of(&cells(sources)).unwrap().text(&frame()).unwrap();
    syn::parse_file(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    text.split("\n/// What the notebook shows:").next().unwrap().to_owned()
}

fn main_of(sources: &[&str]) -> String {
    let text = program(sources);
    let (_, main) = text.split_once("shown::begin(\".\")?;\n").unwrap();
    main.trim().trim_end_matches("\n\n    Ok(())\n}").to_owned()
}

/// Asserts that all of `parts` stand in `text`, in this order.
fn in_order(text: &str, parts: &[&str]) {
    let mut at = 0;
    for part in parts {
        let found = text[at..].find(part);
        at += found.unwrap_or_else(|| panic!("`{part}` is not (there) in\n{text}")) + part.len();
    }
}

#[test]
fn statements_stay_as_they_are_written_with_their_comments() {
    let cell = "// first\nlet a = 1; // one\n\n/* two\n lines */\nlet b = \"x\n  y\\\n z\"; let c = a;\nif c > 0 { println!(\"é {c}\") }\n// end";
    let expected = "// [1]\n    // first\n    let a = 1; // one\n\n    /* two\n     lines */\n    let b = \"x\n  y\\\n z\"; let c = a;\n    if c > 0 { println!(\"é {c}\") }\n    // end";
    assert_eq!(main_of(&[cell]), expected);
}

#[test]
fn text_cells_become_comments_and_name_what_is_shown_after_them() {
    let main = main_of(&["# What is it?\n\nA *sum*.", "1 + 1", "2 + 2 // four"]);
    in_order(
        &main,
        &[
            "// # What is it?\n    //\n    // A *sum*.\n",
            "// [1]\n    shown::show!(\"01_what_is_it\", 1 + 1);\n",
        ],
    );
    in_order(&main, &["// [2]\n    shown::show!(\"02_what_is_it\", 2 + 2); // four"]);
}

#[test]
fn items_leave_main_with_their_comments_and_attributes() {
    let cell = "let a = 1; // stays\n// About `Boat`.\n/// A boat.\n#[derive(Debug)]\nstruct Boat; // done\n\nlet b = Boat;\nfn sail<T>(_: T) -> u8 { 3 }\nsail(b)";
    let text = program(&[cell, "macro_rules! two { () => { 2 } }\ntwo!()", "extern crate half;"]);
    in_order(
        &text,
        &[
            "extern crate half;\n\nuse thalweg::prelude::*;\n\nmacro_rules! two { () => { 2 } }\n\n",
            "// About `Boat`.\n/// A boat.\n#[derive(Debug)]\nstruct Boat; // done\n\nfn sail<T>(_: T) -> u8 { 3 }\n\nfn main()",
            "let a = 1; // stays\n    let b = Boat;\n",
            "show!(\"01\", sail(b));",
            "show!(\"02\", two!());",
            "Ok(())\n}",
        ],
    );
}

#[test]
fn a_later_definition_replaces_an_earlier_one_and_says_so() {
    let sources = [
        "struct A;\nimpl A { fn depth(&self) -> u8 { 1 } }\nA.depth()",
        "struct A;\nimpl A { fn depth(&self) -> u8 { 2 } }",
        "fn f() {}",
    ];
    let notebook = cells(&[&sources[..], &["fn f() {}", "fn f() { f2() }"]].concat());
    let translated = Program::of(&notebook).unwrap();
    let text = translated.text(&frame()).unwrap();
    assert_eq!(
        (text.matches("struct A;").count(), text.matches("impl A {").count()),
        (1, 1),
        "{text}"
    );
    in_order(
        &text,
        &[
            "struct A;\n\nimpl A { fn depth(&self) -> u8 { 2 } }",
            "// Cell 5 defines `f` again",
            "fn f() { f2() }",
        ],
    );
    assert!(!text.contains("fn f() {}"));
    assert!(translated.warnings.is_empty(), "nobody used the first f: {:?}", translated.warnings);
    let used =
        Program::of(&cells(&["fn f() -> u8 { 1 }", "f()", "fn f() -> u8 { 2 }", "f()"])).unwrap();
    assert_eq!(
        used.warnings,
        ["cells before cell 3 use the `f` of cell 1; in one program all use that of cell 3"]
    );
}

#[test]
fn use_lines_are_merged() {
    let text = program(&[
        "use thalweg::prelude::*;\nuse std::fmt::{self, Debug};\nuse std::fs;",
        "use std::fs;\nuse std::{fmt::Debug, io::Read as _};\nuse rand::fs;",
        "use std::fmt;",
    ]);
    in_order(
        &text,
        &[
            "use thalweg::prelude::*;\nuse std::fmt::{self, Debug};\nuse std::io::Read as _;\nuse rand::fs;\n\nfn main",
        ],
    );
    assert!(!text.contains("std::fs"), "{text}");
}

#[test]
fn lines_for_the_kernel_are_told_and_dependencies_kept() {
    let cell = ":dep rand = \"0.9\"\n// why\n:efmt {:?}\n!ls -l\n\n// now\nlet deep = !false;";
    let translated = Program::of(&cells(&[cell])).unwrap();
    assert_eq!(translated.dependencies, ["rand = \"0.9\""]);
    let main = main_of(&[cell]);
    in_order(
        &main,
        &[
            "// [1]\n",
            "left out, a line for the kernel: :efmt {:?}\n",
            "left out, a line for the kernel: !ls -l\n",
            "// why\n",
        ],
    );
    in_order(&main, &["// now\n    let deep = !false;"]);
    let mut skipped = cells(&["panic!()"]);
    skipped[0].left_out = Some("it is meant to fail");
    let text = Program::of(&skipped).unwrap().text(&frame()).unwrap();
    in_order(&text, &["    // [1] left out: it is meant to fail\n    // panic!()\n"]);
}

#[test]
fn what_shows_itself_and_what_has_no_value_is_not_shown_again() {
    let same = ["println!(\"a\")", "assert!(a > 0)", "for x in 0..2 { f(x) }", "if a { b() }"];
    for cell in same {
        let main = main_of(&[cell]);
        assert!(!main.contains("show!") && main.contains(cell), "{main}");
    }
    assert!(main_of(&["println!(\"a\")"]).ends_with("println!(\"a\");"));
    assert!(main_of(&["x += 1"]).ends_with("x += 1;"));
    for cell in ["run()?", "if a { 1 } else { 2 }", "match a { _ => 1 }", "vec![1]", "{ 1 }", "x"] {
        assert!(
            main_of(&[cell]).ends_with(&format!("    shown::show!(\"01\", {cell});")),
            "{cell}"
        );
    }
}

#[test]
fn displays_anywhere_write_files() {
    let cell = "for x in xs {\n    display(&x);\n}\nfigure()?.evcxr_display();\nlet d = display(&y);\nd.update(&z);\ndisplay(&heatmap(&g)?)";
    let main = main_of(&["# Loss", cell]);
    in_order(
        &main,
        &[
            "for x in xs {\n        shown::display(\"01_loss\", &x);\n    }\n",
            "show!(\"01_loss\", figure()?);\n    let d = display(&y);\n    d.update(&z);\n",
            "    shown::display(\"01_loss\", &heatmap(&g)?);",
        ],
    );
    let own = program(&["fn display(x: u8) {}", "display(3);"]);
    assert!(!own.contains("shown::display("), "{own}");
    let card = program(&[
        "struct Card<T>(T);\nimpl<T: Copy> Card<T> where T: Send {\n    fn evcxr_display(&self) { self.0.evcxr_display(); }\n}",
    ]);
    in_order(
        &card,
        &[
            "fn evcxr_display(&self) { crate::shown::show!(\"01\", self.0); }",
            "impl<T: Copy> shown::Itself for Card<T> where T: Send {\n    fn show(&self) {\n        self.evcxr_display();",
        ],
    );
}

#[test]
fn a_cell_that_is_no_rust_is_an_error_that_names_its_line() {
    let error = Program::of(&cells(&["let a = 1;", ":dep x\nlet b = ;"])).unwrap_err();
    let text = format!("{error:#}");
    assert!(text.starts_with("cell 2: line 2: expected"), "{text}");
    let error = Program::of(&cells(&["let a = 1;\na +"])).unwrap_err();
    assert!(format!("{error:#}").starts_with("cell 1: line 2: unexpected end"), "{error:#}");
    let waits =
        Program::of(&cells(&["f().await;", "g(async move { f().await }); async { f().await };"]))
            .unwrap();
    assert_eq!(
        waits.warnings,
        ["cell 1 awaits, which `main` cannot: give it to a runtime's `block_on`"]
    );
    let taken = Program::of(&cells(&["mod shown {}"])).unwrap().text(&frame()).unwrap_err();
    assert!(taken.to_string().contains("defines `shown`"), "{taken}");
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let dir =
            std::env::temp_dir().join(format!("thalweg-export-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        for (file, text) in [
            (
                "clone/Cargo.toml",
                "[dependencies]\nanyhow = \"1\"\nhalf = \"2\"\ntorch-sys = \">=0.24\"\n",
            ),
            ("clone/Cargo.lock", "locked\n"),
            ("clone/build.rs", "fn main() {}\n"),
            ("clone/notebooks/01_a.ipynb", "{}"),
            ("mine/Cargo.toml", "[package]\nname = \"my-own\"\n"),
        ] {
            let path = dir.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Folder(dir.canonicalize().unwrap())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn a_project_has_the_clones_versions_and_the_notebooks_dependencies() {
    let folder = Folder::new("project");
    let (clone, notebook) = (folder.0.join("clone"), folder.0.join("clone/notebooks/01_a.ipynb"));
    let libtorch = Some(Path::new("/opt/libtorch"));
    let source = Source { notebook: &notebook, clone: &clone, libtorch, force: false };
    let translated = Program::of(&cells(&[
        ":dep ../../mine\n:dep rand = \"0.9\"\n:dep thalweg = { path = \"..\" }\nlet a = 1;",
    ]))
    .unwrap();
    let dir = project::to_project(&translated, &source, &folder.0.join("out")).unwrap();
    let manifest = read(&dir.join("Cargo.toml"));
    let mine = folder.0.join("mine").display().to_string();
    in_order(
        &manifest,
        &[
            "name = \"a\"",
            "[workspace]",
            "anyhow = \"1\"\ntorch-sys = \">=0.24\"\n",
            &format!("thalweg = {{ path = {:?} }}\n", clone.display().to_string()),
            &format!("my-own = {{ path = {mine:?} }}\nrand = \"0.9\"\n"),
        ],
    );
    assert_eq!(read(&dir.join("Cargo.lock")), "locked\n");
    assert_eq!(read(&dir.join("build.rs")), "fn main() {}\n");
    assert!(read(&dir.join(".cargo/config.toml")).contains("LIBTORCH = \"/opt/libtorch\""));
    assert!(
        read(&dir.join("src/main.rs")).contains(&format!(
            "shown::begin({:?})?;",
            clone.join("notebooks").display().to_string()
        ))
    );
    let again = project::to_project(&translated, &source, &folder.0.join("out")).unwrap_err();
    assert!(again.to_string().ends_with("--force replaces it"), "{again}");
    let inside = project::to_project(&translated, &source, &clone.join("scripts/a")).unwrap();
    assert!(read(&inside.join("Cargo.toml")).contains("thalweg = { path = \"../..\" }\n"));
    assert!(
        read(&inside.join("src/main.rs"))
            .contains("concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/../../notebooks\")")
    );
}

#[test]
fn an_example_uses_what_the_clone_has() {
    let folder = Folder::new("example");
    let (clone, notebook) = (folder.0.join("clone"), folder.0.join("clone/notebooks/01_a.ipynb"));
    let source = Source { notebook: &notebook, clone: &clone, libtorch: None, force: false };
    let of = |cell: &str| Program::of(&cells(&[cell])).unwrap();
    let (path, run) = project::to_example(&of(":dep half = \"2\"\n1"), &source, "a").unwrap();
    assert_eq!((path, run.as_str()), (clone.join("examples/a.rs"), "cargo run --example a"));
    let text = read(&clone.join("examples/a.rs"));
    in_order(
        &text,
        &[
            "Exported from notebooks/01_a.ipynb",
            "`cargo run --example a`",
            "concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/notebooks\")",
        ],
    );
    for (cell, name, words) in [
        ("1", "a", "exists"),
        (":dep rand\n1", "b", "rand; use --project"),
        ("1", "../b", "letters"),
    ] {
        let error = project::to_example(&of(cell), &source, name).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}
