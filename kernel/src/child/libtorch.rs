//! libtorch in the process that runs the cells.

use std::path::{Path, PathBuf};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

/// Loads libtorch while the kernel is still starting, so that the first cell does not wait for it, and
/// libtorch_cuda, where there is one, for good: the linker drops it from what tch links, and with it every GPU.
pub(super) fn open() {
    let Some(libtorch) = std::env::var_os("LIBTORCH").map(PathBuf::from) else { return };
    let cuda = libtorch.join("lib/libtorch_cuda.so");
    if cuda.exists() {
        load(&cuda);
    } else {
        std::thread::spawn(move || load(&libtorch.join("lib/libtorch_cpu.so")));
    }
}

fn load(path: &Path) {
    // SAFETY: libtorch's initialisers are those that run anyway as soon as a cell uses a tensor.
    match unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) } {
        Ok(library) => std::mem::forget(library),
        Err(error) => eprintln!("cannot load {}: {error}", path.display()),
    }
}

/// Whether libtorch records gradients on this thread: `tch::no_grad` leaves it off when what it runs panics.
#[derive(Debug, Clone, Copy)]
pub(super) struct GradMode(bool);

impl GradMode {
    /// The mode now; on, which is what libtorch begins with, as long as it is not loaded.
    pub(super) fn now() -> GradMode {
        // SAFETY: `static bool c10::GradMode::is_enabled()`, under the name that C++ gives it.
        GradMode(
            symbol::<unsafe extern "C" fn() -> bool>(b"_ZN3c108GradMode10is_enabledEv\0")
                .is_none_or(|get| unsafe { get() }),
        )
    }

    /// Puts this mode back.
    pub(super) fn restore(self) {
        if let Some(set) =
            symbol::<unsafe extern "C" fn(bool)>(b"_ZN3c108GradMode11set_enabledEb\0")
        {
            // SAFETY: `static void c10::GradMode::set_enabled(bool)`.
            unsafe { set(self.0) }
        }
    }
}

fn symbol<T: Copy>(name: &[u8]) -> Option<T> {
    // SAFETY: the callers name the type that libtorch declares.
    unsafe { Library::this().get::<T>(name).ok().map(|symbol| *symbol) }
}
