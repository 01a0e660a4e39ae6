//! Compiled by set-up against the shared standard library, the one that cells use, and loaded into the process that
//! runs them: that process's own program has another copy of it, whose hooks and buffers are not the cells'.

use std::io::Write;

/// Takes the message of a panic and its place.
type Tell = extern "C" fn(*const u8, usize, *const u8, usize);

/// Calls `tell` at every panic, in place of printing it.
#[unsafe(no_mangle)]
pub extern "C" fn thalweg_watch_panics(tell: Tell) {
    std::panic::set_hook(Box::new(move |panic| {
        let payload = panic.payload();
        let message = payload
            .downcast_ref::<&str>()
            .map(|text| text.to_string())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "a panic whose message is not text".to_string());
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tell(message.as_ptr(), message.len(), place.as_ptr(), place.len());
    }));
}

/// Writes out what cells printed without ending the line.
#[unsafe(no_mangle)]
pub extern "C" fn thalweg_flush() {
    let _ = std::io::stdout().flush();
}
