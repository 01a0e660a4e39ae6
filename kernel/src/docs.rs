//! The first sentences of the library's documentation, for completions: evcxr lists names, and lists private ones too.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

use syn::{Attribute, Expr, ImplItem, Item, Lit, Meta, Type, Visibility};

/// What the library's sources say of a name.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) public: bool,
    /// What it is, as one reads it: `fn run(&self, tokens: &Tokens, plan: &Plan) -> Result<Run>`.
    pub(crate) signature: String,
    /// The first sentence of its documentation.
    pub(crate) sentence: String,
}

impl Entry {
    pub(crate) fn is_method(&self) -> bool {
        self.signature.contains("self")
    }
}

/// All names, by the type they belong to; those of no type under the empty name.
#[derive(Debug, Default)]
pub(crate) struct Docs {
    owners: HashMap<String, HashMap<String, Entry>>,
}

impl Docs {
    /// Reads every source file under the folder. What is not Rust is left out: it would not have compiled either.
    pub(crate) fn read(folder: &Path) -> Docs {
        let mut docs = Docs::default();
        docs.add_folder(folder);
        docs
    }

    /// What is known of a type's item, or of a free one.
    pub(crate) fn entry(&self, owner: &str, name: &str) -> Option<&Entry> {
        self.owners.get(owner)?.get(name)
    }

    /// The type whose methods these are: of those whose every method is among the names, the one with the most.
    pub(crate) fn owner(&self, names: &HashSet<&str>) -> Option<&str> {
        let methods = |items: &HashMap<String, Entry>| -> Option<usize> {
            let mut methods = items.iter().filter(|(_, entry)| entry.is_method()).peekable();
            methods.peek()?;
            let mut count = 0;
            for (name, _) in methods {
                count += 1;
                if !names.contains(name.as_str()) {
                    return None;
                }
            }
            Some(count)
        };
        let found = self.owners.iter().filter(|(owner, _)| !owner.is_empty());
        let found = found.filter_map(|(owner, items)| Some((methods(items)?, owner.as_str())));
        found.max().map(|(_, owner)| owner)
    }

    fn add_folder(&mut self, folder: &Path) {
        let Ok(listing) = fs::read_dir(folder) else { return };
        for path in listing.flatten().map(|item| item.path()) {
            if path.is_dir() {
                self.add_folder(&path);
            } else if path.extension().is_some_and(|ending| ending == "rs")
                && let Ok(text) = fs::read_to_string(&path)
                && let Ok(file) = syn::parse_file(&text)
            {
                self.add_items(&file.items);
            }
        }
    }

    fn add_items(&mut self, items: &[Item]) {
        for item in items {
            match item {
                Item::Fn(it) => self.add("", &it.sig.ident, &it.vis, &it.attrs, signature(&it.sig)),
                Item::Struct(it) => {
                    self.add("", &it.ident, &it.vis, &it.attrs, format!("struct {}", it.ident));
                    for field in &it.fields {
                        if let Some(name) = &field.ident {
                            let what = format!("field {name}");
                            self.add(&it.ident.to_string(), name, &field.vis, &field.attrs, what);
                        }
                    }
                }
                Item::Enum(it) => {
                    self.add("", &it.ident, &it.vis, &it.attrs, format!("enum {}", it.ident));
                    for variant in &it.variants {
                        let what = format!("{}::{}", it.ident, variant.ident);
                        let owner = it.ident.to_string();
                        self.add(&owner, &variant.ident, &it.vis, &variant.attrs, what);
                    }
                }
                Item::Impl(it) if it.trait_.is_none() => self.add_impl(it),
                Item::Mod(it) => {
                    if let Some((_, items)) = &it.content {
                        self.add_items(items);
                    }
                }
                _ => {}
            }
        }
    }

