//! The process that runs the cells.

use std::path::{Path, PathBuf};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

/// Loads libtorch while the kernel is still starting, so that the first cell does not wait for it, and
/// libtorch_cuda, where there is one, for good: the linker drops it from what tch links, and with it every GPU.
pub(crate) fn open_libtorch() {
    let Some(libtorch) = std::env::var_os("LIBTORCH").map(PathBuf::from) else { return };
    let cuda = libtorch.join("lib/libtorch_cuda.so");
    if cuda.exists() {
        open(&cuda);
    } else {
        std::thread::spawn(move || open(&libtorch.join("lib/libtorch_cpu.so")));
    }
}

fn open(path: &Path) {
    // SAFETY: libtorch's initialisers are those that run anyway as soon as a cell uses a tensor.
    match unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) } {
        Ok(library) => std::mem::forget(library),
        Err(error) => eprintln!("cannot load {}: {error}", path.display()),
    }
}
