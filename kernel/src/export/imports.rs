//! `use` lines: which names each brings, so that a name is brought once.

use syn::{ItemUse, UseTree};

/// One `use` line of a notebook and what of it still counts.
#[derive(Debug)]
pub(crate) struct Import {
    text: String,
    all: usize,
    /// The names that no other line brings.
    pub(crate) leaves: Vec<Leaf>,
}

/// One name that a `use` line brings.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Leaf {
    /// The name, or nothing for `*` and `_`.
    pub(crate) name: Option<String>,
    /// A `use` line that brings this alone.
    pub(crate) code: String,
}

/// Reads a `use` item whose source, with its comments, is `text`.
pub(crate) fn of(item: &ItemUse, text: String) -> Import {
    let mut leaves = Vec::new();
    let start = if item.leading_colon.is_some() { "::" } else { "" };
    walk(&item.tree, start.to_owned(), &mut leaves);
    Import { text, all: leaves.len(), leaves }
}

fn walk(tree: &UseTree, path: String, leaves: &mut Vec<Leaf>) {
    match tree {
        UseTree::Path(step) => walk(&step.tree, format!("{path}{}::", step.ident), leaves),
        UseTree::Group(group) => {
            group.items.iter().for_each(|tree| walk(tree, path.clone(), leaves));
        }
        UseTree::Glob(_) => leaves.push(Leaf { name: None, code: format!("use {path}*;") }),
        UseTree::Name(last) => leaves.push(named(&path, &last.ident.to_string())),
        UseTree::Rename(last) => {
            let (from, to) = (last.ident.to_string(), last.rename.to_string());
            let from = if from == "self" {
                format!("{} as {to}", path.trim_end_matches("::"))
            } else {
                format!("{path}{from} as {to}")
            };
            leaves.push(Leaf { name: (to != "_").then_some(to), code: format!("use {from};") });
        }
    }
}

/// `use a::b::{self}` brings `b`.
fn named(path: &str, last: &str) -> Leaf {
    if last != "self" {
        return Leaf { name: Some(last.to_owned()), code: format!("use {path}{last};") };
    }
    let path = path.trim_end_matches("::");
    let module = path.rsplit("::").next().unwrap_or_default();
    Leaf { name: Some(module.to_owned()), code: format!("use {path};") }
}

impl Import {
    /// Leaves out `name`, because something else has it now.
    pub(crate) fn forget(&mut self, name: &str) {
        self.leaves.retain(|leaf| leaf.name.as_deref() != Some(name));
    }

    /// The line as it was written if all of it still counts, else a line for each name that does.
    pub(crate) fn text(&self) -> String {
        if self.leaves.len() == self.all {
            return self.text.trim().to_owned();
        }
        self.leaves.iter().map(|leaf| leaf.code.as_str()).collect::<Vec<_>>().join("\n")
    }
}