    fn add_impl(&mut self, it: &syn::ItemImpl) {
        let Type::Path(path) = &*it.self_ty else { return };
        let Some(owner) = path.path.segments.last().map(|last| last.ident.to_string()) else {
            return;
        };
        for item in &it.items {
            match item {
                ImplItem::Fn(it) => {
                    self.add(&owner, &it.sig.ident, &it.vis, &it.attrs, signature(&it.sig));
                }
                ImplItem::Const(it) => {
                    self.add(&owner, &it.ident, &it.vis, &it.attrs, format!("const {}", it.ident));
                }
                _ => {}
            }
        }
    }

    fn add(
        &mut self,
        owner: &str,
        name: &syn::Ident,
        visibility: &Visibility,
        attributes: &[Attribute],
        signature: String,
    ) {
        let public = matches!(visibility, Visibility::Public(_));
        let entry = Entry { public, signature, sentence: first_sentence(attributes) };
        let items = self.owners.entry(owner.to_owned()).or_default();
        let known = items.entry(name.to_string()).or_insert_with(|| entry.clone());
        // Where a field has the name of a method, the method is meant.
        let better = (public, entry.is_method()) > (known.public, known.is_method());
        if better {
            *known = entry;
        }
    }
}

/// The signature in the words of the source.
fn signature(signature: &syn::Signature) -> String {
    let text = |span: proc_macro2::Span| span.source_text().unwrap_or_default();
    let joined = syn::spanned::Spanned::span(signature);
    text(joined).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn first_sentence(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| {
        let Meta::NameValue(value) = &attribute.meta else { return None };
        let Expr::Lit(literal) = &value.value else { return None };
        let Lit::Str(text) = &literal.lit else { return None };
        value.path.is_ident("doc").then(|| text.value().trim().to_owned())
    });
    let paragraph: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let text = without_links(&paragraph.join(" "));
    match text.find(". ") {
        Some(end) => text[..=end].to_owned(),
        None => text,
    }
}

/// `[name](place)` and ``[`name`]`` as the name alone.
fn without_links(text: &str) -> String {
    let mut rest = text.replace("[`", "`");
    while let Some(start) = rest.find("](") {
        let Some(end) = rest[start..].find(')') else { break };
        rest.replace_range(start..=start + end, "");
    }
    rest.replace("`]", "`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn docs() -> Docs {
        let source = "
            /// A model. More.
            pub struct Model { hidden: u8 }
            impl Model {
                /// Runs the tokens under a [`Plan`], see [`Run`](crate::Run). The plan is checked first.
                ///
                /// More.
                pub fn run(&self,
                           tokens: &Tokens) -> Result<Run> { todo() }
                fn hidden(&self) {}
                /// Loads.
                pub fn load() -> Model { todo() }
            }
            /// A place.
            pub enum Point {
                /// The stream that enters the block.
                ResidPre,
            }
            struct Small;
            impl Small { fn run(&self) {} }
        ";
        let mut docs = Docs::default();
        docs.add_items(&syn::parse_file(source).unwrap().items);
        docs
    }

    #[test]
    fn the_first_sentence_and_the_signature_stand_in_one_line() {
        let docs = docs();
        let run = docs.entry("Model", "run").unwrap();
        assert_eq!(run.sentence, "Runs the tokens under a `Plan`, see `Run`.");
        assert_eq!(run.signature, "fn run(&self, tokens: &Tokens) -> Result<Run>");
        assert_eq!(
            docs.entry("Point", "ResidPre").unwrap().sentence,
            "The stream that enters the block."
        );
        assert!(run.public && !docs.entry("Model", "hidden").unwrap().public);
    }

    #[test]
    fn a_type_is_known_by_its_methods() {
        let names = HashSet::from(["run", "hidden", "clone"]);
        assert_eq!(docs().owner(&names), Some("Model"));
        assert_eq!(docs().owner(&HashSet::from(["run", "clone"])), Some("Small"));
        assert_eq!(docs().owner(&HashSet::from(["clone"])), None);
    }
}
