//! A model turns prompt sets into tokens.

use anyhow::Result;

use super::Model;
use crate::prompts::Encode;
use crate::text::Tokens;

impl Encode for Model {
    fn encode(&self, texts: &[&str]) -> Result<Tokens> {
        self.batch(texts)
    }

    fn one_token(&self, text: &str) -> Result<i64> {
        self.token(text)
    }
}
