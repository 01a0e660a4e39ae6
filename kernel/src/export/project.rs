//! Where the program goes: standard output, an example of the clone, or a Cargo project of its own.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use thalweg_setup::lockfile;

use super::dependency::Dependency;
use super::program::{Frame, Program};
use super::slug;

/// What is known of the notebook and of the thalweg that it uses.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    /// The notebook, an absolute path.
    pub(crate) notebook: &'a Path,
    /// The clone.
    pub(crate) clone: &'a Path,
    /// libtorch, if it is known.
    pub(crate) libtorch: Option<&'a Path>,
    /// Whether files may be replaced.
    pub(crate) force: bool,
}

impl Source<'_> {
    fn folder(&self) -> &Path {
        self.notebook.parent().unwrap_or(Path::new("/"))
    }

    /// The notebook's path as a comment names it: within the clone where it lies there.
    fn title(&self) -> String {
        let name = || Path::new(self.notebook.file_name().unwrap_or_default());
        self.notebook.strip_prefix(self.clone).unwrap_or_else(|_| name()).display().to_string()
    }

    /// `path` for a program whose Cargo.toml lies in `home`: relative where both lie in the clone, which may be moved.
    fn path_from(&self, home: &Path, path: &Path) -> Option<String> {
        let (home, path) =
            (home.strip_prefix(self.clone).ok()?, path.strip_prefix(self.clone).ok()?);
        let mut relative: PathBuf = home.iter().map(|_| "..").collect();
        relative.push(path);
        let text = relative.display().to_string();
        Some(if text.is_empty() { ".".to_owned() } else { text.trim_end_matches('/').to_owned() })
    }

    /// A Rust expression for the notebook's folder.
    fn folder_code(&self, home: &Path) -> String {
        match self.path_from(home, self.folder()) {
            Some(path) => {
                format!("concat!(env!(\"CARGO_MANIFEST_DIR\"), {:?})", format!("/{path}"))
            }
            None => format!("{:?}", self.folder().display().to_string()),
        }
    }

    fn dependencies(&self, program: &Program) -> Result<Vec<Dependency>> {
        let mut all: Vec<Dependency> = Vec::new();
        for line in &program.dependencies {
            let one = Dependency::parse(line, self.folder())?;
            all.retain(|old| old.name != one.name); // as in evcxr, the last line counts
            all.push(one);
        }
        for name in program.crates() {
            let known = ["std", "core", "alloc", "thalweg"].contains(&name)
                || all.iter().any(|one| one.name.replace('-', "_") == name);
            if !known {
                all.push(Dependency { name: name.to_owned(), spec: "\"*\"".to_owned() });
            }
        }
        all.retain(|one| one.name != "thalweg"); // the clone's
        Ok(all)
    }
}

/// The program as text; what Cargo.toml would need is said in its first lines.
pub(crate) fn to_text(program: &Program, source: &Source<'_>) -> Result<String> {
    let dependencies = source.dependencies(program)?;
    let mut text = String::new();
    for one in &dependencies {
        text += &format!("// In Cargo.toml: {} = {}\n", one.name, one.spec);
    }
    let folder = format!("{:?}", source.folder().display().to_string());
    let frame = Frame { notebook: source.title(), run: None, folder };
    Ok(text + &program.text(&frame)?)
}

