//! `thalweg-kernel install | uninstall | doctor`, in a home of their own. Nothing is built or fetched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use thalweg_setup::kernel;
use thalweg_setup::notebook::Settings;
use thalweg_setup::places::Places;

/// A home, a cache and a clone of nothing.
struct Home {
    dir: PathBuf,
}

impl Home {
    fn new(name: &str) -> Home {
        let dir = std::env::temp_dir().join(format!("thalweg-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("clone/kernel/setup")).unwrap();
        let dir = dir.canonicalize().unwrap();
        fs::write(dir.join("clone/Cargo.lock"), "").unwrap();
        Home { dir }
    }

    fn places(&self) -> Places {
        Places { clone: self.dir.join("clone"), cache: self.dir.join("cache/thalweg") }
    }

    /// What set-up would leave: a kernel, its settings, and what they name.
    fn prepared(&self) -> PathBuf {
        let places = self.places();
        let entry = |name: &str| {
            let dir = places.cache.join(name);
            fs::create_dir_all(&dir).unwrap();
            fs::write(format!("{}.used", dir.display()), "").unwrap();
            dir
        };
        let binary = entry("kernel/k1").join("thalweg-kernel");
        fs::write(&binary, "").unwrap();
        let settings = Settings {
            clone: places.clone.clone(),
            store: entry("notebook/n1"),
            cargo_home: entry("sources/s1"),
            libtorch: entry("libtorch/l1"),
            sysroot: self.dir.clone(),
            host: "here".to_owned(),
        };
        kernel::install(&places, &binary, &settings).unwrap();
        binary
    }

    fn run(&self, words: &[&str]) -> Output {
        let real = std::env::home_dir().unwrap();
        let rustup = std::env::var_os("RUSTUP_HOME").map_or(real.join(".rustup"), PathBuf::from);
        let mut command = Command::new(env!("CARGO_BIN_EXE_thalweg-kernel"));
        for name in [
            "THALWEG_KERNEL_SETTINGS",
            "LIBTORCH",
            "VIRTUAL_ENV",
            "CONDA_PREFIX",
            "LIBTORCH_USE_PYTORCH",
        ] {
            command.env_remove(name);
        }
        command.args(words).current_dir(self.dir.join("clone")).env("HOME", &self.dir);
        command.env("RUSTUP_HOME", rustup).env("XDG_CACHE_HOME", self.dir.join("cache"));
        command.env("JUPYTER_DATA_DIR", self.dir.join("jupyter")).output().unwrap()
    }

    fn spec(&self, below: &str) -> Value {
        let path = self.dir.join(below).join("kernels/thalweg/kernel.json");
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn files(dir: &Path) -> Vec<String> {
    let mut all: Vec<String> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|item| item.file_name().to_string_lossy().into_owned())
        .collect();
    all.sort();
    all
}

#[test]
fn install_writes_one_kernelspec_and_uninstall_removes_exactly_that() {
    let home = Home::new("install");
    let early = home.run(&["install"]);
    assert!(!early.status.success() && text(&early.stderr).contains("run `cargo lab` there once"));
    let binary = home.prepared();
    let kernels = home.dir.join("jupyter/kernels");
    fs::create_dir_all(kernels.join("rust")).unwrap();
    fs::write(kernels.join("rust/kernel.json"), "stock").unwrap();
    let installed = home.run(&["install"]);
    assert!(installed.status.success(), "{}", text(&installed.stderr));
    let spec = home.spec("jupyter");
    assert_eq!(spec["argv"][0], binary.display().to_string());
    assert_eq!(spec["argv"][2], "{connection_file}");
    assert!(spec["env"].get("THALWEG_SPARE").is_none());
    let settings = spec["env"]["THALWEG_KERNEL_SETTINGS"].as_str().unwrap();
    assert_eq!(Settings::read(Path::new(settings)).unwrap().clone, home.places().clone);
    assert!(home.run(&["install", "--no-spare"]).status.success(), "again, over our own");
    assert_eq!(home.spec("jupyter")["env"]["THALWEG_SPARE"], "0");
    let removed = home.run(&["uninstall"]);
    assert!(removed.status.success(), "{}", text(&removed.stderr));
    assert_eq!(
        (files(&kernels), files(&kernels.join("rust"))),
        (vec!["rust".into()], vec!["kernel.json".into()])
    );
    assert_eq!(fs::read_to_string(kernels.join("rust/kernel.json")).unwrap(), "stock");
    let again = home.run(&["uninstall"]);
    assert!(again.status.success() && text(&again.stdout).starts_with("nothing to remove"));
}

#[test]
fn an_environment_gets_its_own_and_a_strangers_kernelspec_is_left_alone() {
    let home = Home::new("prefix");
    home.prepared();
    let env = home.dir.join("env").display().to_string();
    assert!(home.run(&["install", "--prefix", &env]).status.success());
    assert_eq!(home.spec("env/share/jupyter")["language"], "rust");
    assert!(!home.dir.join("jupyter").exists());
    assert!(home.run(&["uninstall", "--prefix", &env]).status.success());
    assert!(files(&home.dir.join("env/share/jupyter/kernels")).is_empty());
    let dir = home.dir.join("jupyter/kernels/thalweg");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("kernel.json"), "{\"argv\": [\"other\"]}").unwrap();
    for word in ["install", "uninstall"] {
        let refused = home.run(&[word]);
        assert!(!refused.status.success());
        assert!(text(&refused.stderr).contains("was not written by thalweg"), "{word}");
    }
    assert_eq!(files(&dir), ["kernel.json"]);
    let unknown = home.run(&["install", "--user"]);
    assert!(!unknown.status.success() && text(&unknown.stderr).contains("no option --user"));
}

#[test]
fn the_doctor_says_in_a_line_each_what_is_there_and_what_is_missing() {
    let home = Home::new("doctor");
    fs::write(home.dir.join("clone/evcxr.toml"), "").unwrap();
    let bare = home.run(&["doctor"]);
    let lines = text(&bare.stdout);
    assert!(!bare.status.success(), "{lines}");
    assert!(!lines.contains('\x1b'), "no colours into a pipe");
    for line in lines.lines() {
        assert!(
            ["ok      ", "missing ", "note    "].iter().any(|state| line.starts_with(state)),
            "{line}"
        );
    }
    let line_of = |lines: &str, what: &str| {
        let found =
            lines.lines().find(|line| line.get(9..).is_some_and(|rest| rest.starts_with(what)));
        found.unwrap_or_else(|| panic!("no line on {what} in\n{lines}")).to_owned()
    };
    assert!(line_of(&lines, "toolchain").contains("rustc 1."));
    for (what, how) in
        [("libtorch", "LIBTORCH"), ("Jupyter", "cargo lab"), ("kernel ", "cargo lab builds")]
    {
        let line = line_of(&lines, what).replace('`', "");
        assert!(line.starts_with("missing") && line.contains(how), "{line}");
    }
    assert!(line_of(&lines, "evcxr.toml").contains("overrides"));
    assert!(line_of(&lines, "kernelspec").starts_with("note"));
    let binary = home.prepared();
    assert!(home.run(&["install"]).status.success());
    let lines = text(&home.run(&["doctor"]).stdout);
    assert!(line_of(&lines, "kernel ").starts_with("ok"), "{lines}");
    assert!(line_of(&lines, "kernelspec").starts_with("ok"), "{lines}");
    assert!(line_of(&lines, "GPU").len() > 12 && line_of(&lines, "disk").contains("free"));
    fs::create_dir_all(home.places().cache.join("notebook/n1/kernels/77")).unwrap();
    let lines = text(&home.run(&["doctor"]).stdout);
    assert!(line_of(&lines, "kernels ").contains("1 dead left"), "{lines}");
    fs::remove_file(binary).unwrap();
    let lines = text(&home.run(&["doctor"]).stdout);
    assert!(line_of(&lines, "kernelspec").contains("names what is gone"), "{lines}");
}
