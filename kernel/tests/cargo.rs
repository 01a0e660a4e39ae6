//! The stand-in for cargo on a small crate of cells: it says and makes what cargo would, and knows when to ask cargo.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

const CELL: &str = "#[unsafe(no_mangle)]\npub extern \"C\" fn cell() -> u64 { library::next() }\n";
const LIBRARY: &str = "use std::sync::atomic::{AtomicU64, Ordering};\nstatic COUNT: AtomicU64 = AtomicU64::new(0);\n\
                       #[inline(never)]\npub fn next() -> u64 { COUNT.fetch_add(1, Ordering::SeqCst) + 1 }\n";

/// A private folder such as the kernel's, with a cell's crate that depends on one library.
struct Folder {
    dir: PathBuf,
    sysroot: PathBuf,
    host: String,
}

impl Folder {
    fn new(name: &str) -> Result<Folder> {
        let dir = std::env::temp_dir().join(format!("thalweg-cargo-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        for folder in ["bin", "kept", "work/src", "library/src"] {
            fs::create_dir_all(dir.join(folder))?;
        }
        for role in ["cargo", "rustup", "watched-rustc", "cell-linker"] {
            symlink(env!("CARGO_BIN_EXE_thalweg-kernel"), dir.join("bin").join(role))?;
        }
        let ask = |what: &[&str]| -> Result<String> {
            let output = Command::new("rustc").args(what).output()?;
            Ok(String::from_utf8(output.stdout)?.trim().to_owned())
        };
        let version = ask(&["-vV"])?;
        let host = version.lines().find_map(|line| line.strip_prefix("host: "));
        let folder = Folder {
            sysroot: ask(&["--print", "sysroot"])?.into(),
            host: host.context("no host")?.to_owned(),
            dir,
        };
        folder.write(
            "library/Cargo.toml",
            "[package]\nname = \"library\"\nversion = \"1.0.0\"\nedition = \"2024\"\n",
        )?;
        folder.write("library/src/lib.rs", LIBRARY)?;
        folder.write_manifest("")?;
        folder.cell(CELL)?;
        Ok(folder)
    }

    fn write(&self, path: &str, text: &str) -> Result<()> {
        Ok(fs::write(self.dir.join(path), text)?)
    }

    fn write_manifest(&self, more: &str) -> Result<()> {
        let manifest = format!(
            "[package]\nname = \"ctx\"\nversion = \"1.0.0\"\nedition = \"2024\"\n\n[lib]\ncrate-type = [\"cdylib\"]\n\n\
             [profile.dev]\ndebug = false\nrpath = true\n\n[dependencies]\nlibrary = {{ path = \"../library\" }}\n{more}"
        );
        self.write("work/Cargo.toml", &manifest)
    }

    fn cell(&self, source: &str) -> Result<()> {
        self.write("work/src/lib.rs", source)
    }

    fn command(&self, cargo: &Path) -> Command {
        let mut command = Command::new(cargo);
        command.args(["--offline", "build", "--target", &self.host, "--message-format=json"]);
        command.current_dir(self.dir.join("work"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CARGO") {
                command.env_remove(name);
            }
        }
        command.env("CARGO_TARGET_DIR", "target").env("RUSTFLAGS", "-Cprefer-dynamic");
        command.env("RUSTC", self.sysroot.join("bin/rustc"));
        command.env("THALWEG_BUILDS", &self.dir).env("THALWEG_SYSROOT", &self.sysroot);
        command.env("THALWEG_INTERRUPT", self.dir.join("interrupt"));
        command
    }

    fn build(&self) -> Result<Built> {
        Built::of(self.command(&self.dir.join("bin/cargo")).output()?)
    }

    /// The same build by cargo itself.
    fn build_by_cargo(&self) -> Result<Built> {
        Built::of(self.command(&self.sysroot.join("bin/cargo")).output()?)
    }

    /// Where kernels keep what they compile at their start.
    fn starts(&self) -> PathBuf {
        std::env::temp_dir().join(format!("thalweg-cargo-starts-{}", std::process::id()))
    }

    /// The build of a kernel that starts.
    fn start(&self) -> Result<Built> {
        let mut command = self.command(&self.dir.join("bin/cargo"));
        Built::of(command.env("THALWEG_STARTS", self.starts()).output()?)
    }

    /// The folder of another kernel: the same files, of the same times, and nothing kept.
    fn twin(&self, name: &str) -> Result<Folder> {
        let dir = self.dir.with_file_name(format!("thalweg-cargo-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let copied = Command::new("cp").arg("-a").args([&self.dir, &dir]).status()?;
        ensure!(copied.success(), "cp failed");
        fs::remove_dir_all(dir.join("kept"))?;
        fs::create_dir_all(dir.join("kept"))?;
        Ok(Folder { dir, sysroot: self.sysroot.clone(), host: self.host.clone() })
    }

    /// Builds twice, so that the second build knows the first.
    fn warm(&self) -> Result<()> {
        ensure!(self.build()?.by_cargo(), "nothing was recorded, yet cargo was not asked");
        self.touch()?;
        ensure!(!self.build()?.by_cargo(), "only the cell changed, yet cargo was asked");
        Ok(())
    }

    /// Another cell: the same source, with one more comment.
    fn touch(&self) -> Result<()> {
        let path = self.dir.join("work/src/lib.rs");
        Ok(fs::write(&path, fs::read_to_string(&path)? + "// more\n")?)
    }

    /// What the library of the last cell gives, kept under a name of its own as evcxr does.
    fn call(&self, built: &Built, number: u32) -> Result<u64> {
        let own = built.library()?.with_file_name(format!("libcode_{number}.so"));
        fs::rename(built.library()?, &own)?;
        // SAFETY: the library is the one just built: `cell` takes nothing and gives a number. It stays loaded.
        unsafe {
            let library = Box::leak(Box::new(libloading::Library::new(own)?));
            let cell = library.get::<extern "C" fn() -> u64>(b"cell")?;
            Ok(cell())
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

struct Built {
    messages: Vec<Value>,
    stderr: String,
    success: bool,
}

impl Built {
    fn of(output: Output) -> Result<Built> {
        let text = String::from_utf8(output.stdout)?;
        let messages = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        let stderr = String::from_utf8(output.stderr)?;
        Ok(Built { messages, stderr, success: output.status.success() })
    }

    /// Cargo names each library that a build rests on; the stand-in speaks of the cell alone.
    fn by_cargo(&self) -> bool {
        self.messages.iter().any(|message| message["target"]["name"] == "library")
    }

    fn of_cell(&self) -> Vec<&Value> {
        self.messages.iter().filter(|message| message["target"]["name"] != "library").collect()
    }

    fn library(&self) -> Result<PathBuf> {
        let names =
            self.of_cell().into_iter().filter_map(|message| message["filenames"][0].as_str());
        Ok(names.last().with_context(|| format!("no library was made: {}", self.stderr))?.into())
    }
}

#[test]
fn a_repeated_build_says_what_cargo_says() -> Result<()> {
    let folder = Folder::new("says")?;
    folder.warm()?;
    for (cell, succeeds) in [
        (CELL.to_owned(), true),
        (format!("{CELL}fn unused() {{ let x = 1; }}\n"), true),
        (format!("{CELL}fn wrong() -> u32 {{ library::nxt(\"a\") }}\n"), false),
    ] {
        folder.cell(&cell)?;
        let ours = folder.build()?;
        assert!(!ours.by_cargo());
        assert_eq!(ours.success, succeeds, "{}", ours.stderr);
        folder.touch()?;
        folder.cell(&cell)?;
        let theirs = folder.build_by_cargo()?;
        assert_eq!(theirs.success, succeeds);
        assert_eq!(ours.of_cell(), theirs.of_cell());
    }
    Ok(())
}

#[test]
fn cells_share_what_a_library_keeps() -> Result<()> {
    let folder = Folder::new("shares")?;
    folder.warm()?;
    for number in 1..4 {
        folder.touch()?;
        let built = folder.build()?;
        assert!(!built.by_cargo());
        assert_eq!(folder.call(&built, number)?, u64::from(number));
    }
    Ok(())
}

#[test]
fn a_cell_that_cannot_be_linked_to_the_shared_library_is_linked_alone() -> Result<()> {
    let folder = Folder::new("alone")?;
    folder.warm()?;
    let kept = fs::read_dir(folder.dir.join("kept"))?.flatten().map(|item| item.path());
    for shared in kept.filter(|path| path.extension().is_some_and(|ending| ending == "so")) {
        fs::write(shared, "no library")?;
    }
    folder.touch()?;
    let built = folder.build()?;
    assert!(!built.by_cargo());
    assert_eq!(folder.call(&built, 1)?, 1);
    Ok(())
}

#[test]
fn a_changed_manifest_asks_cargo() -> Result<()> {
    let folder = Folder::new("manifest")?;
    folder.warm()?;
    folder.write_manifest("\n[features]\nmore = []\ndefault = [\"more\"]\n")?;
    folder.cell(&format!(
        "{CELL}#[cfg(not(feature = \"more\"))]\ncompile_error!(\"an old manifest\");\n"
    ))?;
    let built = folder.build()?;
    assert!(built.by_cargo() && built.success, "{}", built.stderr);
    folder.touch()?;
    let again = folder.build()?;
    assert!(!again.by_cargo() && again.success, "{}", again.stderr);
    Ok(())
}

#[test]
fn a_changed_library_asks_cargo_and_is_in_the_next_cell() -> Result<()> {
    let folder = Folder::new("library")?;
    folder.warm()?;
    folder.write("library/src/lib.rs", &LIBRARY.replace("+ 1", "+ 41"))?;
    folder.touch()?;
    let built = folder.build()?;
    assert!(built.by_cargo());
    assert_eq!(folder.call(&built, 1)?, 41);
    folder.touch()?;
    let again = folder.build()?;
    assert!(!again.by_cargo());
    assert_eq!(folder.call(&again, 2)?, 41);
    Ok(())
}

#[test]
fn another_environment_or_a_lost_library_asks_cargo() -> Result<()> {
    let folder = Folder::new("doubt")?;
    folder.warm()?;
    folder.touch()?;
    let mut flags = folder.command(&folder.dir.join("bin/cargo"));
    let built = Built::of(flags.env("RUSTFLAGS", "-Cprefer-dynamic --cfg more").output()?)?;
    assert!(built.by_cargo() && built.success, "{}", built.stderr);
    folder.touch()?;
    assert!(folder.build()?.by_cargo());
    let deps = folder.dir.join("work/target").join(&folder.host).join("debug/deps");
    for item in fs::read_dir(deps)?.flatten() {
        if item.file_name().to_string_lossy().starts_with("liblibrary") {
            fs::remove_file(item.path())?;
        }
    }
    folder.touch()?;
    let built = folder.build()?;
    assert!(built.by_cargo() && built.success, "{}", built.stderr);
    Ok(())
}

#[test]
fn a_second_kernel_takes_the_builds_of_the_first_ones_start() -> Result<()> {
    let first = Folder::new("first")?;
    first.write("starting", "")?;
    assert!(first.start()?.by_cargo(), "the first kernel has nothing to take");
    first.touch()?;
    assert!(!first.start()?.by_cargo());
    let [second, changed, started] =
        [first.twin("second")?, first.twin("changed")?, first.twin("started")?];
    drop(first);
    let built = second.start()?;
    assert!(!built.by_cargo(), "the same cell was compiled again");
    assert!(built.library()?.starts_with(&second.dir));
    assert_eq!(second.call(&built, 1)?, 1, "the cell needs the first kernel's folder");
    second.touch()?;
    let next = second.start()?;
    assert!(!next.by_cargo(), "the record of the build came with it");
    assert_eq!(second.call(&next, 2)?, 2, "the two cells do not share the library");
    changed.write("library/src/lib.rs", &LIBRARY.replace("+ 1", "+ 2"))?;
    assert!(changed.start()?.by_cargo(), "the library has changed");
    fs::remove_file(started.dir.join("starting"))?;
    assert!(started.start()?.by_cargo(), "a reader's cell came from another kernel");
    Ok(fs::remove_dir_all(second.starts())?)
}

#[test]
fn an_interrupt_stops_the_compiler() -> Result<()> {
    let folder = Folder::new("interrupt")?;
    folder.warm()?;
    let endless = "#[allow(long_running_const_eval)]\npub const N: u64 = { let mut n = 0; while n < u64::MAX { n += 1; } n };\n";
    folder.cell(&format!("{CELL}{endless}"))?;
    let running = folder
        .command(&folder.dir.join("bin/cargo"))
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()?;
    std::thread::sleep(Duration::from_millis(500));
    let asked = Instant::now();
    folder.write("interrupt", "")?;
    let built = Built::of(running.wait_with_output()?)?;
    assert!(asked.elapsed() < Duration::from_secs(10), "it went on for {:?}", asked.elapsed());
    assert!(!built.success && built.stderr.contains("interrupted"), "{}", built.stderr);
    fs::remove_file(folder.dir.join("interrupt"))?;
    folder.cell(CELL)?;
    let built = folder.build()?;
    assert_eq!(folder.call(&built, 1)?, 1);
    Ok(())
}

#[test]
fn other_calls_reach_cargo_itself() -> Result<()> {
    let folder = Folder::new("other")?;
    let cargo = |program: PathBuf| -> Result<Vec<u8>> {
        let build = folder.command(&program);
        let mut plain = Command::new(&program);
        plain
            .arg("--version")
            .envs(build.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Ok(plain.output()?.stdout)
    };
    assert_eq!(cargo(folder.dir.join("bin/cargo"))?, cargo(folder.sysroot.join("bin/cargo"))?);
    let mut rustup = Command::new(folder.dir.join("bin/rustup"));
    rustup
        .args(["which", "rustc"])
        .env("THALWEG_BUILDS", &folder.dir)
        .env("THALWEG_SYSROOT", &folder.sysroot);
    let said = String::from_utf8(rustup.output()?.stdout)?;
    assert_eq!(Path::new(said.trim()), folder.sysroot.join("bin/rustc"));
    Ok(())
}

#[test]
fn the_analysis_sees_what_a_cell_can_name() -> Result<()> {
    let folder = Folder::new("analysis")?;
    let package = |name: &str, dependencies: &[&str]| -> Result<()> {
        fs::create_dir_all(folder.dir.join(name).join("src"))?;
        folder.write(&format!("{name}/src/lib.rs"), "")?;
        let lines: String = dependencies
            .iter()
            .map(|name| format!("{name} = {{ path = \"../{name}\" }}\n"))
            .collect();
        let head =
            format!("[package]\nname = \"{name}\"\nversion = \"1.0.0\"\nedition = \"2024\"\n");
        folder.write(&format!("{name}/Cargo.toml"), &format!("{head}[dependencies]\n{lines}"))
    };
    package("library", &["deep"])?;
    package("thalweg", &["near", "ndarray", "sha2"])?;
    package("near", &["far"])?;
    package("ndarray", &["numbers"])?;
    for name in ["deep", "far", "numbers", "sha2"] {
        package(name, &[])?;
    }
    folder.write_manifest("thalweg = { path = \"../thalweg\" }\n")?;
    let names = |all: bool| -> Result<Vec<String>> {
        let build = folder.command(&folder.dir.join("bin/cargo"));
        let mut command = Command::new(folder.dir.join("bin/cargo"));
        command.args(["metadata", "--offline", "--format-version", "1", "--manifest-path"]);
        command.arg(folder.dir.join("work/Cargo.toml"));
        command.envs(build.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if all {
            command.env("THALWEG_ANALYSIS", "all");
        }
        let output = command.output()?;
        let metadata: Value = serde_json::from_slice(&output.stdout)?;
        let packages = metadata["packages"].as_array().context("no packages")?;
        let mut names: Vec<String> = packages
            .iter()
            .filter_map(|package| Some(package["name"].as_str()?.to_owned()))
            .collect();
        names.sort();
        assert_eq!(metadata["resolve"]["nodes"].as_array().map(Vec::len), Some(names.len()));
        Ok(names)
    };
    assert_eq!(names(false)?, ["ctx", "deep", "library", "ndarray", "near", "numbers", "thalweg"]);
    assert!(names(true)?.contains(&"far".to_owned()));
    Ok(())
}
