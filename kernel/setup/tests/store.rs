//! The store keeps what set-up makes: absent or whole, one builder at a time, under a key of everything it is made from.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use thalweg_setup::lockfile::{self, LockFile};
use thalweg_setup::notebook;
use thalweg_setup::places::Places;
use thalweg_setup::store::{self, Key};
use thalweg_setup::tree::{self, Bring};

/// A folder of its own for each test, gone at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let dir = std::env::temp_dir().join(format!("thalweg-store-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        Scratch(dir)
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|item| item.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn an_interrupted_build_leaves_no_entry_and_the_next_one_goes_on() -> Result<()> {
    let scratch = Scratch::new("resume");
    let entry = scratch.join("entry");
    let broken = store::entry(&entry, |partial| {
        fs::write(partial.join("first"), "1")?;
        bail!("the machine went down")
    });
    assert_eq!(broken.unwrap_err().to_string(), "the machine went down");
    assert!(!entry.exists());
    store::entry(&entry, |partial| {
        assert_eq!(fs::read_to_string(partial.join("first"))?, "1", "what was done is kept");
        Ok(fs::write(partial.join("second"), "2")?)
    })?;
    assert_eq!(names(&entry), ["first", "second"]);
    store::entry(&entry, |_| bail!("built although it is there"))
}

#[test]
fn an_entry_is_built_once_however_many_ask_at_once() {
    let scratch = Scratch::new("once");
    let entry = scratch.join("entry");
    let built = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                store::entry(&entry, |partial| {
                    built.fetch_add(1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(50));
                    Ok(fs::write(partial.join("whole"), "")?)
                })
                .unwrap();
                assert!(entry.join("whole").exists());
            });
        }
    });
    assert_eq!(built.load(Ordering::SeqCst), 1);
}

#[test]
fn old_entries_go_and_those_in_use_stay() -> Result<()> {
    let scratch = Scratch::new("prune");
    for name in ["old", "held"] {
        store::entry(&scratch.join(name), |partial| Ok(fs::write(partial.join("x"), "")?))?;
    }
    fs::create_dir(scratch.join("broken.partial"))?;
    let held = store::lock(&scratch.join("held"))?;
    store::prune(&scratch.0, Duration::from_secs(3600))?;
    assert!(scratch.join("old").exists(), "an hour has not passed");
    std::thread::sleep(Duration::from_millis(20));
    store::prune(&scratch.0, Duration::ZERO)?;
    assert!(!scratch.join("old").exists());
    assert!(!scratch.join("broken.partial").exists());
    assert!(scratch.join("held").exists());
    drop(held);
    store::prune(&scratch.0, Duration::ZERO)?;
    assert!(!scratch.join("held").exists());
    Ok(())
}

#[test]
fn the_folders_of_dead_kernels_are_removed() -> Result<()> {
    let scratch = Scratch::new("dead");
    for id in ["101", "102"] {
        fs::create_dir(scratch.join(id))?;
    }
    let alive = store::lock(&scratch.join("102"))?;
    notebook::remove_dead(&scratch.0)?;
    assert_eq!(names(&scratch.0), ["102", "102.lock"]);
    drop(alive);
    Ok(())
}

#[test]
fn what_was_compiled_for_a_clone_goes_with_the_clone() -> Result<()> {
    let scratch = Scratch::new("gone");
    let places = Places { clone: scratch.join("clone"), cache: scratch.join("cache") };
    let clones = places.cache.join("notebook/key/clones");
    for name in ["here", "gone"] {
        fs::create_dir_all(clones.join(name))?;
        fs::write(
            clones.join(name).with_extension("clone"),
            scratch.join(name).display().to_string(),
        )?;
    }
    fs::create_dir(scratch.join("here"))?;
    notebook::prune(&places, Duration::from_secs(3600))?;
    assert_eq!(names(&clones), ["here", "here.clone"]);
    Ok(())
}

