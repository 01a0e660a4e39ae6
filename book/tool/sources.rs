//! All chapters as markdown in one folder, and SUMMARY.md, the list of them: pages of book/src as they are, the
//! notebooks and the cards of the models that there are, one page of planted answers.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::figures::plotly_js;
use crate::markdown::{self, Target};
use crate::notebook;
use crate::uses::{self, Notebook};

/// What was gathered beside the markdown.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    /// The figures of each page, by the page's path without extension.
    pub(crate) figures: BTreeMap<String, Vec<String>>,
    /// Links that lead nowhere.
    pub(crate) faults: Vec<String>,
}

/// A page: where its text stands in the repository, where the book has it, and its text.
struct Page {
    origin: String,
    place: String,
    title: String,
    text: String,
}

/// Writes every chapter into `work/src`.
pub(crate) fn gather(root: &Path, work: &Path) -> Result<Gathered> {
    let mut gathered = Gathered::default();
    let mut pages = own(root)?;
    let notebooks = notebooks(root, &mut gathered)?;
    let cards = cards(root)?;
    let mut summary = String::new();
    for line in
        fs::read_to_string(root.join("book/src/SUMMARY.md")).context("book/src/SUMMARY.md")?.lines()
    {
        match line.trim() {
            "<!-- notebooks -->" => summary.push_str(&listed(line, &notebooks)),
            "<!-- models -->" => summary.push_str(&listed(line, &cards)),
            _ => summary.push_str(&format!("{line}\n")),
        }
    }
    pages.extend(notebooks);
    pages.extend(cards);
    for (origin, place) in [
        ("tests/planted/README.md", "reference/planted.md"),
        ("capture/PLAN.md", "reference/plan.md"),
        ("benches/RESULTS.md", "reference/measurements.md"),
    ] {
        pages.push(page(origin, place, read(root, origin)?)?);
    }
    let places: BTreeMap<&str, &str> =
        pages.iter().map(|page| (page.origin.as_str(), page.place.as_str())).collect();
    for page in &pages {
        let text = filled(&page.text, &page.place, &pages);
        let text = relinked(root, work, page, &text, &places, &mut gathered.faults)?;
        write(&work.join("src").join(&page.place), &text)?;
    }
    write(&work.join("src/SUMMARY.md"), &summary)?;
    write(&work.join("src/plotly.min.js"), &plotly_js()?)?;
    write(&work.join("thalweg.css"), &read(root, "book/thalweg.css")?)?;
    Ok(gathered)
}

fn read(root: &Path, name: &str) -> Result<String> {
    fs::read_to_string(root.join(name)).with_context(|| format!("cannot read {name}"))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::create_dir_all(path.parent().context("no folder")?)?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn page(origin: &str, place: &str, text: String) -> Result<Page> {
    let title = text.lines().find_map(|line| line.strip_prefix("# "));
    let title = title.with_context(|| format!("{origin} has no heading"))?.trim().to_owned();
    Ok(Page { origin: origin.into(), place: place.into(), title, text })
}

/// The pages of book/src.
fn own(root: &Path) -> Result<Vec<Page>> {
    let base = root.join("book/src");
    let mut open = vec![base.clone()];
    let mut pages = Vec::new();
    while let Some(dir) = open.pop() {
        for path in listing(&dir)? {
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "md") && !path.ends_with("SUMMARY.md") {
                let place = path.strip_prefix(&base)?.display().to_string();
                pages.push(page(&format!("book/src/{place}"), &place, fs::read_to_string(&path)?)?);
            }
        }
    }
    Ok(pages)
}

fn listing(dir: &Path) -> Result<Vec<PathBuf>> {
    let listing = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    let mut all: Vec<PathBuf> = listing.flatten().map(|item| item.path()).collect();
    all.sort();
    Ok(all)
}

fn notebooks(root: &Path, gathered: &mut Gathered) -> Result<Vec<Page>> {
    let mut pages = Vec::new();
    for path in listing(&root.join("notebooks"))? {
        if path.extension().is_none_or(|e| e != "ipynb") {
            continue;
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let origin = format!("notebooks/{name}.ipynb");
        let chapter = notebook::read(&origin, &fs::read_to_string(&path)?)?;
        let number = name.split('_').next().unwrap_or_default();
        let place = format!("course/{name}.md");
        gathered.figures.insert(format!("course/{name}"), chapter.figures);
        let title = format!("{number} {}", chapter.title);
        pages.push(Page { origin, place, title, text: chapter.text });
    }
    if pages.is_empty() {
        bail!("notebooks/ holds no notebook");
    }
    Ok(pages)
}

/// The cards of the models, `data/models/*/README.md`.
fn cards(root: &Path) -> Result<Vec<Page>> {
    let mut pages = Vec::new();
    for path in listing(&root.join("data/models"))? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let origin = format!("data/models/{name}/README.md");
        if root.join(&origin).exists() {
            let card =
                page(&origin, &format!("models/{name}.md"), markdown::safe(&read(root, &origin)?))?;
            pages.push(Page { title: name, ..card });
        }
    }
    Ok(pages)
}

