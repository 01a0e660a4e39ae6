//! The machine: what the cache holds, disk, memory, and kernels that run or were left behind.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
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

/// Settings in a folder of notebooks that would win over ours.
pub(super) fn overrides(places: &Places) -> Vec<Line> {
    let here = std::env::current_dir().ok();
    let mut folders = vec![places.clone.join("notebooks")];
    folders.extend(here.filter(|here| *here != folders[0]));
    let files = folders.iter().map(|folder| folder.join("evcxr.toml")).filter(|file| file.exists());
    let told =
        |file: PathBuf| format!("{} overrides the kernel's settings; move it away", file.display());
    files.map(|file| Line::note("evcxr.toml", told(file))).collect()
}

/// Kernels that run or wait, folders that dead ones left, and processes that outlived their Jupyter.
pub(super) fn kernels(places: &Places) -> Vec<Line> {
    let prepared = kernel::prepared(places).join("kernels").join(NAME);
    let settings = Spec::read(&prepared).ok().flatten().and_then(|spec| spec.whole());
    let mut lines = settings.map(|settings| folders(&settings.store)).unwrap_or_default();
    let stray = stray();
    if !stray.is_empty() {
        let how = format!("without a Jupyter; end them with `kill {}`", stray.join(" "));
        lines.push(Line::note("kernels", how));
    }
    lines
}

/// A running kernel holds the lock of its folder, a spare that waits holds that of its place.
fn folders(store: &Path) -> Vec<Line> {
    let listed = |name: &str| {
        let listing = fs::read_dir(store.join(name)).into_iter().flatten().flatten();
        listing.map(|item| item.path()).collect::<Vec<PathBuf>>()
    };
    let is_free = |dir: &PathBuf| matches!(store::lock_if_free(dir), Ok(Some(_)));
    let dirs = listed("kernels").into_iter().filter(|path| path.is_dir());
    let (dead, alive): (Vec<_>, Vec<_>) = dirs.partition(is_free);
    let locks = listed("spares").into_iter();
    let locks = locks.filter(|path| path.extension().is_some_and(|it| it == "lock"));
    let spares = locks.filter(|lock| !is_free(&lock.with_extension(""))).count();
    let mut lines = Vec::new();
    if !alive.is_empty() {
        let waiting = if spares > 0 { format!(", {spares} of them spare") } else { String::new() };
        lines.push(Line::note("kernels", format!("{} running{waiting}", alive.len())));
    }
    if !dead.is_empty() {
        let mut seen = HashSet::new();
        let bytes: u64 = dead.iter().map(|dir| size(dir, &mut seen)).sum();
        let (count, bytes) = (dead.len(), shown(bytes));
        let text = format!("{count} dead left {bytes}; the next kernel removes it");
        lines.push(Line::note("kernels", text));
    }
    lines
}

/// Processes of our program whose parent and whose Jupyter are gone. (A kernel ends with them: these hang.)
fn stray() -> Vec<String> {
    let Ok(listing) = fs::read_dir("/proc") else { return Vec::new() };
    let is_stray = |id: &String| {
        let program = fs::read_link(format!("/proc/{id}/exe")).ok()?;
        let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
        let environment = fs::read(format!("/proc/{id}/environ")).ok()?;
        let environment = String::from_utf8_lossy(&environment).into_owned();
        let jupyter = environment.split('\0').find_map(|it| it.strip_prefix("JPY_PARENT_PID="));
        let lives = jupyter.is_some_and(|jupyter| Path::new("/proc").join(jupyter).exists());
        let ours = program.file_name()?.to_string_lossy().starts_with("thalweg-kernel");
        Some(ours && parent.trim() == "1" && !lives)
    };
    let ids = listing.flatten().map(|item| item.file_name().to_string_lossy().into_owned());
    ids.filter(|id| *id != std::process::id().to_string() && is_stray(id) == Some(true)).collect()
}
