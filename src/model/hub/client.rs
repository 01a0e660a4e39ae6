//! Asking the hub: one GET at a time through `hf-hub`'s agent. Redirects are followed here, so that
//! the token goes to the hub alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Read;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hf_hub::Cache;
use hf_hub::api::sync::{ApiBuilder, ApiRepo};
use serde_json::Value;

use super::names::is_commit;
use super::place::Place;
use crate::http::{is_local, one_line, origin};
use crate::interrupt::Interrupt;

/// Redirects that are followed.
const REDIRECTS: usize = 5;
/// Requests made again in a row.
const AGAIN: u32 = 3;
/// Bytes of the largest listing: thousands of files have less.
const LARGEST_LISTING: u64 = 50_000_000;

/// Asks about one revision of one model.
pub(super) struct Client<'a> {
    pub(super) place: &'a Place<'a>,
    api: ApiRepo,
}

/// An answer, its body unread.
pub(super) struct Reply {
    pub(super) status: u16,
    /// What the hub said, before it pointed elsewhere.
    hub: Headers,
    /// What the last host said.
    last: Headers,
    /// The host it sent to, where it did.
    elsewhere: Option<String>,
    pub(super) body: Box<dyn Read>,
}

/// Values by names in small letters.
type Headers = BTreeMap<String, String>;

/// The commit of a revision, and its files.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) commit: String,
    pub(super) files: BTreeSet<String>,
}

/// Why a request came to nothing.
pub(super) enum Trouble {
    /// Another try may succeed.
    Passing(String),
    /// None will.
    Final(anyhow::Error),
}

/// The error after the last try.
#[derive(Debug)]
pub(super) struct Unreachable(String);

impl<'a> Client<'a> {
    pub(super) fn new(place: &'a Place<'a>) -> Result<Self> {
        // Without the token: hf-hub would send it to every address.
        let api = ApiBuilder::from_cache(Cache::new(place.hub.cache.clone()))
            .with_endpoint(place.hub.endpoint.clone())
            .with_token(None)
            .with_user_agent("thalweg", env!("CARGO_PKG_VERSION"))
            .build()
            .with_context(|| format!("{place}: cannot ask {}", place.hub.endpoint))?;
        Ok(Client { place, api: api.repo(place.named()) })
    }

    /// Which files the revision has.
    pub(super) fn listing(&self) -> Result<Listing> {
        let url = self.place.listing();
        let text = self.patiently(|| {
            let reply = self.get(&url, None)?;
            match reply.status {
                200 => reply.text(LARGEST_LISTING),
                _ => Err(self.refusal(&reply, None)),
            }
        })?;
        let json: Value = serde_json::from_slice(&text).unwrap_or_default();
        let commit = json["sha"].as_str().filter(|commit| is_commit(commit));
        let listed = json["siblings"].as_array().zip(commit).with_context(|| {
            format!("{}: {url} answered no listing: expected \"sha\" and \"siblings\"", self.place)
        })?;
        let asked = self.place.revision;
        ensure!(
            !self.place.is_commit() || asked == listed.1,
            "{}: the hub answered with commit {}",
            self.place,
            listed.1
        );
        let name = |file: &Value| Some(file["rfilename"].as_str()?.to_owned());
        Ok(Listing {
            commit: listed.1.to_owned(),
            files: listed.0.iter().filter_map(name).collect(),
        })
    }

