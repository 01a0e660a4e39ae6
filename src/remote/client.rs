//! Asking the server: JSON there and back, again after a pause where that may help.

use std::fmt;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use serde_json::Value;
use ureq::Agent;

use crate::http::{is_local, one_line};

/// Bytes of the largest answer: it holds a name and a few tokens.
const LARGEST_ANSWER: u64 = 16 << 20;
/// The first pause before a request is made again; the next ones double it.
const PAUSE: Duration = Duration::from_millis(250);
/// Between two looks at whether to stop.
pub(super) const GLANCE: Duration = Duration::from_millis(20);

/// The way to one server.
#[derive(Clone)]
pub(super) struct Client {
    agent: Agent,
    /// Without a slash at the end.
    pub(super) url: String,
    pub(super) time_out: Duration,
    pub(super) retries: u32,
}

/// Why a request came to nothing.
pub(super) enum Trouble {
    /// Another try may succeed.
    Passing(String),
    /// None will.
    Final(anyhow::Error),
}

impl From<anyhow::Error> for Trouble {
    fn from(error: anyhow::Error) -> Self {
        Trouble::Final(error)
    }
}

impl Client {
    pub(super) fn new(url: &str, time_out: Duration, retries: u32) -> Result<Self> {
        let plain = url.starts_with("http://") || url.starts_with("https://");
        if !plain || url.chars().any(|c| c.is_control() || c.is_whitespace()) {
            bail!(
                "{:?}: expected the address of a server, such as http://localhost:8000",
                one_line(&url)
            );
        }
        let url = url.trim_end_matches('/').trim_end_matches("/v1").to_owned();
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(Duration::from_secs(10)))
            .user_agent(concat!("thalweg/", env!("CARGO_PKG_VERSION")));
        if is_local(&url) {
            config = config.proxy(None);
        }
        Ok(Client { agent: config.build().new_agent(), url, time_out, retries })
    }

    /// Does a step, and again after a pause if the trouble may pass; `stop` ends the waiting.
    pub(super) fn patiently<T>(
        &self,
        stop: &AtomicBool,
        mut step: impl FnMut() -> Result<T, Trouble>,
    ) -> Result<T> {
        let mut tried = 0;
        loop {
            let why = match step() {
                Ok(done) => return Ok(done),
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::Passing(why)) => why,
            };
            if tried == self.retries {
                let times =
                    if tried == 0 { String::new() } else { format!(", {} times", tried + 1) };
                bail!("{}: {why}{times}", self.url);
            }
            let until = Instant::now() + PAUSE * 2_u32.pow(tried.min(8));
            tried += 1;
            while Instant::now() < until {
                if stop.load(Ordering::Relaxed) {
                    bail!("{}: stopped", self.url);
                }
                std::thread::sleep(GLANCE);
            }
        }
    }

    /// What the server says at `path`: a question with a `body` is posted. A status other than 200
    /// is trouble, with what the server says about it.
    pub(super) fn ask(&self, path: &str, body: Option<&Value>) -> Result<Value, Trouble> {
        let url = format!("{}{path}", self.url);
        let patience = Some(self.time_out);
        let sent = match body {
            Some(body) => {
                let request = self.agent.post(&url).config().timeout_global(patience).build();
                request.header("Content-Type", "application/json").send(body.to_string())
            }
            None => self.agent.get(&url).config().timeout_global(patience).build().call(),
        };
        let response = sent.map_err(|error| self.unreachable(&error))?;
        let status = response.status().as_u16();
        let mut text = Vec::new();
        let reader = response.into_body().into_reader();
        reader.take(LARGEST_ANSWER + 1).read_to_end(&mut text).map_err(|error| {
            Trouble::Passing(format!("the answer stopped: {}", one_line(&error)))
        })?;
        if text.len() as u64 > LARGEST_ANSWER {
            return Err(self.fault(&format!("{path} answered more than {LARGEST_ANSWER} bytes")));
        }
        let json: Value = serde_json::from_slice(&text).unwrap_or(Value::Null);
        match status {
            200 if json.is_object() => Ok(json),
            200 => Err(self.fault(&format!("{path} answered no JSON object"))),
            408 | 429 | 500.. => {
                Err(Trouble::Passing(format!("{path} answered {status}{}", said(&json))))
            }
            404 => {
                Err(self
                    .fault(&format!("{path} answered 404{}: is it a vLLM server?", said(&json))))
            }
            _ => Err(self.fault(&format!("{path} answered {status}{}", said(&json)))),
        }
    }

    fn unreachable(&self, error: &ureq::Error) -> Trouble {
        Trouble::Passing(match error {
            ureq::Error::Timeout(_) => format!("no answer within {:?}", self.time_out),
            other => format!("cannot be reached: {}", one_line(other)),
        })
    }

    /// An error that no other try will mend.
    pub(super) fn fault(&self, what: &str) -> Trouble {
        Trouble::Final(anyhow!("{}: {what}", self.url))
    }
}

/// The server's own words about a refusal.
fn said(json: &Value) -> String {
    let text = json["error"]["message"].as_str().or(json["message"].as_str());
    text.map(|text| format!(": {}", one_line(&text))).unwrap_or_default()
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}
