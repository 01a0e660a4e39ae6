//! The chat templates of a model's directory: `chat_template.jinja` and `chat_templates/`, or what
//! `tokenizer_config.json` holds; and the special tokens that they write.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

/// Special tokens that a template can name.
const SPECIAL: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Templates by name, `default` among them, and special tokens.
#[derive(Debug, Clone, Default)]
pub(crate) struct Templates(Arc<Contents>);

#[derive(Debug, Clone, Default)]
struct Contents {
    texts: BTreeMap<String, String>,
    special: Map<String, Value>,
}

impl Templates {
    /// What a directory has; nothing is an answer too.
    pub(crate) fn load(dir: &Path) -> Result<Self> {
        let path = dir.join("tokenizer_config.json");
        let config = read_json(&path)?;
        let older = read_json(&dir.join("special_tokens_map.json"))?;
        let mut texts = in_config(&config["chat_template"])
            .with_context(|| format!("{}: chat_template", path.display()))
            .map_err(|error| anyhow::anyhow!("{error:#}"))?;
        let files = in_files(dir)?;
        if !files.is_empty() {
            texts = files;
        }
        let mut special = Map::new();
        for name in SPECIAL {
            if let Some(token) = token(&config[name]).or_else(|| token(&older[name])) {
                special.insert(name.to_owned(), json!(token));
            }
        }
        Ok(Templates(Arc::new(Contents { texts, special })))
    }

    pub(crate) fn with(&self, template: &str) -> Self {
        let texts = BTreeMap::from([("default".to_owned(), template.to_owned())]);
        Templates(Arc::new(Contents { texts, special: self.0.special.clone() }))
    }

    pub(crate) fn special(&self) -> &Map<String, Value> {
        &self.0.special
    }

    /// The template of a name; without one `tool_use` where there are tools, else `default`.
    pub(crate) fn of(&self, name: Option<&str>, with_tools: bool) -> Result<&str> {
        let texts = &self.0.texts;
        let names = || texts.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        if texts.is_empty() {
            bail!(
                "there is no chat template: expected chat_template.jinja, or chat_template in tokenizer_config.json; instruct models have one, and with_chat_template gives one to a model"
            );
        }
        let default =
            if with_tools && texts.contains_key("tool_use") { "tool_use" } else { "default" };
        let name = name.unwrap_or(default);
        let text = texts.get(name).map(String::as_str);
        text.with_context(|| format!("there is no chat template {name:?}: have {}", names()))
    }

    /// Writes what `load` reads.
    pub(crate) fn save(&self, dir: &Path) -> Result<()> {
        let Contents { texts, special } = &*self.0;
        if !special.is_empty() {
            let mut config = special.clone();
            // transformers then reads tokenizer.json as it is.
            config.insert("tokenizer_class".to_owned(), json!("PreTrainedTokenizerFast"));
            let json = serde_json::to_string_pretty(&config)? + "\n";
            write(&dir.join("tokenizer_config.json"), &json)?;
        }
        for (name, text) in texts {
            match name.as_str() {
                "default" => write(&dir.join("chat_template.jinja"), text)?,
                _ => {
                    let file = name.replace(|c: char| !c.is_ascii_alphanumeric() && c != '-', "_");
                    let inner = dir.join("chat_templates");
                    std::fs::create_dir_all(&inner)
                        .with_context(|| format!("cannot create {}", inner.display()))?;
                    write(&inner.join(file + ".jinja"), text)?;
                }
            }
        }
        Ok(())
    }
}

/// A file's JSON; null where there is no file.
fn read_json(path: &Path) -> Result<Value> {
    if !path.is_file() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&read(path)?)
        .map_err(|error| anyhow::anyhow!("{}: not JSON: {error}", path.display()))
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path)
        .map_err(|error| anyhow::anyhow!("cannot read {}: {error}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// One template, or a list of named ones.
fn in_config(value: &Value) -> Result<BTreeMap<String, String>> {
    let one = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    match value {
        Value::Null => Ok(BTreeMap::new()),
        Value::String(text) => Ok(BTreeMap::from([one("default", text)])),
        Value::Array(list) => {
            let named = |entry: &Value| {
                let both = entry["name"].as_str().zip(entry["template"].as_str());
                both.map(|(name, text)| one(name, text))
            };
            let named = list.iter().map(named).collect::<Option<_>>();
            named.context("expected a \"name\" and a \"template\" in every entry")
        }
        _ => bail!("expected a text, or a list of named texts"),
    }
}

fn in_files(dir: &Path) -> Result<BTreeMap<String, String>> {
    let mut texts = BTreeMap::new();
    let default = dir.join("chat_template.jinja");
    if default.is_file() {
        texts.insert("default".to_owned(), read(&default)?);
    }
    let Ok(entries) = std::fs::read_dir(dir.join("chat_templates")) else { return Ok(texts) };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.extension().is_some_and(|end| end == "jinja") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            texts.insert(name.into_owned(), read(&path)?);
        }
    }
    Ok(texts)
}

/// A special token: a text, or an object with its `content`.
fn token(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value["content"].as_str())
}