    /// Does a step, and does it again after a pause if the trouble may pass.
    pub(super) fn patiently<T>(&self, mut step: impl FnMut() -> Result<T, Trouble>) -> Result<T> {
        let mut tried = 0;
        loop {
            match step() {
                Ok(done) => return Ok(done),
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::Passing(why)) => self.pause(&mut tried, &why)?,
            }
        }
    }

    /// Waits longer each time; after the last an error.
    pub(super) fn pause(&self, tried: &mut u32, why: &str) -> Result<()> {
        if *tried >= AGAIN {
            let tries = AGAIN + 1;
            return Err(Unreachable(format!("{}: {why}, {tries} times", self.place)).into());
        }
        let until = Instant::now() + self.place.hub.pause * 2_u32.pow(*tried);
        *tried += 1;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            Interrupt::new().check(|| "interrupted".to_owned())?;
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
        Ok(())
    }

    /// Asks for an address, or for its bytes from `from` to `to` or the end, wherever the hub sends
    /// us.
    pub(super) fn get(
        &self,
        url: &str,
        range: Option<(u64, Option<u64>)>,
    ) -> Result<Reply, Trouble> {
        let range = range.map(|(from, to)| match to {
            Some(to) => format!("bytes={from}-{to}"),
            None => format!("bytes={from}-"),
        });
        let (mut url, mut hub) = (url.to_owned(), Headers::new());
        for _ in 0..=REDIRECTS {
            let is_hub = origin(&url) == origin(&self.place.hub.endpoint);
            let reply = self.once(&url, range.as_deref(), is_hub)?;
            if is_hub {
                hub.extend(reply.last.clone());
            }
            let next = reply.last.get("location").filter(|_| (300..400).contains(&reply.status));
            match next {
                Some(next) => url = joined(&url, next)?,
                None => {
                    let elsewhere = (!is_hub).then(|| origin(&url).to_owned());
                    return Ok(Reply { hub, elsewhere, ..reply });
                }
            }
        }
        Err(Trouble::new(format!("{}: {url} is the {REDIRECTS}th redirect", self.place)))
    }

    fn once(&self, url: &str, range: Option<&str>, with_token: bool) -> Result<Reply, Trouble> {
        // Compressed, a file would have neither its size nor its ranges.
        let mut request = self.api.info_request().uri(url).header("Accept-Encoding", "identity");
        if let Some(range) = range {
            request = request.header("Range", range);
        }
        if let Some(token) = self.place.hub.token.as_ref().filter(|_| with_token) {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let patience = Some(self.place.hub.timeout);
        let mut settings = request
            .config()
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_resolve(patience)
            .timeout_connect(patience)
            .timeout_recv_response(patience)
            .timeout_per_read(patience);
        if is_local(url) {
            settings = settings.proxy(None);
        }
        let response = settings.build().call().map_err(|error| {
            Trouble::Passing(format!("cannot reach {}: {}", origin(url), one_line(&error)))
        })?;
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let headers = response.headers().iter();
        let last =
            headers.map(|(name, value)| (name.to_string(), text(value.as_bytes()))).collect();
        let (status, body) = (response.status().as_u16(), response.into_body().into_reader());
        let (hub, body) = (Headers::new(), Box::new(body));
        Ok(Reply { status, hub, last, elsewhere: None, body })
    }

    /// What a refusal means: `file` is absent where the listing was asked for.
    pub(super) fn refusal(&self, reply: &Reply, file: Option<&str>) -> Trouble {
        let (place, hub) = (self.place, &self.place.hub.endpoint);
        let (repo, revision) = (place.repo, place.revision);
        let code = reply.hub("x-error-code").unwrap_or_default();
        let token = self.place.hub.token.is_some();
        let status = reply.status;
        Trouble::new(match (status, code) {
            (408 | 429 | 500.., _) => {
                let host = reply.elsewhere.as_ref().unwrap_or(hub);
                return Trouble::Passing(format!("{host} answered {status}"));
            }
            _ if reply.elsewhere.is_some() => format!(
                "{place}: {} answered {status} for {}, expected 200",
                reply.elsewhere.as_deref().unwrap_or_default(),
                file.unwrap_or("the listing")
            ),
            (401 | 403, "GatedRepo") | (403, _) => format!(
                "{place} is gated ({status}): accept its terms at {hub}/{repo}, {}",
                match token {
                    true => "as the user whose token this is, and with a token that may read it",
                    false => "then set HF_TOKEN to a token of yours",
                }
            ),
            (401, _) if token => format!(
                "{hub} does not take the token for {repo} (401): there is no such model, or the token is not valid or may not read it; see {hub}/settings/tokens"
            ),
            (401, _) => format!(
                "{hub} shows no {repo} without a token (401): check the name, or set HF_TOKEN if the model is private or gated"
            ),
            (404, "RevisionNotFound") => format!(
                "{repo} has no revision {revision:?}: expected a branch, a tag or a commit of {hub}/{repo}"
            ),
            (404, _) if file.is_some() => {
                format!("{place} has no {}", file.unwrap_or_default())
            }
            (404, "RepoNotFound") => format!("there is no model {repo} at {hub}: check the name"),
            (404, _) => format!(
                "there is no model {repo} at {hub}, or it has no revision {revision:?}: check both"
            ),
            _ => format!("{place}: {hub} answered {status}, expected 200"),
        })
    }
}

impl Reply {
    /// A header of the hub itself, not of the host it sends to.
    pub(super) fn hub(&self, name: &str) -> Option<&str> {
        self.hub.get(name).map(String::as_str)
    }

    /// The first byte and the size of the whole that a part was cut from.
    pub(super) fn range(&self) -> Option<(Option<u64>, u64)> {
        let text = self.last.get("content-range")?.strip_prefix("bytes ")?;
        let (part, whole) = text.split_once('/')?;
        let from = part.split('-').next().and_then(|from| from.parse().ok());
        Some((from, whole.parse().ok()?))
    }

    /// Bytes of the body, where the host says so.
    pub(super) fn length(&self) -> Option<u64> {
        self.last.get("content-length")?.parse().ok()
    }

    fn text(self, most: u64) -> Result<Vec<u8>, Trouble> {
        let mut text = Vec::new();
        let read = self.body.take(most + 1).read_to_end(&mut text);
        read.map_err(|error| Trouble::Passing(format!("an answer stopped: {}", one_line(&error))))?;
        match text.len() as u64 > most {
            true => Err(Trouble::new(format!("the hub's listing has more than {most} bytes"))),
            false => Ok(text),
        }
    }
}

impl Trouble {
    fn new(text: String) -> Self {
        Trouble::Final(anyhow::anyhow!(text))
    }
}

impl From<anyhow::Error> for Trouble {
    fn from(error: anyhow::Error) -> Self {
        Trouble::Final(error)
    }
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unreachable {}

/// Where a redirect leads.
fn joined(url: &str, location: &str) -> Result<String, Trouble> {
    let next = match location {
        full if full.starts_with("https://") => full.to_owned(),
        full if full.starts_with("http://") && url.starts_with("http://") => full.to_owned(),
        path if path.starts_with('/') && !path.starts_with("//") => {
            format!("{}{path}", origin(url))
        }
        _ => {
            return Err(Trouble::new(format!(
                "{} sends to {location:?}: expected an https address",
                origin(url)
            )));
        }
    };
    Ok(next)
}
