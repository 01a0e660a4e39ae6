//! Writing a model as a Hugging Face directory.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};

use super::Model;

impl Model {
    /// Writes `config.json`, `model.safetensors` and, where there are such, `tokenizer.json`, the chat
    /// templates and their special tokens, in the kind the weights are in. `transformers` loads the directory as a `LlamaForCausalLM`.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<()> {
        self.whole("save")?;
        let dir = dir.as_ref();
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let mut config = self.config.clone();
        config.kind = Some(self.kind());
        let json = serde_json::to_string_pretty(&config.to_json())?;
        let path = dir.join("config.json");
        std::fs::write(&path, json + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
        let tensors = self.weights.named(&self.config);
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        crate::files::write(&dir.join("model.safetensors"), &tensors, metadata)?;
        if let Some(tokenizer) = self.tokenizer() {
            let path = dir.join("tokenizer.json");
            tokenizer
                .save(&path, true)
                .map_err(|error| anyhow::anyhow!("cannot write {}: {error}", path.display()))?;
        }
        self.templates.save(dir)
    }
}
