//! Which notebooks use what a row of the API map names.

/// A notebook: its number, the chapter's path, its text with its code.
#[derive(Debug)]
pub(crate) struct Notebook<'a> {
    /// `07`.
    pub(crate) number: &'a str,
    /// Where the book has it, relative to the page at hand.
    pub(crate) link: String,
    /// Its chapter.
    pub(crate) text: &'a str,
}

/// Names of methods that several types have: only the type's name tells which is meant.
const COMMON: &[&str] = &[
    "run", "of", "grid", "top", "new", "at", "all", "fit", "load", "study", "kl", "heads", "paths",
    "carry", "effects", "save", "record", "records", "curve", "compare", "split", "encode",
    "scores", "train", "tuned",
];

/// The page with the cells of every column headed `nb` filled: links to the notebooks that use one of the functions
/// that the row names in its column headed `function`.
pub(crate) fn filled(page: &str, notebooks: &[Notebook]) -> String {
    let mut columns: Option<(usize, usize)> = None;
    let mut out = String::new();
    for line in page.lines() {
        let mut cells: Vec<String> = line.split('|').map(str::to_owned).collect();
        let find = |name: &str| cells.iter().position(|cell| cell.trim() == name);
        if !line.starts_with('|') {
            columns = None;
        } else if let (Some(function), Some(nb)) = (find("function"), find("nb")) {
            columns = Some((function, nb));
        } else if let Some((function, nb)) = columns
            && cells.len() > nb
            && !cells[nb].contains("---")
        {
            let names: Vec<&str> = cells[function].split('`').skip(1).step_by(2).collect();
            let using = notebooks
                .iter()
                .filter(|notebook| names.iter().any(|name| uses(notebook.text, name)));
            let links: Vec<String> =
                using.map(|it| format!("[{}]({})", it.number, it.link)).collect();
            cells[nb] = format!(" {} ", links.join(" "));
        }
        out.push_str(&cells.join("|"));
        out.push('\n');
    }
    out
}

/// Whether a notebook's code calls `name`, a function, a type or `Type::method`.
fn uses(text: &str, name: &str) -> bool {
    let mut parts = name.rsplit("::");
    let (last, owner) = (parts.next().unwrap_or_default(), parts.next());
    match owner.filter(|owner| owner.starts_with(char::is_uppercase)) {
        None => word(text, last),
        Some("Model" | "Plan" | "Tokens") => {
            text.contains(&format!(".{last}(")) || text.contains(name)
        }
        Some(_) if text.contains(name) => true,
        Some(owner) if COMMON.contains(&last) => {
            word(text, owner) && text.contains(&format!(".{last}("))
        }
        Some(_) => text.contains(&format!(".{last}(")),
    }
}

/// Whether `name` stands in `text` as a word of code: called, or followed by `::`.
fn word(text: &str, name: &str) -> bool {
    text.match_indices(name).any(|(at, _)| {
        let part = |c: char| c.is_alphanumeric() || c == '_';
        let before = text[..at].chars().next_back();
        let after = &text[at + name.len()..];
        !before.is_some_and(|c| part(c) || c == '.')
            && (after.starts_with('(') || after.starts_with("::"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_name_the_notebooks_that_call_their_functions() {
        let page = "| question | function | nb |\n|---|---|---|\n| a | `lens`, `Patching::grid` | |\n| b | `Model::top` | |\n\n| x | y |\n";
        let notebook = |number, text| Notebook { number, link: format!("{number}.md"), text };
        let notebooks = [
            notebook("01", "lens(&x); logit_lens(&y)"),
            notebook("02", "logit_lens(&y); pair.grid(z); model.top(5)"),
            notebook("03", "Patching::new(a); pair.grid(z)"),
        ];
        let filled = filled(page, &notebooks);
        assert!(
            filled.contains("| `lens`, `Patching::grid` | [01](01.md) [03](03.md) |"),
            "{filled}"
        );
        assert!(filled.contains("| `Model::top` | [02](02.md) |"), "{filled}");
        assert!(filled.ends_with("| x | y |\n"));
    }
}
