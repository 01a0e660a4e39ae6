//! The table of planted answers, `tests/planted/README.md`, and the tests it names.

use std::fs;
use std::path::Path;

/// Rows `[file, test, ..]` of the table's first part.
fn rows() -> Vec<Vec<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("tests/planted/README.md")).unwrap();
    let table = text.split("## Methods without").next().unwrap_or_default();
    let cells = |line: &str| {
        line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>()
    };
    table.lines().filter(|line| line.starts_with('|')).skip(2).map(cells).collect()
}

#[test]
fn every_row_of_the_table_of_planted_answers_has_its_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for row in rows() {
        assert_eq!(row.len(), 6, "a row has six cells: {row:?}");
        assert!(row.iter().all(|cell| !cell.is_empty()), "an empty cell: {row:?}");
        let (file, test) = (row[0].trim_matches('`'), row[1].trim_matches('`'));
        let source = fs::read_to_string(root.join("tests").join(file))
            .unwrap_or_else(|error| panic!("tests/{file}, which the table names: {error}"));
        let heading = format!("#[test]\nfn {test}()");
        assert!(source.contains(&heading), "tests/{file} has no test `{test}`");
    }
}
