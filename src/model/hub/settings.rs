//! Where the hub is and where its files are kept, as variables say: those of `huggingface_hub`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Hub;

impl Hub {
    /// [`from_env`](Hub::from_env) with variables from elsewhere: `look_up` gives the value of a
    /// name.
    ///
    /// ```
    /// use thalweg::Hub;
    /// let hub = Hub::from_variables(|name| match name {
    ///     "HF_HOME" => Some("models".to_owned()),
    ///     "HF_HUB_OFFLINE" => Some("1".to_owned()),
    ///     _ => None,
    /// })?;
    /// assert_eq!(hub.endpoint, "https://huggingface.co");
    /// assert!(hub.cache.ends_with("models/hub") && hub.offline && hub.token.is_none());
    /// # thalweg::anyhow::Ok(())
    /// ```
    pub fn from_variables(look_up: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let variables = Variables { look_up };
        let home = variables.home()?;
        let cache = variables.first(&["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"]);
        let cache = cache.map(|path| variables.path(&path)).transpose()?;
        let endpoint = variables.first(&["HF_ENDPOINT"]);
        let endpoint = endpoint.as_deref().unwrap_or("https://huggingface.co");
        ensure!(
            ["https://", "http://"].iter().any(|scheme| endpoint.starts_with(scheme)),
            "HF_ENDPOINT = {endpoint:?}: expected an address such as https://huggingface.co"
        );
        Ok(Hub {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            cache: cache.unwrap_or_else(|| home.join("hub")),
            token: variables.token(home)?,
            offline: variables.is_on("HF_HUB_OFFLINE") || variables.is_on("TRANSFORMERS_OFFLINE"),
            update: false,
            timeout: variables.timeout()?,
            pause: Duration::from_millis(500),
        })
    }
}

struct Variables<F> {
    look_up: F,
}

impl<F: Fn(&str) -> Option<String>> Variables<F> {
    /// The first of these that holds anything.
    fn first(&self, names: &[&str]) -> Option<String> {
        let filled = |name: &&str| (self.look_up)(name).filter(|value| !value.trim().is_empty());
        names.iter().find_map(filled).map(|value| value.trim().to_owned())
    }

    fn is_on(&self, name: &str) -> bool {
        let value = self.first(&[name]).unwrap_or_default().to_uppercase();
        ["1", "ON", "YES", "TRUE"].contains(&value.as_str())
    }

    /// `HF_HOME`.
    fn home(&self) -> Result<PathBuf> {
        if let Some(home) = self.first(&["HF_HOME"]) {
            return self.path(&home);
        }
        match self.first(&["XDG_CACHE_HOME"]) {
            Some(cache) => Ok(self.path(&cache)?.join("huggingface")),
            None => Ok(self.path("~/.cache/huggingface")?),
        }
    }

    /// A path in which `~` is the user's home.
    fn path(&self, text: &str) -> Result<PathBuf> {
        let Some(rest) =
            text.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with('/'))
        else {
            return Ok(std::path::absolute(text)?);
        };
        let home = self
            .first(&["HOME", "USERPROFILE"])
            .context("no home directory for the hub's cache: set HF_HOME to a directory")?;
        Ok(std::path::absolute(home)?.join(rest.trim_start_matches('/')))
    }

    fn token(&self, home: PathBuf) -> Result<Option<String>> {
        if self.is_on("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            return Ok(None);
        }
        let token = self.first(&["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]);
        let token = match (token, self.first(&["HF_TOKEN_PATH"])) {
            (Some(token), _) => Some(token),
            (None, Some(path)) => std::fs::read_to_string(self.path(&path)?).ok(),
            (None, None) => std::fs::read_to_string(home.join("token")).ok(),
        };
        let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        let plain = |token: &String| token.chars().all(|c| c.is_ascii_graphic());
        ensure!(
            token.as_ref().is_none_or(plain),
            "the hub's token holds a space or a character outside ASCII: expected one word, hf_..."
        );
        Ok(token)
    }

    fn timeout(&self) -> Result<Duration> {
        let Some(text) = self.first(&["HF_HUB_DOWNLOAD_TIMEOUT"]) else {
            return Ok(Duration::from_secs(10));
        };
        let seconds = text.parse::<f64>().ok().filter(|s| *s > 0.0);
        let timeout = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        timeout.with_context(|| {
            format!("HF_HUB_DOWNLOAD_TIMEOUT = {text:?}: expected seconds, such as 10")
        })
    }
}
