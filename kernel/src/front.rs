//! Answers to what needs no evcxr: facts about the kernel, whether code is complete, the history, interrupts.

use jupyter_protocol::{JupyterMessage, JupyterMessageContent as Content};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedSender;

use crate::completeness::{self, Completeness};
use crate::history::History;
use crate::interrupt::Interrupt;
use crate::message;
use crate::outputs::Outputs;

/// What both threads have: the ways out, and what they must know of each other.
#[derive(Clone)]
pub(crate) struct Front {
    pub(crate) iopub: UnboundedSender<JupyterMessage>,
    pub(crate) replies: UnboundedSender<JupyterMessage>,
    pub(crate) interrupt: Interrupt,
    pub(crate) outputs: Outputs,
    pub(crate) history: History,
}

impl Front {
    pub(crate) fn answer(&self, request: &JupyterMessage) {
        let _ = self.iopub.send(message::status(Some(request), "busy"));
        if let Some((kind, content)) = self.reply(request) {
            let _ = self.replies.send(message::of(Some(request), kind, content));
        }
        let _ = self.iopub.send(message::status(Some(request), "idle"));
        // Front ends show the last state they were told: a cell that runs is still running.
        if self.interrupt.executing() {
            self.outputs.still_busy();
        }
    }

    fn reply(&self, request: &JupyterMessage) -> Option<(&'static str, Value)> {
        Some(match &request.content {
            Content::KernelInfoRequest(_) => ("kernel_info_reply", kernel_info()),
            Content::IsCompleteRequest(asked) => ("is_complete_reply", is_complete(&asked.code)),
            Content::HistoryRequest(asked) => ("history_reply", self.history.reply(asked)),
            Content::CommInfoRequest(_) => {
                ("comm_info_reply", json!({ "status": "ok", "comms": {} }))
            }
            Content::CommOpen(comm) => {
                // No target is known here: a comm that is opened is closed again, as the protocol asks.
                let content = json!({ "comm_id": comm.comm_id, "data": {} });
                let _ = self.iopub.send(message::public(Some(request), "comm_close", content));
                return None;
            }
            Content::InterruptRequest(_) => {
                self.interrupt.request(&self.outputs);
                ("interrupt_reply", json!({ "status": "ok" }))
            }
            Content::ShutdownRequest(asked) => {
                ("shutdown_reply", json!({ "status": "ok", "restart": asked.restart }))
            }
            _ => return None,
        })
    }
}

/// <https://jupyter-client.readthedocs.io/en/latest/messaging.html#kernel-info>
fn kernel_info() -> Value {
    json!({
        "status": "ok",
        "protocol_version": "5.3",
        "implementation": "thalweg-kernel",
        "implementation_version": env!("CARGO_PKG_VERSION"),
        "language_info": {
            "name": "rust",
            "version": env!("CARGO_PKG_RUST_VERSION"),
            "mimetype": "text/x-rustsrc",
            "file_extension": ".rs",
            "pygments_lexer": "rust",
            "codemirror_mode": "rust",
        },
        "banner": concat!("Rust (thalweg ", env!("CARGO_PKG_VERSION"), "): Llamas, opened"),
        "help_links": [
            { "text": "Rust's standard library", "url": "https://doc.rust-lang.org/stable/std/" },
            { "text": "tch", "url": "https://docs.rs/tch" },
        ],
        "debugger": false,
    })
}

fn is_complete(code: &str) -> Value {
    match completeness::of(code) {
        Completeness::Complete => json!({ "status": "complete" }),
        Completeness::Incomplete(indent) => json!({ "status": "incomplete", "indent": indent }),
        Completeness::Invalid => json!({ "status": "invalid" }),
    }
}