/// The pages as lines of SUMMARY.md, indented like the line that stands for them.
fn listed(line: &str, pages: &[Page]) -> String {
    let indent = &line[..line.len() - line.trim_start().len()];
    let lines = pages.iter().map(|page| format!("{indent}- [{}]({})\n", page.title, page.place));
    lines.collect()
}

/// `<!-- models -->` in a page becomes a line a card, its name and its first paragraph; `nb:07` becomes a link to the
/// notebook of that number, or the number alone where there is none.
fn filled(text: &str, place: &str, pages: &[Page]) -> String {
    let cards = pages.iter().filter(|page| page.place.starts_with("models/"));
    let lines = cards.map(|card| {
        let words = card.text.lines().skip_while(|line| line.is_empty() || line.starts_with('#'));
        let words: Vec<_> = words.take_while(|line| !line.is_empty()).collect();
        format!("- [`{}`](../../{}): {}", card.title, card.origin, words.join(" "))
    });
    let text = text.replace("<!-- models -->", &lines.collect::<Vec<_>>().join("\n"));
    let dir = Path::new(place).parent().unwrap_or(Path::new(""));
    let notebooks = pages.iter().filter_map(|page| {
        let number = page.place.strip_prefix("course/")?.split('_').next()?;
        Some(Notebook { number, link: markdown::relative(dir, &page.place), text: &page.text })
    });
    let text = uses::filled(&text, &notebooks.collect::<Vec<_>>());
    markdown::mapped(&text, |text| {
        let mut parts = text.split("nb:");
        let mut out = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (number, rest) = part.split_at_checked(2).unwrap_or((part, ""));
            let notebook =
                pages.iter().find(|page| page.place.starts_with(&format!("course/{number}_")));
            out.push_str(&match notebook {
                Some(page) => format!("[{number}]({})", markdown::relative(dir, &page.place)),
                None => number.to_owned(),
            });
            out.push_str(rest);
        }
        out
    })
}

/// The page's text with links between files of the repository led to pages of the book; pictures are brought along.
fn relinked(
    root: &Path,
    work: &Path,
    page: &Page,
    text: &str,
    places: &BTreeMap<&str, &str>,
    faults: &mut Vec<String>,
) -> Result<String> {
    let dir = Path::new(&page.origin).parent().unwrap_or(Path::new(""));
    let own_dir = Path::new(&page.place).parent().unwrap_or(Path::new(""));
    let mut pictures = Vec::new();
    let text = markdown::relinked(text, |link| {
        let (file, anchor) =
            link.split_once('#').map_or((link, ""), |(file, anchor)| (file, anchor));
        if file.is_empty() || file.contains("://") || file.starts_with("mailto:") {
            return Target::Same;
        }
        let own = markdown::resolved(own_dir, file);
        if page.origin.starts_with("book/")
            && places.values().any(|place| own.as_deref() == Some(place))
        {
            return Target::Same;
        }
        let Some(origin) = markdown::resolved(dir, file) else {
            faults.push(format!("{}: {link} leads out of the repository", page.origin));
            return Target::Same;
        };
        let anchor = if anchor.is_empty() { String::new() } else { format!("#{anchor}") };
        if let Some(place) = places.get(origin.as_str()) {
            Target::To(format!("{}{anchor}", markdown::relative(own_dir, place)))
        } else if !root.join(&origin).exists() {
            let near = nearest(&origin, places.keys().copied());
            faults.push(format!("{}: {link}: no such file; nearest: {near}", page.origin));
            Target::Same
        } else if origin.ends_with(".svg") || origin.ends_with(".png") {
            pictures.push(origin.clone());
            Target::To(markdown::relative(
                own_dir,
                &format!("pictures/{}", origin.replace('/', "_")),
            ))
        } else {
            Target::Words
        }
    });
    for origin in pictures {
        let copy = work.join("src/pictures").join(origin.replace('/', "_"));
        fs::create_dir_all(work.join("src/pictures"))?;
        fs::copy(root.join(&origin), copy).with_context(|| origin)?;
    }
    Ok(text)
}

/// Of `all`, the one most like `wanted`.
pub(crate) fn nearest<'a>(wanted: &str, all: impl Iterator<Item = &'a str>) -> String {
    all.min_by_key(|other| distance(wanted, other)).unwrap_or("none").to_owned()
}

/// Edit distance (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(left != *right);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
