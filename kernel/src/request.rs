//! Requests as front ends send them: the protocol lets them leave out what has a default, jupyter-protocol does not.

use jupyter_protocol::{JupyterMessage, JupyterMessageContent as Content};
use jupyter_zmq_client::{Connection, RawMessage, Result, RuntimeError};
use serde_json::{Value, json};
use zeromq::SocketRecv;

/// The next request, its signature checked.
pub(crate) async fn read<S: SocketRecv>(from: &mut Connection<S>) -> Result<JupyterMessage> {
    let RawMessage { zmq_identities, jparts } =
        RawMessage::from_multipart(from.socket.recv().await?, &from.mac)?;
    let header: jupyter_protocol::Header = serde_json::from_slice(&jparts[0])?;
    let mut content = serde_json::from_slice(&jparts[3])?;
    complete(&header.msg_type, &mut content);
    let content = Content::from_type_and_content(&header.msg_type, content)
        .map_err(|source| RuntimeError::ParseError { msg_type: header.msg_type.clone(), source })?;
    Ok(JupyterMessage {
        zmq_identities,
        header,
        parent_header: serde_json::from_slice(&jparts[1]).ok(), // `{}` where there is none
        metadata: serde_json::from_slice(&jparts[2])?,
        content,
        buffers: jparts[4..].to_vec(),
        channel: None,
    })
}

/// Adds the defaults of <https://jupyter-client.readthedocs.io/en/latest/messaging.html>.
fn complete(kind: &str, content: &mut Value) {
    let end = content["code"].as_str().map_or(0, |code| code.chars().count());
    let defaults = match kind {
        "execute_request" => {
            json!({ "silent": false, "store_history": true, "user_expressions": {} })
        }
        "complete_request" | "inspect_request" => json!({ "cursor_pos": end }),
        "history_request" => json!({
            "output": false, "raw": true, "hist_access_type": "tail", "n": 0, "pattern": "*", "unique": false,
            "session": 0, "start": 0, "stop": 0,
        }),
        "shutdown_request" => json!({ "restart": false }),
        _ => return,
    };
    let (Value::Object(content), Value::Object(defaults)) = (content, defaults) else { return };
    for (name, value) in defaults {
        let given = content.entry(name).or_insert(Value::Null);
        if given.is_null() {
            *given = value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_leaves_out_has_its_default() {
        let mut content = json!({ "hist_access_type": "search", "pattern": "1*", "stop": null });
        complete("history_request", &mut content);
        assert_eq!(content["pattern"], "1*");
        assert_eq!(
            (&content["n"], &content["unique"], &content["stop"]),
            (&json!(0), &json!(false), &json!(0))
        );
        assert!(Content::from_type_and_content("history_request", content).is_ok());
        let mut content = json!({ "code": "río" });
        complete("inspect_request", &mut content);
        assert_eq!(content, json!({ "code": "río", "cursor_pos": 3 }));
        complete("execute_request", &mut content);
        assert!(Content::from_type_and_content("execute_request", content).is_ok());
    }
}
