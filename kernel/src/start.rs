//! What a kernel needs before evcxr can start: a folder of its own, evcxr's start-up file, the environment.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::process::{CommandExt, parent_id};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use thalweg_setup::notebook::{self, Private, Settings};
use thalweg_setup::store::Key;

use crate::cargo;
use crate::child;
use crate::engine::Engine;
use crate::interrupt::Interrupt;
use crate::outputs::Outputs;

const PRELUDE: &str = include_str!("prelude.rs");

/// Sockets have short names: a longer path than this does not fit.
const LONGEST_SOCKET: usize = 100;

/// What this kernel is started with.
pub(crate) struct Start {
    /// Names this run of the kernel in Jupyter's messages.
    pub(crate) session_id: String,
    /// The file that asks a cell to stop.
    pub(crate) interrupt: PathBuf,
    settings: Settings,
    dir: PathBuf,
    socket: PathBuf,
    side: PathBuf,
    private: Mutex<Option<Private>>,
}

impl Start {
    /// Reads the settings and sets the environment. Called before any thread runs.
    pub(crate) fn new() -> Result<Start> {
        let file = env::var_os("THALWEG_KERNEL_SETTINGS")
            .context("THALWEG_KERNEL_SETTINGS is not set; run cargo lab")?;
        let settings = Settings::read(Path::new(&file))?;
        let dir = notebook::private_dir(&settings, std::process::id());
        let start = Start {
            session_id: random(),
            interrupt: dir.join("interrupt"),
            socket: socket(&dir),
            side: side_library(&settings),
            private: Mutex::new(None),
            dir,
            settings,
        };
        start.set_environment();
        Ok(start)
    }

    /// Makes the folder and starts evcxr in it.
    pub(crate) fn engine(&self, outputs: Outputs, interrupt: Interrupt) -> Result<Engine> {
        if Path::new("evcxr.toml").exists() {
            outputs.note("the evcxr.toml in this folder is for the stock kernel; this one does not read it\n");
        }
        let private = notebook::private(&self.settings, std::process::id())?;
        *self.private.lock().unwrap_or_else(PoisonError::into_inner) = Some(private);
        cargo::install(&self.dir)?;
        self.compile_side()?;
        outputs.listen(&self.socket)?;
        let config = self.dir.join("config");
        fs::create_dir_all(&config)
            .with_context(|| format!("cannot create {}", config.display()))?;
        fs::write(config.join("evcxr.toml"), "[evcxr]\noffline_mode = true\nopt_level = \"0\"\n")
            .context("cannot write evcxr.toml")?;
        let commands = format!(
            ":linker system\n:efmt {{:?}}\n:dep {}\n",
            notebook::dependency(&self.settings.clone)
        );
        let sources = self.settings.clone.join("src");
        let engine = Engine::start(&commands, PRELUDE, sources, config, outputs, interrupt)?;
        cargo::started(&self.dir);
        Ok(engine)
    }

    /// Ends the kernel, at once: a front end waits for it. The process that runs the cells ends with it; another
    /// program removes the folder, and should it not, the next kernel does.
    pub(crate) fn end(&self) -> ! {
        let _ = fs::remove_file(&self.socket);
        let mut remove = Command::new("rm");
        remove.arg("-rf").arg(&self.dir).process_group(0);
        let _ = remove.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        // SAFETY: ends the process; nothing that would be torn down writes anything.
        unsafe { libc::_exit(0) }
    }

    fn set_environment(&self) {
        let settings = &self.settings;
        // Cargo names itself to what it runs, `cargo lab` among it; rust-analyzer would ask that one and not the
        // stand-in, and read every crate there is.
        for name in ["CARGO", "RUSTC"] {
            // SAFETY: as in `set`.
            unsafe { env::remove_var(name) }
        }
        set("EVCXR_TMPDIR", self.dir.join("work"));
        set("EVCXR_CONFIG_DIR", self.dir.join("config"));
        for (name, value) in cargo::environment(settings, &self.dir) {
            set(name, value);
        }
        set("LIBTORCH", &settings.libtorch);
        set("LD_LIBRARY_PATH", library_path(settings));
        set("CARGO_HOME", &settings.cargo_home);
        // A failed `?` shows the chain of causes; without this, anyhow would add a backtrace of evcxr's own frames.
        set("RUST_LIB_BACKTRACE", "0");
        set("THALWEG_OUTPUT", &self.socket);
        set("THALWEG_INTERRUPT", &self.interrupt);
        set("THALWEG_SIDE", &self.side);
        // Random, so that no text that a model or a file holds can pass for a message.
        set("THALWEG_DISPLAY", format!("\u{2}thalweg {} ", random()));
    }

    /// Compiles the library that runs beside the cells, once for all kernels of a toolchain.
    fn compile_side(&self) -> Result<()> {
        if self.side.exists() {
            return Ok(());
        }
        let source = self.dir.join("side.rs");
        let made = self.dir.join("side.so");
        fs::write(&source, child::SIDE).context("cannot write side.rs")?;
        let output = Command::new(self.settings.sysroot.join("bin/rustc"))
            .args(["--edition", "2024", "--crate-type", "cdylib", "--crate-name", "thalweg_side"])
            .args(["-Cprefer-dynamic", "-Copt-level=1", "-o"])
            .args([&made, &source])
            .output()
            .context("cannot run rustc")?;
        if !output.status.success() {
            bail!("side.rs does not compile: {}", String::from_utf8_lossy(&output.stderr));
        }
        fs::rename(&made, &self.side)
            .with_context(|| format!("cannot write {}", self.side.display()))
    }
}

fn side_library(settings: &Settings) -> PathBuf {
    let key = Key::new().with(child::SIDE).with(settings.sysroot.as_os_str().as_encoded_bytes());
    settings.store.join(format!("side-{}.so", key.name()))
}

fn socket(dir: &Path) -> PathBuf {
    let path = dir.join("output.sock");
    if path.as_os_str().len() < LONGEST_SOCKET {
        return path;
    }
    env::temp_dir().join(format!("thalweg-{}.sock", std::process::id()))
}

/// Where a cell's library finds Rust's own (it is built one folder deeper than evcxr puts it, so that its relative
/// path to them leads nowhere) and libtorch.
pub(crate) fn library_path(settings: &Settings) -> OsString {
    let old = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let rust = settings.sysroot.join("lib/rustlib").join(&settings.host).join("lib");
    let others = env::split_paths(&old).filter(|path| !path.as_os_str().is_empty());
    env::join_paths([rust, settings.libtorch.join("lib")].into_iter().chain(others))
        .unwrap_or(old.clone())
}

/// 128 random bits from the keys that the standard library draws for its maps.
fn random() -> String {
    let word = || RandomState::new().hash_one(std::process::id());
    format!("{:016x}{:016x}", word(), word())
}

pub(crate) fn set(name: &str, value: impl AsRef<OsStr>) {
    // SAFETY: only watches of other processes run beside this thread, and they read no variable.
    unsafe { env::set_var(name, value) }
}

/// Ends this process when the one that started it is gone: a Jupyter that crashed would leave a gigabyte behind.
pub(crate) fn end_with_parent() {
    let parent = parent_id();
    std::thread::spawn(move || {
        while parent_id() == parent {
            std::thread::sleep(Duration::from_millis(500));
        }
        std::process::exit(1);
    });
}
