//! Many prompts at once: readers that each take the next one until there is none.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, anyhow};

use super::Remote;
use crate::interrupt::Interrupt;
use crate::show::Bar;
use crate::text::Tokens;

/// Asks for every row, several at once, and hands each answer to `take`. The first error, or the
/// notebook's interrupt, ends it: what is under way ends by itself.
pub(super) fn each<T: Send + 'static>(
    remote: &Remote,
    tokens: &Tokens,
    ask: impl Fn(&Remote, usize, &[i64], &AtomicBool) -> Result<T> + Send + Sync + 'static,
    mut take: impl FnMut(usize, T),
) -> Result<()> {
    let (batch, stop) = (tokens.batch(), Arc::new(AtomicBool::new(false)));
    let answers = readers(remote, tokens, ask, &stop);
    let (interrupt, mut bar) = (Interrupt::new(), Bar::new("served", batch).unit("prompts"));
    let mut done = 0;
    let outcome = loop {
        if done == batch {
            break Ok(());
        }
        if let Err(error) = interrupt.check(|| format!("interrupted at prompt {done} of {batch}")) {
            break Err(error);
        }
        match answers.recv_timeout(Duration::from_millis(100)) {
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                break Err(anyhow!("{}: a reader ended: a fault of this crate", remote.url()));
            }
            Ok((row, Err(error))) => break Err(anyhow!("prompt {row}: {error:#}")),
            Ok((row, Ok(answer))) => {
                take(row, answer);
                done += 1;
                bar.add(1);
            }
        }
    };
    stop.store(true, Ordering::Relaxed);
    bar.finish();
    outcome
}

fn readers<T: Send + 'static>(
    remote: &Remote,
    tokens: &Tokens,
    ask: impl Fn(&Remote, usize, &[i64], &AtomicBool) -> Result<T> + Send + Sync + 'static,
    stop: &Arc<AtomicBool>,
) -> mpsc::Receiver<(usize, Result<T>)> {
    let (sender, receiver) = mpsc::channel();
    let rows = Arc::new(Mutex::new(tokens.ids().to_vec().into_iter().enumerate()));
    let ask = Arc::new(ask);
    for _ in 0..remote.in_flight.min(tokens.batch()) {
        let (remote, ask, sender) = (remote.clone(), Arc::clone(&ask), sender.clone());
        let (rows, stop) = (Arc::clone(&rows), Arc::clone(stop));
        std::thread::spawn(move || {
            let next = || rows.lock().unwrap_or_else(PoisonError::into_inner).next();
            while let Some((row, ids)) = next() {
                let answer = ask(&remote, row, &ids, &stop);
                if sender.send((row, answer)).is_err() || stop.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
    }
    receiver
}