/// Writes `examples/<name>.rs` in the clone and returns its path and how to run it.
pub(crate) fn to_example(
    program: &Program,
    source: &Source<'_>,
    name: &str,
) -> Result<(PathBuf, String)> {
    if name.is_empty() || !name.chars().all(|it| it.is_ascii_alphanumeric() || "-_".contains(it)) {
        bail!("--example {name}: expected letters, digits, - and _");
    }
    let (known, _) = lockfile::dependencies(&read(&source.clone.join("Cargo.toml"))?)?;
    let strangers: Vec<String> = source
        .dependencies(program)?
        .into_iter()
        .map(|one| one.name)
        .filter(|it| !known.contains(it))
        .collect();
    if !strangers.is_empty() {
        bail!(
            "an example can only use what thalweg itself depends on, and the notebook asks for {}; use --project DIR",
            strangers.join(", ")
        );
    }
    let path = source.clone.join("examples").join(format!("{name}.rs"));
    if path.exists() && !source.force {
        bail!("{} exists; --force replaces it", path.display());
    }
    let run = format!("cargo run --example {name}");
    let folder = source.folder_code(source.clone);
    let frame = Frame { notebook: source.title(), run: Some(run.clone()), folder };
    write(&path, &program.text(&frame)?)?;
    Ok((path, run))
}

/// Writes a Cargo project of its own into `dir`: the program, the clone's thalweg as a path, its lock file and its
/// build script, and where libtorch lies.
pub(crate) fn to_project(program: &Program, source: &Source<'_>, dir: &Path) -> Result<PathBuf> {
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let dir = dir.canonicalize().with_context(|| format!("cannot find {}", dir.display()))?;
    if dir.join("Cargo.toml").exists() && !source.force {
        bail!("{} exists; --force replaces it", dir.join("Cargo.toml").display());
    }
    let frame = Frame {
        notebook: source.title(),
        run: Some("cargo run".to_owned()),
        folder: source.folder_code(&dir),
    };
    write(&dir.join("src/main.rs"), &program.text(&frame)?)?;
    write(&dir.join("Cargo.toml"), &manifest(program, source, &dir)?)?;
    for name in ["Cargo.lock", "build.rs"] {
        write(&dir.join(name), &read(&source.clone.join(name))?)?;
    }
    write(&dir.join(".gitignore"), "/target\n/shown\n")?;
    if let Some(libtorch) = source.libtorch {
        let text = format!("[env]\nLIBTORCH = {:?}\n", libtorch.display().to_string());
        write(&dir.join(".cargo/config.toml"), &text)?;
    }
    Ok(dir)
}

fn manifest(program: &Program, source: &Source<'_>, dir: &Path) -> Result<String> {
    let stem = source.notebook.file_stem().unwrap_or_default().to_string_lossy();
    let mut text = format!(
        "[package]\nname = {:?}\nversion = \"0.1.0\"\nedition = \"2024\"\npublish = false\n\n\
         [workspace] # of its own, also where a folder above is one\n\n[dependencies]\n",
        slug::program(&stem)
    );
    let (_, section) = lockfile::dependencies(&read(&source.clone.join("Cargo.toml"))?)?;
    let own = |name: &str| {
        let line = section.lines().find(|line| line.split('=').next().map(str::trim) == Some(name));
        line.map(str::to_owned).with_context(|| format!("thalweg's Cargo.toml lacks {name}"))
    };
    let asked = source.dependencies(program)?;
    // torch-sys tells build.rs where libtorch lies; it tells direct dependants only.
    for name in ["anyhow", "torch-sys"] {
        if !asked.iter().any(|one| one.name == name) {
            text += &format!("{}\n", own(name)?);
        }
    }
    let place =
        |path: &Path| source.path_from(dir, path).unwrap_or_else(|| path.display().to_string());
    text += &format!("thalweg = {{ path = {:?} }}\n", place(source.clone));
    for one in asked {
        let one = match one.path(source.folder()) {
            Some(path) => {
                let path = path.canonicalize().with_context(|| {
                    format!("`:dep {}`: cannot find {}", one.name, path.display())
                })?;
                one.at(&place(&path))
            }
            None => one,
        };
        text += &format!("{} = {}\n", one.name, one.spec);
    }
    text +=
        "\n[profile.dev]\ndebug = \"line-tables-only\" # as in thalweg: its builds can be shared\n";
    Ok(text)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)
            .with_context(|| format!("cannot create {}", parent.display()))?;
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