#[test]
fn a_key_changes_with_every_file_and_name() -> Result<()> {
    let scratch = Scratch::new("key");
    let key = || Key::new().with_files(&scratch.0, &["target"]).map(|key| key.name());
    fs::write(scratch.join("a"), "1")?;
    let before = key()?;
    fs::create_dir(scratch.join("target"))?;
    fs::write(scratch.join("target/built"), "")?;
    assert_eq!(key()?, before, "what is built does not count");
    fs::write(scratch.join("a"), "2")?;
    let edited = key()?;
    fs::rename(scratch.join("a"), scratch.join("b"))?;
    let renamed = key()?;
    assert!(before != edited && edited != renamed);
    assert_ne!(Key::new().with("ab").with("c").name(), Key::new().with("a").with("bc").name());
    Ok(())
}

#[test]
fn a_lock_file_gives_what_a_package_needs_and_no_more() -> Result<()> {
    let text = r#"
[[package]]
name = "a"
version = "1.0.0"
dependencies = [
 "b",
 "c 2.0.0",
]

[[package]]
name = "b"
version = "0.1.0"
source = "registry"
checksum = "bb"

[[package]]
name = "c"
version = "1.0.0"
source = "registry"

[[package]]
name = "c"
version = "2.0.0"
source = "registry"
dependencies = [
 "b",
]
"#;
    let lock = LockFile::parse(text)?;
    assert_eq!(lock.closure(&["a"])?, "a 1.0.0 \nb 0.1.0 bb\nc 2.0.0 \n");
    assert!(lock.closure(&["d"]).unwrap_err().to_string().contains("lacks d"));
    let other = LockFile::parse(&text.replace("0.1.0", "0.1.1"))?;
    assert_eq!(other.not_in(&lock), ["b 0.1.1"]);
    Ok(())
}

#[test]
fn the_dependencies_of_a_manifest_are_read_as_lines() -> Result<()> {
    let manifest = "[package]\nname = \"x\"\n\n[dependencies]\nanyhow = \"1\"\n# why\ntch = { version = \"1\" }\n\n[dev-dependencies]\nother = \"1\"\n";
    let (names, section) = lockfile::dependencies(manifest)?;
    assert_eq!(names, ["anyhow", "tch"]);
    assert!(section.contains("tch =") && !section.contains("other"));
    assert!(lockfile::dependencies("[package]\n").is_err());
    assert!(lockfile::dependencies("[dependencies.tch]\nversion = \"1\"\n").is_err());
    Ok(())
}

#[test]
fn a_build_folder_is_copied_with_third_party_files_linked() -> Result<()> {
    let scratch = Scratch::new("tree");
    let (from, to) = (scratch.join("from"), scratch.join("to"));
    let files = [
        "deps/libtch-1.rlib",
        "deps/libthalweg-2.rlib",
        "deps/libctx.so",
        "build/torch-sys-3/output",
        "incremental/x/y",
    ];
    for file in files {
        let path = from.join("target").join(file);
        fs::create_dir_all(path.parent().unwrap())?;
        fs::write(path, "1")?;
    }
    tree::copy(&from, &to, &|path| tree::of_notebook(path, true))?;
    assert_eq!(names(&to.join("target/deps")), ["libtch-1.rlib", "libthalweg-2.rlib"]);
    assert!(!to.join("target/incremental").exists());
    fs::write(to.join("target/deps/libthalweg-2.rlib"), "2")?;
    assert_eq!(
        fs::read_to_string(from.join("target/deps/libthalweg-2.rlib"))?,
        "1",
        "its own bytes"
    );
    assert_eq!(tree::of_notebook(Path::new("target/deps/libtch-1.rlib"), true), Bring::Link);
    assert_eq!(tree::of_notebook(Path::new("target/deps/libthalweg-2.rlib"), false), Bring::Leave);
    let date = |root: &Path| fs::metadata(root.join("target/deps/libthalweg-2.rlib"))?.modified();
    tree::copy(&from, &scratch.join("again"), &|path| tree::of_notebook(path, true))?;
    assert_eq!(date(&from)?, date(&scratch.join("again"))?, "cargo compares dates");
    Ok(())
}
