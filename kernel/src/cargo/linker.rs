//! Links a cell to one shared library of all that cells use, in place of bringing each library into each cell.
//!
//! rustc names the libraries (`.rlib`) that a cell uses, one by one. Linked whole into one shared library, once a
//! kernel, they are found there by each cell: less to link, and what a library keeps in memory of its own (torch's
//! last error, thread pools) exists once. The shared library is named by what it is made of. Whatever the cell's
//! link then misses, it is linked again as rustc asked, every library in the cell.

use std::ffi::OsString;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Result;

use super::record::stamp_of;
use super::{Tools, become_program, starts};

/// Stands before `cc`.
pub(super) fn link(tools: &Tools, arguments: &[OsString]) -> Result<i32> {
    if let Some(order) = Order::read(arguments)
        && let Some(shared) = shared(tools, &order)
        && let Some(way) = order.way(tools)
        && (quiet(&order.cell(&shared, &way, false)) || quiet(&order.cell(&shared, &way, true)))
    {
        return Ok(0);
    }
    become_program(Command::new("cc").args(arguments))
}

/// The shared library of this order, made if it is not there.
fn shared(tools: &Tools, order: &Order) -> Option<PathBuf> {
    let name = format!("libcells-{:016x}", order.key(tools));
    let made = tools.kept().join(format!("{name}.so"));
    let in_vain = tools.kept().join(format!("{name}.failed"));
    if made.exists() {
        return Some(made);
    }
    if in_vain.exists() {
        return None;
    }
    let part = tools.kept().join(format!("{name}.part"));
    if quiet(&order.library(&part, &name)) && fs::rename(&part, &made).is_ok() {
        starts::keep_shared(tools, &made);
        return Some(made);
    }
    let _ = fs::write(in_vain, "");
    None
}

fn quiet(arguments: &[String]) -> bool {
    let mut cc = Command::new("cc");
    cc.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
    cc.status().is_ok_and(|status| status.success())
}

/// What rustc asked of the linker.
struct Order {
    words: Vec<String>,
}

impl Order {
    /// None where there is nothing to share, or the order is not understood.
    fn read(arguments: &[OsString]) -> Option<Order> {
        let words: Option<Vec<String>> =
            arguments.iter().map(|word| word.to_str().map(str::to_owned)).collect();
        let order = Order { words: words? };
        let has = |what: &dyn Fn(&str) -> bool| order.words.iter().any(|word| what(word));
        (has(&|word| word == "-shared") && has(&is_library)).then_some(order)
    }

    /// A key of the libraries: their names within the kernel's folder, lengths and times.
    fn key(&self, tools: &Tools) -> u64 {
        let mut hash = DefaultHasher::new();
        for path in self.words.iter().filter(|word| is_library(word)).map(Path::new) {
            (path.strip_prefix(&tools.private).unwrap_or(path), stamp_of(path)).hash(&mut hash);
        }
        hash.finish()
    }

    /// The way from the folder where cargo puts the cell's library, above the one where it is made, to the shared
    /// library's: no path of this kernel is in the cell, so that another can use it.
    fn way(&self, tools: &Tools) -> Option<String> {
        let made = self.words.iter().skip_while(|word| *word != "-o").nth(1)?;
        let put = Path::new(made).strip_prefix(&tools.private).ok()?.parent()?.parent()?;
        let kept = tools.kept();
        let up = "../".repeat(put.components().count());
        Some(format!("$ORIGIN/{up}{}", kept.file_name()?.to_str()?))
    }

    /// The order for the shared library: all libraries, each whole, and nothing of the cell. It uses its own symbols
    /// before any other's, as it would if it were in the cell.
    fn library(&self, to: &Path, name: &str) -> Vec<String> {
        let mut words = Vec::new();
        let mut all = self.words.iter();
        while let Some(word) = all.next() {
            match word.as_str() {
                "-o" => {
                    all.next();
                    words.extend(["-o".to_owned(), to.display().to_string()]);
                }
                library if is_library(library) => words.extend([
                    "-Wl,--whole-archive".to_owned(),
                    library.to_owned(),
                    "-Wl,--no-whole-archive".to_owned(),
                ]),
                own if own.ends_with(".o") || own.starts_with("-Wl,--version-script") => {}
                "-Wl,--no-undefined-version" | "-Wl,--gc-sections" => {}
                other => words.push(other.to_owned()),
            }
        }
        words.extend(["-Wl,-Bsymbolic".to_owned(), "-Wl,-z,defs".to_owned()]);
        words.push(format!("-Wl,-soname,{name}.so"));
        words
    }

    /// The order for the cell: the shared library in place of the others. Everything must be found, and C libraries
    /// that would come into the cell a second time are left out. What the shared library itself needs can be left
    /// out too, as few cells use it but through that: libtorch's table of symbols takes longer to read than all else.
    fn cell(&self, shared: &Path, way: &str, with_needed: bool) -> Vec<String> {
        let mut words = Vec::new();
        let (mut placed, mut inside) = (false, false);
        for word in &self.words {
            match word.as_str() {
                "-Wl,-Bstatic" => inside = true,
                "-Wl,-Bdynamic" => inside = false,
                _ => {}
            }
            if is_library(word) {
                if !placed {
                    let here = shared.display().to_string();
                    words.extend(["-Wl,-Bdynamic".to_owned(), here, "-Wl,-Bstatic".to_owned()]);
                }
                placed = true;
            } else if word == "-Wl,--no-undefined-version" {
                // The list of what the cell exports names symbols that are now in the shared library.
                words.push("-Wl,--undefined-version".to_owned());
            } else if with_needed && !inside || !is_foreign(word) {
                words.push(word.clone());
            }
        }
        words.extend([format!("-Wl,-rpath,{way}"), "-Wl,-z,defs".to_owned()]);
        words
    }
}

/// Whether this is a C library other than the system's own.
fn is_foreign(word: &str) -> bool {
    let system = ["gcc_s", "util", "rt", "pthread", "m", "dl", "c"];
    word.strip_prefix("-l").is_some_and(|name| !system.contains(&name))
}

/// Whether this is a Rust library other than the compiler's own helpers, of which each library has a copy.
fn is_library(word: &str) -> bool {
    word.ends_with(".rlib") && !word.contains("libcompiler_builtins-")
}
