//! Opens a written page in headless Chromium, offline, and counts the figures that plotly.js drew.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command;

/// Put at the end of the page: waits until every figure is drawn, at most 20 s, then writes what it saw.
/// A figure counts when plotly has put a drawing of some size where the figure stood.
const COUNT: &str = "<script>
window.addEventListener('load', async () => {
  const drawn = plot => {
    const box = plot.getBoundingClientRect();
    return plot.querySelector('svg.main-svg') && box.width > 50 && box.height > 50;
  };
  const count = () => [...document.querySelectorAll('.js-plotly-plot')].filter(drawn).length;
  const bare = () => [...document.querySelectorAll('.thalweg-figure')].filter(
    figure => !figure.matches('.js-plotly-plot') && !figure.querySelector('.js-plotly-plot')).length;
  for (let i = 0; i < 200 && (count() < EXPECTED || bare() > 0); i++) await new Promise(done => setTimeout(done, 100));
  const note = document.createElement('pre');
  note.textContent = `thalweg-drawn ${count()} bare ${bare()} plotly ${window.Plotly ? window.Plotly.version : 'absent'};`;
  document.body.append(note);
});
</script>";

/// What Chromium made of a page.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    /// Figures that the page holds.
    pub figures: usize,
    /// Figures that plotly.js drew.
    pub drawn: usize,
    /// Figures left as their SVG.
    pub bare: usize,
}

impl Seen {
    /// Whether every figure was drawn.
    pub fn is_whole(&self) -> bool {
        self.drawn >= self.figures && self.bare == 0
    }
}

/// The Chromium on this machine.
pub fn chromium() -> Option<PathBuf> {
    let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .flat_map(|dir| names.map(|name| dir.join(name)))
        .find(|file| file.exists())
}

/// Opens `page` offline, counts its figures, and saves what it looks like as `<page>.png`.
pub fn look(chromium: &Path, page: &Path) -> Result<Seen> {
    let text =
        fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))?;
    let figures = text.matches("class=\"thalweg-figure\"").count();
    let work = page.with_extension("browser");
    let _ = fs::remove_dir_all(&work);
    fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
    let counted = work.join("page.html");
    let script = COUNT.replace("EXPECTED", &figures.to_string());
    fs::write(&counted, text.replace("</body>", &format!("{script}</body>")))?;
    let dom = command::output(open(chromium, &work).arg("--dump-dom").arg(&counted))?;
    let picture = page.with_extension("png");
    let mut photo = open(chromium, &work);
    photo
        .arg(format!("--screenshot={}", picture.display()))
        .arg("--window-size=1100,8000")
        .arg(page);
    command::output(&mut photo)?;
    fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
    read(&dom, figures)
}

fn open(chromium: &Path, work: &Path) -> Command {
    let mut command = Command::new(chromium);
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
    ]);
    command.args([
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",
        "--disable-quic",
    ]);
    command.arg("--host-resolver-rules=MAP * ~NOTFOUND"); // offline: no name can be looked up
    command
        .arg("--virtual-time-budget=60000")
        .arg(format!("--user-data-dir={}", work.join("profile").display()));
    command
}

fn read(dom: &str, figures: usize) -> Result<Seen> {
    let Some((_, after)) = dom.rsplit_once("thalweg-drawn ") else {
        bail!("the page's scripts did not end")
    };
    let mut numbers = after.split(' ').filter_map(|word| word.parse().ok());
    let (Some(drawn), Some(bare)) = (numbers.next(), numbers.next()) else {
        bail!("the page's scripts told no count")
    };
    Ok(Seen { figures, drawn, bare })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_note_in_a_page_is_read() {
        let dom =
            "`thalweg-drawn ${count()}`</script><pre>thalweg-drawn 3 bare 1 plotly 3.0.1;</pre>";
        assert_eq!(read(dom, 4).unwrap(), Seen { figures: 4, drawn: 3, bare: 1 });
        assert!(!read(dom, 4).unwrap().is_whole());
        assert!(read("<html>", 4).is_err());
    }
}
