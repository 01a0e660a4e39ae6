//! The machine: what the cache holds, disk, memory, and kernels that run or were left behind.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use super::Line;
use crate::command;
use crate::install::Spec;
use crate::kernel::{self, NAME};
use crate::places::Places;
use crate::store;

const GB: f64 = 1e9;

/// The folders of the cache with their sizes.
pub(super) fn cache(places: &Places) -> Option<Line> {
    let mut seen = HashSet::new();
    let mut size = |name: &str| {
        let bytes = size(&places.cache.join(name), &mut seen);
        (bytes > 0).then(|| format!("{name} {}", shown(bytes)))
    };
    let parts = ["libtorch", "notebook", "sources", "kernel", "python"];
    let parts: Vec<String> = parts.into_iter().filter_map(&mut size).collect();
    (!parts.is_empty())
        .then(|| Line::note("cache", format!("{}: {}", places.cache.display(), parts.join(", "))))
}

/// Bytes on disk below `dir`; a file with two names counts once.
fn size(dir: &Path, seen: &mut HashSet<(u64, u64)>) -> u64 {
    let Ok(listing) = fs::read_dir(dir) else { return 0 };
    let mut sum = 0;
    for item in listing.flatten() {
        let Ok(data) = item.metadata() else { continue };
        if data.is_dir() {
            sum += size(&item.path(), seen);
        } else if seen.insert((data.dev(), data.ino())) {
            sum += 512 * data.blocks();
        }
    }
    sum
}

fn shown(bytes: u64) -> String {
    let bytes = bytes as f64;
    if bytes < GB / 10.0 {
        format!("{:.0} MB", bytes / 1e6)
    } else {
        format!("{:.1} GB", bytes / GB)
    }
}

/// Free space where the cache lies.
pub(super) fn disk(places: &Places) -> Line {
    let place = places.cache.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let answer = command::output(Command::new("df").arg("-Pk").arg(place)).unwrap_or_default();
    let free =
        answer.lines().nth(1).and_then(|line| line.split_whitespace().nth(3)?.parse::<u64>().ok());
    match free.map(|kilobytes| 1024 * kilobytes) {
        Some(free) if free < 8_000_000_000 => Line::note(
            "disk",
            format!("{} free at {}; set-up takes up to 6 GB", shown(free), place.display()),
        ),
        Some(free) => Line::ok("disk", format!("{} free at {}", shown(free), place.display())),
        None => Line::note("disk", "df did not tell the free space"),
    }
}

/// Memory, where Linux tells it.
pub(super) fn memory() -> Option<Line> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let read = |name: &str| -> Option<u64> {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(1024 * line.split_whitespace().nth(1)?.parse::<u64>().ok()?)
    };
    let (free, all) = (read("MemAvailable:")?, read("MemTotal:")?);
    let text = format!("{} of {} free", shown(free), shown(all));
    Some(match free < 3_000_000_000 {
        true => Line::note("memory", format!("{text}; a kernel takes 1 GB, compiling evcxr 3 GB")),
        false => Line::ok("memory", text),
    })
}

/// Settings of the current folder that would win over ours.
pub(super) fn overrides() -> Option<Line> {
    let path = std::path::absolute("evcxr.toml").ok()?;
    path.exists().then(|| {
        Line::note(
            "evcxr.toml",
            format!("{} overrides the kernel's settings; move it away", path.display()),
        )
    })
}

/// Kernels that run, folders that dead ones left, and processes that outlived their Jupyter.
pub(super) fn kernels(places: &Places) -> Vec<Line> {
    let prepared = kernel::prepared(places).join("kernels").join(NAME);
    let settings = Spec::read(&prepared).ok().flatten().and_then(|spec| spec.whole());
    let listing = settings.and_then(|settings| fs::read_dir(settings.store.join("kernels")).ok());
    let dirs = listing.into_iter().flatten().flatten().map(|item| item.path());
    let is_dead = |dir: &std::path::PathBuf| matches!(store::lock_if_free(dir), Ok(Some(_)));
    let (dead, alive): (Vec<_>, Vec<_>) = dirs.filter(|path| path.is_dir()).partition(is_dead);
    let mut lines = Vec::new();
    if !alive.is_empty() {
        lines.push(Line::note("kernels", format!("{} running", alive.len())));
    }
    if !dead.is_empty() {
        let mut seen = HashSet::new();
        let bytes: u64 = dead.iter().map(|dir| size(dir, &mut seen)).sum();
        let text = format!(
            "{} folders of dead ones, {}; the next kernel removes them",
            dead.len(),
            shown(bytes)
        );
        lines.push(Line::note("kernels", text));
    }
    let stray = stray();
    if !stray.is_empty() {
        lines.push(Line::note(
            "kernels",
            format!("without a Jupyter; end them with `kill {}`", stray.join(" ")),
        ));
    }
    lines
}

/// Processes of our program whose parent is gone. (A kernel ends with its parent: these hang.)
fn stray() -> Vec<String> {
    let Ok(listing) = fs::read_dir("/proc") else { return Vec::new() };
    let orphan = |id: &String| {
        let program = fs::read_link(format!("/proc/{id}/exe")).ok()?;
        let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
        Some(program.file_name()? == "thalweg-kernel" && parent.trim() == "1")
    };
    let ids = listing.flatten().map(|item| item.file_name().to_string_lossy().into_owned());
    ids.filter(|id| *id != std::process::id().to_string() && orphan(id) == Some(true)).collect()
}
