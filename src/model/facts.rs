//! What a record says of a model.

use super::{Model, rope};
use crate::hook::plan::{Attention, Plan};
use crate::hook::program::Program;
use crate::record::{Origin, Record};
use crate::text::Tokens;

impl Model {
    /// SHA-256 over the tensors of a Hugging Face file, in the order of the forward pass: of each
    /// its name, kind, shape and bytes, q, k, v and gate, up apart. The same for the same numbers
    /// in the same kind, on any device and however the files were cut; found when first asked for,
    /// then shared by clones.
    pub fn weights_hash(&self) -> String {
        self.weights.fingerprint.hash()
    }

    /// The program with the notes and the record of its run.
    pub(crate) fn noted(&self, mut program: Program, tokens: &Tokens, plan: &Plan) -> Program {
        if rope::stretches(&self.config, tokens) {
            program.notes.push(format!(
                "dynamic RoPE is in force (a row is longer than {}): batched, cached and full runs differ by definition",
                self.config.n_ctx
            ));
        }
        let (what, notes) = (format!("{plan:?}"), program.notes.clone());
        program.origin = Some(self.origin(tokens, what, program.attention, notes, None));
        program
    }

    /// All that is to be known of a run: its prompts, what was done, the arithmetic, notes, and the
    /// seed where it draws. Nothing is hashed yet.
    pub(crate) fn origin(
        &self,
        tokens: &Tokens,
        what: String,
        attention: Attention,
        notes: Vec<String>,
        seed: Option<u64>,
    ) -> Origin {
        let record = Record {
            thalweg: env!("CARGO_PKG_VERSION").to_owned(),
            libtorch: option_env!("THALWEG_LIBTORCH").unwrap_or("unknown").to_owned(),
            model: self.source.clone(),
            weights: String::new(),
            config: self.config.to_json(),
            kind: format!("{:?}", self.kind()),
            device: self.weights.devices.to_string(),
            attention: format!("{attention:?}"),
            plan: what,
            ids: tokens.ids().to_vec(),
            pieces: tokens.pieces().to_vec(),
            seed,
            notes,
        };
        Origin::new(record, self.weights.fingerprint.weigh())
    }
}
