//! Every link, picture, script and anchor of the rendered book leads somewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::Report;
use crate::html;
use crate::markdown;
use crate::sources::nearest;

/// What one page holds.
struct Page {
    ids: BTreeSet<String>,
    links: Vec<String>,
}

/// Reads every page below `out` and adds to the report what leads nowhere.
pub(crate) fn check(out: &Path, report: &mut Report) -> Result<()> {
    let mut files = BTreeSet::new();
    let mut pages = BTreeMap::new();
    for path in all(out)? {
        let name = path.strip_prefix(out)?.display().to_string();
        if name.ends_with(".html") {
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {name}"))?;
            pages.insert(name.clone(), read(&text));
        }
        files.insert(name);
    }
    report.pages = pages.len();
    for (name, page) in &pages {
        for link in &page.links {
            match fault(name, link, &files, &pages) {
                Ok(Place::Inside) => report.inside += 1,
                Ok(Place::Outside) => {
                    report.outside.insert(link.clone());
                }
                Err(told) => report.faults.push(format!("{name}: {link}: {told}")),
            }
        }
    }
    Ok(())
}

enum Place {
    Inside,
    Outside,
}

fn read(text: &str) -> Page {
    let mut page = Page { ids: BTreeSet::new(), links: Vec::new() };
    for tag in html::tags(text) {
        page.ids.extend(tag.get("id").map(str::to_owned));
        page.ids.extend(tag.get("name").filter(|_| tag.name == "a").map(str::to_owned));
        for attribute in ["href", "src"] {
            page.links.extend(tag.get(attribute).map(str::to_owned));
        }
    }
    page
}

/// Where `link` of `page` leads; what is wrong with it, if it leads nowhere.
fn fault(
    page: &str,
    link: &str,
    files: &BTreeSet<String>,
    pages: &BTreeMap<String, Page>,
) -> Result<Place, String> {
    if link.starts_with("data:") {
        return Ok(Place::Inside);
    }
    if link.contains("://") || link.starts_with("mailto:") {
        let host = link
            .strip_prefix("https://")
            .and_then(|rest| rest.split('/').next())
            .unwrap_or_default();
        let whole = host.contains('.') && !link.contains(|c: char| c.is_whitespace() || c == '<');
        return if whole { Ok(Place::Outside) } else { Err("expected https://host/..".into()) };
    }
    let (file, anchor) =
        link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
    let dir = Path::new(page).parent().unwrap_or(Path::new(""));
    let file = file.split('?').next().unwrap_or_default();
    let target =
        if file.is_empty() { Some(page.to_owned()) } else { markdown::resolved(dir, file) };
    let target = target.filter(|_| !file.starts_with('/')).ok_or("leads out of the book")?;
    if !files.contains(&target) {
        return Err(format!(
            "no such file; nearest: {}",
            nearest(&target, files.iter().map(String::as_str))
        ));
    }
    let (Some(anchor), Some(held)) =
        (anchor.filter(|anchor| !anchor.is_empty()), pages.get(&target))
    else {
        return Ok(Place::Inside);
    };
    if held.ids.contains(anchor) {
        return Ok(Place::Inside);
    }
    let near = nearest(anchor, held.ids.iter().map(String::as_str));
    Err(format!("{target} has no such anchor; nearest: #{near}"))
}

fn all(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut open = vec![dir.to_owned()];
    let mut found = Vec::new();
    while let Some(dir) = open.pop() {
        for item in fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))? {
            let path = item?.path();
            if path.is_dir() { open.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wrong with a link of the page a/x.html.
    fn told(link: &str) -> Option<String> {
        let files = ["a/x.html", "b/y.html", "p.js"].map(str::to_owned).into();
        let pages = [("a/x.html", "<h1 id=top>"), ("b/y.html", "<h2 id=\"first-look\">")];
        let pages = pages.map(|(name, text)| (name.to_owned(), read(text))).into();
        fault("a/x.html", link, &files, &pages).err()
    }

    #[test]
    fn links_that_lead_somewhere_pass() {
        for link in
            ["#top", "#", "../b/y.html#first-look", "../p.js", "https://arxiv.org/abs/1", "data:x"]
        {
            assert_eq!(told(link), None, "{link}");
        }
    }

    #[test]
    fn a_broken_link_names_the_nearest_target() {
        assert_eq!(told("../b/z.html").unwrap(), "no such file; nearest: b/y.html");
        assert_eq!(
            told("../b/y.html#first-lok").unwrap(),
            "b/y.html has no such anchor; nearest: #first-look"
        );
        assert_eq!(told("../../y.html").unwrap(), "leads out of the book");
        assert_eq!(told("http://arxiv.org").unwrap(), "expected https://host/..");
        assert_eq!(told("https://nowhere").unwrap(), "expected https://host/..");
    }
}
