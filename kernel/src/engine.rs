//! evcxr with thalweg in it: compiles and runs cells, completes and explains.

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};
use evcxr::{CommandContext, Error, EvalCallbacks, EvalContext, EvalContextOutputs};
use serde_json::Value;

use crate::completeness;
use crate::docs::Docs;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::outputs::Outputs;
use crate::wire::{Bundle, Order};

/// Asks the reader for a line: a prompt, and whether the answer is a password.
pub(crate) type Ask<'a> = &'a dyn Fn(&str, bool) -> String;

/// The notebook's state.
pub(crate) struct Engine {
    context: CommandContext,
    outputs: Outputs,
    interrupt: Interrupt,
    docs: LazyDocs,
}

/// The library's documentation, read while evcxr starts.
type LazyDocs = Arc<OnceLock<Arc<Docs>>>;

impl Engine {
    /// Starts evcxr, adds thalweg and runs the prelude: seconds, for rust-analyzer reads all sources.
    ///
    /// evcxr reads an `evcxr.toml` from the folder it starts in; it starts in its own, so that a notebook's folder
    /// changes nothing.
    pub(crate) fn start(
        commands: &str,
        prelude: &str,
        sources: PathBuf,
        config: PathBuf,
        outputs: Outputs,
        interrupt: Interrupt,
    ) -> Result<Engine> {
        let notebook = env::current_dir().context("the notebook's folder is gone")?;
        env::set_current_dir(&config)
            .with_context(|| format!("cannot enter {}", config.display()))?;
        let docs = LazyDocs::default();
        let reading = Arc::clone(&docs);
        std::thread::spawn(move || drop(reading.set(Arc::new(Docs::read(&sources)))));
        let started = EvalContext::with_subprocess_command(Command::new(env::current_exe()?));
        let (context, pipes) = started.map_err(|error| anyhow::anyhow!("evcxr: {error}"))?;
        pass_on(pipes, &outputs);
        let mut engine = Engine {
            context: CommandContext::with_eval_context(context),
            outputs,
            interrupt,
            docs,
        };
        engine.interrupt.watch(engine.context.process_handle());
        // The last, empty cell is the first to be compiled the quick way, which prepares it for the reader's.
        for code in [commands, prelude, "{}"] {
            engine.context.execute(code).map_err(|error| anyhow::anyhow!("prelude: {error}"))?;
        }
        engine.enter(&notebook.to_string_lossy(), Vec::new())?;
        Ok(engine)
    }

    /// Goes to the notebook's folder, with these variables in the environment.
    pub(crate) fn enter(&self, folder: &str, environment: Vec<(String, String)>) -> Result<()> {
        env::set_current_dir(folder).with_context(|| format!("cannot enter {folder}"))?;
        self.outputs.order(&Order::Enter { folder: folder.to_owned(), environment });
        Ok(())
    }

    /// Runs a cell. Its outputs go out while it runs; what comes back is what commands such as `:vars` show.
    pub(crate) fn run(&mut self, code: &str, count: u32, ask: Ask) -> Result<Bundle, Failure> {
        let variables: Vec<String> =
            self.context.variables_and_types().map(|(name, _)| name.to_owned()).collect();
        self.interrupt.begin();
        let mut callbacks =
            EvalCallbacks { input_reader: &|request| ask(&request.prompt, request.is_password) };
        let ran = catch_unwind(AssertUnwindSafe(|| {
            self.context.execute_with_callbacks(code, &mut callbacks)
        }));
        let seen = self.outputs.finish();
        let (requests, killed) = self.interrupt.end();
        let failure = match ran {
            Err(_) => Failure::new(
                "evcxr",
                "evcxr itself panicked on this cell (its log says where); variables are kept",
            ),
            Ok(Err(Error::SubprocessTerminated(text))) => lost(&text, killed, &variables),
            Ok(Err(error)) => Failure::of(&error, code, count),
            Ok(Ok(_)) if seen.panicked && !seen.panics.is_empty() => {
                let compiled = self.context.last_source().unwrap_or_default();
                Failure::panic(&seen.panics[0], &compiled, code)
            }
            Ok(Ok(_)) if seen.left && !seen.returned.is_empty() => {
                Failure::returned(&seen.returned[0].0, &seen.returned[0].1)
            }
            Ok(Ok(_)) if seen.panicked || seen.left => {
                Failure::new("Error", "the cell did not run to its end")
            }
            Ok(Ok(outputs)) => match completeness::left_out(code) {
                None => return Ok(bundle(outputs.content_by_mime_type)),
                Some(what) => Failure::new("compile error", what),
            },
        };
        Err(if requests > 0 && !killed { interrupted(failure) } else { failure })
    }

    /// What the library's sources say; waits for the reading, which takes a second.
    pub(crate) fn docs(&self) -> Arc<Docs> {
        Arc::clone(self.docs.wait())
    }

    /// Completions at a byte offset.
    pub(crate) fn completions(&mut self, code: &str, at: usize) -> Option<evcxr::Completions> {
        catch_unwind(AssertUnwindSafe(|| self.context.completions(code, at))).ok()?.ok()
    }

    /// What is known of the name before a byte offset, as text and as HTML.
    pub(crate) fn explain(&mut self, code: &str, at: usize) -> Option<(String, String)> {
        let found =
            catch_unwind(AssertUnwindSafe(|| self.context.hover_at(code, at))).ok()?.ok()?;
        (found.0 != "No documentation found").then_some(found)
    }
}

/// What evcxr itself reads of the process's output: nothing of the cells', but warnings of the start-up.
fn pass_on(pipes: EvalContextOutputs, outputs: &Outputs) {
    for pipe in [pipes.stdout, pipes.stderr] {
        let outputs = outputs.clone();
        std::thread::spawn(move || {
            while let Ok(line) = pipe.recv() {
                outputs.note(&format!("{line}\n"));
            }
        });
    }
}

fn bundle(contents: std::collections::HashMap<String, String>) -> Bundle {
    contents.into_iter().map(|(mime, content)| (mime, Value::String(content))).collect()
}

fn interrupted(failure: Failure) -> Failure {
    if failure.value.contains("interrupted") {
        return Failure { name: "Interrupted".to_owned(), ..failure };
    }
    failure
}

fn lost(text: &str, killed: bool, variables: &[String]) -> Failure {
    let lost = match variables {
        [] => "no variables were lost".to_owned(),
        some => format!("these variables are lost: {}", some.join(", ")),
    };
    let what = if killed {
        "the second interrupt killed the process that ran the cells".to_owned()
    } else {
        let status = text.split("terminated with status: ").last().unwrap_or(text).trim();
        let hint = if status.contains("signal: 9") { ", perhaps for lack of memory" } else { "" };
        format!("the process that ran the cells ended ({status}{hint})")
    };
    let name = if killed { "Killed" } else { "ProcessEnded" };
    Failure::new(name, format!("{what}; {lost}; functions, types and imports are kept"))
}
