//! `cargo book`: builds the book into target/book and checks it.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let book = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = book.parent().unwrap_or(book);
    match thalweg_book::build(root, &root.join("target/book")) {
        Ok(report) => {
            report.tell();
            if report.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
