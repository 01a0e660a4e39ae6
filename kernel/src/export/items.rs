//! What stands outside `main`: each name once, the last definition of the notebook, as evcxr keeps them.

use syn::spanned::Spanned;
use syn::{ImplItem, Item};

use super::imports::{self, Import};

/// All items of a notebook so far.
#[derive(Debug, Default)]
pub(crate) struct Items {
    crates: Vec<String>,
    imports: Vec<Import>,
    groups: Vec<Group>,
    /// Names that were defined more than once.
    pub(crate) replaced: Vec<Replaced>,
    last: Option<usize>,
}

/// A named item with what follows it in its cell and has no name, such as its `impl` blocks: a new definition of the
/// name replaces all of it, as in evcxr.
#[derive(Debug)]
struct Group {
    name: Option<String>,
    cell: usize,
    is_macro: bool,
    texts: Vec<String>,
    note: Option<String>,
}

/// A name that two cells define differently.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Replaced {
    pub(crate) name: String,
    /// The cell whose definition is left out.
    pub(crate) old: usize,
    /// The cell whose definition holds.
    pub(crate) new: usize,
}

impl Items {
    /// Begins a cell: an item without a name belongs to a named one of its own cell only.
    pub(crate) fn begin_cell(&mut self) {
        self.last = None;
    }

    /// Adds an item of cell `cell`, with its comments.
    pub(crate) fn add(&mut self, item: &Item, text: String, cell: usize) {
        match item {
            Item::Use(item) => self.import(imports::of(item, text), cell),
            Item::ExternCrate(_) => {
                if !self.crates.contains(&text) {
                    self.crates.push(text);
                }
            }
            item => self.define(item, text, cell),
        }
    }

    fn import(&mut self, mut import: Import, cell: usize) {
        import.leaves.retain(|leaf| !self.imports.iter().any(|old| old.leaves.contains(leaf)));
        for leaf in &import.leaves {
            let Some(name) = &leaf.name else { continue };
            self.imports.iter_mut().for_each(|old| old.forget(name));
            self.forget(name, cell, &leaf.code);
        }
        if !import.leaves.is_empty() {
            self.imports.push(import);
        }
    }

    fn define(&mut self, item: &Item, text: String, cell: usize) {
        let name = name(item);
        let Some(name) = name else {
            let extra = shows_itself(&text);
            let texts = std::iter::once(text).chain(extra);
            match self.last.and_then(|last| self.groups.get_mut(last)) {
                Some(group) => group.texts.extend(texts),
                None => self.groups.push(Group {
                    name: None,
                    cell,
                    is_macro: false,
                    texts: texts.collect(),
                    note: None,
                }),
            }
            return;
        };
        let note = self.forget(&name, cell, &text);
        self.imports.iter_mut().for_each(|old| old.forget(&name));
        let is_macro = matches!(item, Item::Macro(_));
        self.groups.push(Group { name: Some(name), cell, is_macro, texts: vec![text], note });
        if !is_macro {
            self.last = Some(self.groups.len() - 1);
        }
    }

    /// Drops an earlier definition of `name`, and says so unless it was the same text.
    fn forget(&mut self, name: &str, cell: usize, text: &str) -> Option<String> {
        let at = self.groups.iter().position(|group| group.name.as_deref() == Some(name))?;
        let old = self.groups.remove(at);
        self.last = self.last.and_then(|last| match last.cmp(&at) {
            std::cmp::Ordering::Less => Some(last),
            std::cmp::Ordering::Equal => None,
            std::cmp::Ordering::Greater => Some(last - 1),
        });
        if old.texts.first().is_some_and(|first| first == text) {
            return None;
        }
        self.replaced.push(Replaced { name: name.to_owned(), old: old.cell, new: cell });
        Some(format!(
            "// Cell {cell} defines `{name}` again: as in evcxr the later definition replaces that of cell {}, here for \
             all cells.\n",
            old.cell
        ))
    }

    /// The names that the notebook defines or imports.
    pub(crate) fn defines(&self, name: &str) -> bool {
        self.groups.iter().any(|group| group.name.as_deref() == Some(name))
    }

    /// The crates that `extern crate` names.
    pub(crate) fn crates(&self) -> impl Iterator<Item = &str> {
        self.crates.iter().filter_map(|text| {
            let (_, rest) = text.split_once("extern crate ")?;
            rest.split([';', ' ']).next()
        })
    }

    /// The text above `main`: crates, imports, macros (those must stand before their use), everything else.
    pub(crate) fn text(&self, change: impl Fn(&str, usize) -> String) -> String {
        let crates = join(self.crates.iter().map(|text| text.trim().to_owned()), "\n");
        let imports = self.imports.iter().map(Import::text).filter(|text| !text.is_empty());
        let imports = join(imports, "\n");
        let groups = |macros: bool| {
            let those = self.groups.iter().filter(move |group| group.is_macro == macros);
            let text = |group: &Group| {
                let own = join(
                    group.texts.iter().map(|text| change(text.trim_end(), group.cell)),
                    "\n\n",
                );
                format!("{}{own}", group.note.as_deref().unwrap_or_default())
            };
            join(those.map(text), "\n\n")
        };
        let all = [crates, imports, groups(true), groups(false)];
        join(all.into_iter().filter(|text| !text.is_empty()), "\n\n")
    }
}

fn join(texts: impl Iterator<Item = String>, between: &str) -> String {
    texts.collect::<Vec<_>>().join(between)
}

fn name(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Mod(item) => &item.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::TraitAlias(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    (ident != "_").then(|| ident.to_string())
}

/// For an `impl` block with an `evcxr_display` of its own, what lets `show!` call it.
fn shows_itself(text: &str) -> Option<String> {
    let Ok(Item::Impl(block)) = syn::parse_str(text) else { return None };
    let own = |item: &ImplItem| matches!(item, ImplItem::Fn(it) if it.sig.ident == "evcxr_display");
    if block.trait_.is_some() || !block.items.iter().any(own) {
        return None;
    }
    let of = block.self_ty.span().byte_range();
    let generics = text[block.impl_token.span().byte_range().end..of.start].trim();
    let condition = block.generics.where_clause.as_ref();
    let condition = condition.map_or("", |it| &text[it.span().byte_range()]);
    Some(format!(
        "impl{generics} shown::Itself for {} {condition} {{\n    fn show(&self) {{\n        self.evcxr_display();\n    }}\n}}",
        &text[of]
    ))
}
