//! The process that runs the cells. It speaks evcxr's protocol: a line names a library and a function in it; load it,
//! call it, say that it ended. What cells print and show goes to the kernel over a socket of its own.

mod libtorch;
mod relay;
mod scan;

use std::env;
use std::ffi::c_void;
use std::io::BufRead;
use std::sync::OnceLock;
use std::thread::ThreadId;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use self::libtorch::GradMode;
use self::relay::Relay;
use crate::wire::Event;

/// The source of the library beside the cells; [`crate::start`] compiles it.
pub(crate) const SIDE: &str = include_str!("side.rs");

/// What evcxr waits for after each cell.
const COMPLETE: &str = "EVCXR_EXECUTION_COMPLETE";

/// How often text without a line break is looked for while a cell runs.
const FLUSH: Duration = Duration::from_millis(100);

/// Where panics are told; a hook can carry nothing.
static PANICS: OnceLock<(Relay, ThreadId)> = OnceLock::new();

/// Runs cells until the kernel closes the pipe. Returns only an error.
pub(crate) fn run() -> Result<()> {
    // SAFETY: no other thread runs yet. Panics are told with their place; a backtrace would show evcxr's frames.
    unsafe { env::set_var("RUST_BACKTRACE", "0") };
    libtorch::open();
    let relay = Relay::start()?;
    let side = Side::load(&relay)?;
    side.flush_now_and_then();
    let mut runner = Runner { relay, side, store: std::ptr::null_mut() };
    for line in std::io::stdin().lock().lines() {
        runner.run(&line.context("the kernel's pipe broke")?)?;
    }
    std::process::exit(0)
}

struct Runner {
    relay: Relay,
    side: Side,
    /// evcxr's map of the notebook's variables.
    store: *mut c_void,
}

impl Runner {
    fn run(&mut self, line: &str) -> Result<()> {
        let mut words = line.split(' ');
        let (Some("LOAD_AND_RUN"), Some(path), Some(name), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            bail!("not an instruction: {line}");
        };
        let grad_mode = GradMode::now();
        self.relay.tell(&Event::Began);
        self.call(path, name)?;
        self.side.flush();
        // SAFETY: flushes what C and C++ code printed.
        unsafe { libc::fflush(std::ptr::null_mut()) };
        let ended = self.relay.drain()?;
        if ended.panicked || ended.returned {
            grad_mode.restore();
        }
        self.relay.tell(&Event::Ended { panicked: ended.panicked, returned: ended.returned });
        self.relay.to_evcxr(COMPLETE)
    }

    fn call(&mut self, path: &str, name: &str) -> Result<()> {
        type Cell = unsafe extern "C" fn(*mut c_void) -> *mut c_void;
        // SAFETY: evcxr built the library for this toolchain; the function catches its own panics and takes and
        // returns the variable store, which only such functions touch. The library is never unloaded, for variables
        // hold code of it.
        unsafe {
            let library = Library::open(Some(path), RTLD_NOW | RTLD_LOCAL)
                .with_context(|| format!("cannot load the cell's library {path}"))?;
            let cell = *library.get::<Cell>(name.as_bytes()).context("the cell has no function")?;
            self.store = cell(self.store);
            std::mem::forget(library);
        }
        Ok(())
    }
}

/// The library of `side.rs`.
#[derive(Clone, Copy)]
struct Side {
    flush: unsafe extern "C" fn(),
}

impl Side {
    fn load(relay: &Relay) -> Result<Side> {
        type Tell = extern "C" fn(*const u8, usize, *const u8, usize);
        let path = env::var("THALWEG_SIDE").context("THALWEG_SIDE is not set")?;
        let _ = PANICS.set((relay.clone(), std::thread::current().id()));
        // SAFETY: the types are those of `side.rs`; the library stays loaded.
        unsafe {
            let library = Library::new(&path)
                .with_context(|| format!("cannot load {path}; run cargo lab"))?;
            let watch = *library.get::<unsafe extern "C" fn(Tell)>(b"thalweg_watch_panics\0")?;
            let flush = *library.get::<unsafe extern "C" fn()>(b"thalweg_flush\0")?;
            std::mem::forget(library);
            watch(tell_panic);
            Ok(Side { flush })
        }
    }

    fn flush(self) {
        // SAFETY: takes and returns nothing.
        unsafe { (self.flush)() }
    }

    fn flush_now_and_then(self) {
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(FLUSH);
                self.flush();
            }
        });
    }
}

extern "C" fn tell_panic(message: *const u8, length: usize, place: *const u8, place_length: usize) {
    let Some((relay, main)) = PANICS.get() else { return };
    // SAFETY: the hook passes two strings that outlive the call.
    let text = |start, length| unsafe {
        String::from_utf8_lossy(std::slice::from_raw_parts(start, length)).into_owned()
    };
    let current = std::thread::current();
    let thread =
        (current.id() != *main).then(|| current.name().unwrap_or("of the cell").to_owned());
    relay.tell(&Event::Panicked {
        thread,
        message: text(message, length),
        place: text(place, place_length),
    });
}
