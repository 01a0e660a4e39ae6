//! The book of this repository, built and checked.

use std::fs;
use std::path::Path;

#[test]
fn every_link_anchor_and_name_in_the_book_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("book");
    let report = thalweg_book::build(&root, &out).unwrap();
    assert!(report.faults.is_empty(), "\n{}\n", report.faults.join("\n"));
    assert!(report.figures > 0 && report.inside > 100, "{report:?}");

    let chapter = fs::read_to_string(out.join("course/01_first_look.html")).unwrap();
    assert!(!chapter.contains("thalweg-slot"), "a place for a figure is empty");
    assert!(chapter.contains("path_to_root + \"plotly.min.js\""));
    let script = fs::read_to_string(out.join("plotly.min.js")).unwrap();
    assert!(script.contains("plotly.js v") && script.trim_end().ends_with(';'), "plotly.js is cut");
    let index = fs::read_dir(&out).unwrap().flatten().map(|item| item.file_name());
    assert!(index.into_iter().any(|name| name.to_string_lossy().starts_with("searchindex")));
}
