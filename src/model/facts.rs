//! What a record says of a model.

use super::Model;
use crate::hook::plan::Plan;
use crate::record::Record;
use crate::text::Tokens;

impl Model {
    /// SHA-256 over the tensors of a Hugging Face file, in the order of the forward pass: of each
    /// its name, kind, shape and bytes, q, k, v and gate, up apart. The same for the same numbers
    /// in the same kind, on any device and however the files were cut; found when first asked for,
    /// then shared by clones.
    pub fn weights_hash(&self) -> String {
        self.weights.fingerprint.hash()
    }

    /// All that is known of a run before it begins.
    pub(crate) fn facts(&self, tokens: &Tokens, plan: &Plan) -> Record {
        Record {
            thalweg: env!("CARGO_PKG_VERSION").to_owned(),
            libtorch: option_env!("THALWEG_LIBTORCH").unwrap_or("unknown").to_owned(),
            model: self.source.clone(),
            weights: String::new(),
            config: self.config.to_json(),
            kind: format!("{:?}", self.kind()),
            device: format!("{:?}", self.device()),
            attention: String::new(),
            plan: format!("{plan:?}"),
            ids: tokens.ids().to_vec(),
            pieces: tokens.pieces().to_vec(),
            seed: None,
            notes: Vec::new(),
        }
    }
}
