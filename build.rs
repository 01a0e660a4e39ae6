//! Puts libtorch in the rpath of what this package builds, so that tests, examples and benches
//! start without `LD_LIBRARY_PATH`, and keeps a CUDA libtorch linked: the linker would drop it. Notes
//! libtorch's version for the records of runs.

use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") else { return };
    println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    println!("cargo:rustc-env=THALWEG_LIBTORCH={}", version(Path::new(&lib)));
    if Path::new(&lib).join("libtorch_cuda.so").exists() {
        println!("cargo:rustc-link-arg=-Wl,--no-as-needed");
        println!("cargo:rustc-link-arg=-L{lib}");
        println!("cargo:rustc-link-arg=-ltorch_cuda");
        println!("cargo:rustc-link-arg=-Wl,--as-needed");
    }
}

/// Of a libtorch directory: its `build-version`, or that of a Python package around it.
fn version(lib: &Path) -> String {
    let Some(root) = lib.parent() else { return "unknown".to_owned() };
    let (plain, python) = (root.join("build-version"), root.join("version.py"));
    if let Ok(text) = std::fs::read_to_string(&plain) {
        println!("cargo:rerun-if-changed={}", plain.display());
        return text.trim().to_owned();
    }
    let text = std::fs::read_to_string(python).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("__version__"));
    let quoted = line.and_then(|line| line.split('=').nth(1)).unwrap_or("unknown");
    quoted.trim().trim_matches(['\'', '"']).to_owned()
}
