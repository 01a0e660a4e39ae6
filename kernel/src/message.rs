//! Jupyter's messages. Contents are written as JSON, as the protocol's page gives them:
//! <https://jupyter-client.readthedocs.io/en/latest/messaging.html>.

use jupyter_protocol::{JupyterMessage, UnknownMessage};
use serde_json::{Value, json};

use crate::failure::Failure;

/// A message that answers `parent`, or belongs to it.
pub(crate) fn of(parent: Option<&JupyterMessage>, kind: &str, content: Value) -> JupyterMessage {
    JupyterMessage::new(UnknownMessage { msg_type: kind.to_owned(), content }, parent)
}

/// A message for all front ends: those go out without the address of the one that asked.
pub(crate) fn public(
    parent: Option<&JupyterMessage>,
    kind: &str,
    content: Value,
) -> JupyterMessage {
    of(parent, kind, content).with_zmq_identities(Vec::new())
}

pub(crate) fn status(parent: Option<&JupyterMessage>, state: &str) -> JupyterMessage {
    public(parent, "status", json!({ "execution_state": state }))
}

/// The error of a cell, as its output shows it.
pub(crate) fn error(parent: &JupyterMessage, failure: &Failure) -> JupyterMessage {
    let Failure { name, value, traceback } = failure;
    public(Some(parent), "error", json!({ "ename": name, "evalue": value, "traceback": traceback }))
}
