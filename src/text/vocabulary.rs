//! The tokenizer behind [`Tokens`](super::Tokens): words to ids and back.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use tokenizers::{ModelWrapper, Tokenizer};

/// A tokenizer and what this crate asks of it.
#[derive(Clone)]
pub(crate) struct Vocabulary {
    tokenizer: Arc<Tokenizer>,
    /// Ids that begin a text: the config's, and what the tokenizer itself puts in front.
    bos: Vec<i64>,
    unknown: Option<i64>,
}

impl Vocabulary {
    pub(crate) fn load(path: &std::path::Path, bos: Option<i64>) -> Result<Self> {
        let tokenizer = Tokenizer::from_file(path)
            .map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
        Ok(Self::new(tokenizer, bos))
    }

    pub(crate) fn new(mut tokenizer: Tokenizer, bos: Option<i64>) -> Self {
        // A file may ask for truncation or padding to a fixed length; both would change a prompt
        // behind the user's back.
        let _ = tokenizer.with_truncation(None);
        tokenizer.with_padding(None);
        let bos = bos.into_iter().chain(put_in_front(&tokenizer)).collect();
        let unknown = unknown_id(&tokenizer);
        Vocabulary { tokenizer: Arc::new(tokenizer), bos, unknown }
    }

    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Ids of a prompt, with the beginning-of-text token as the tokenizer adds it, never twice.
    pub(crate) fn encode(&self, text: &str) -> Result<Vec<i64>> {
        let mut ids = self.raw(text, true)?;
        while ids.len() > 1 && ids[0] == ids[1] && self.bos.contains(&ids[0]) {
            ids.remove(0);
        }
        let nothing = ids.len() < 2 && self.raw(text, false)?.is_empty();
        ensure!(!nothing, "the prompt {text:?} is empty: expected some text");
        Ok(ids)
    }

    /// Ids of a piece of text, with nothing added.
    pub(crate) fn raw(&self, text: &str, special: bool) -> Result<Vec<i64>> {
        let encoding = self
            .tokenizer
            .encode(text, special)
            .map_err(|error| anyhow::anyhow!("cannot tokenize {text:?}: {error}"))?;
        Ok(encoding.get_ids().iter().map(|id| i64::from(*id)).collect())
    }

    /// The tokens of a text, nothing added, that share bytes with each of these ranges.
    pub(crate) fn overlapping(
        &self,
        text: &str,
        ranges: &[Range<usize>],
    ) -> Result<Vec<Range<usize>>> {
        let encoding = self
            .tokenizer
            .encode(text, false)
            .map_err(|error| anyhow::anyhow!("cannot tokenize {text:?}: {error}"))?;
        let offsets = encoding.get_offsets();
        let tokens = |range: &Range<usize>| {
            let shared = |at: &(usize, usize)| at.0 < range.end && range.start < at.1;
            let first = offsets.iter().position(shared).unwrap_or_default();
            let count = offsets[first..].iter().take_while(|at| shared(at)).count();
            first..first + count
        };
        Ok(ranges.iter().map(tokens).collect())
    }

    /// Ids of an answer, with nothing added; a word that the vocabulary lacks is an error.
    pub(crate) fn known(&self, text: &str) -> Result<Vec<i64>> {
        let ids = self.raw(text, false)?;
        let lacking = self.unknown.filter(|unknown| ids.contains(unknown));
        let meant = |id: i64| text.contains(&self.piece(id));
        ensure!(lacking.is_none_or(meant), "{text:?} is not in the vocabulary");
        Ok(ids)
    }

    /// The id of a text that is exactly one token.
    pub(crate) fn single(&self, text: &str) -> Result<i64> {
        let ids = self.known(text)?;
        match ids.as_slice() {
            [id] => Ok(*id),
            _ => bail!(
                "{text:?} is {} tokens ({:?}): expected one (mind the leading space)",
                ids.len(),
                self.pieces(&ids)
            ),
        }
    }

    /// What to show for each id, leading spaces included.
    pub(crate) fn pieces(&self, ids: &[i64]) -> Vec<String> {
        ids.iter().map(|id| self.piece(*id)).collect()
    }

    fn piece(&self, id: i64) -> String {
        let Ok(id) = u32::try_from(id) else { return id.to_string() };
        let Some(raw) = self.tokenizer.id_to_token(id) else { return id.to_string() };
        // Decoding a lone token drops the leading space that byte-level and sentencepiece
        // vocabularies write as a marker, and cannot show a token that is part of a character.
        let spaced = raw.starts_with('\u{2581}') || raw.starts_with('\u{120}');
        match self.tokenizer.decode(&[id], false) {
            Ok(text) if !text.contains('\u{fffd}') && !text.is_empty() => {
                if spaced && !text.starts_with(' ') { format!(" {text}") } else { text }
            }
            _ => raw.replace(['\u{2581}', '\u{120}'], " ").replace('\u{10a}', "\n"),
        }
    }
}

/// The id that a tokenizer begins every text with, if it does.
fn put_in_front(tokenizer: &Tokenizer) -> Option<i64> {
    let first = |text| tokenizer.encode(text, true).ok()?.get_ids().first().copied();
    first("").filter(|id| first("a") == Some(*id)).map(i64::from)
}

/// The id that stands for what a vocabulary lacks.
fn unknown_id(tokenizer: &Tokenizer) -> Option<i64> {
    let name = match tokenizer.get_model() {
        ModelWrapper::WordLevel(model) => Some(model.unk_token.as_str()),
        ModelWrapper::WordPiece(model) => Some(model.unk_token.as_str()),
        ModelWrapper::BPE(model) => model.unk_token.as_deref(),
        ModelWrapper::Unigram(_) => Some("<unk>"),
    };
    name.and_then(|name| tokenizer.token_to_id(name)).map(i64::from)
}

impl fmt::Debug for Vocabulary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vocabulary of {}", self.tokenizer.get_vocab_size(true))
    }
}
