//! Conversations -> tokens, by the template that an instruct model was trained with: what
//! `transformers` calls `apply_chat_template`.

mod spans;
mod strftime;
mod template;
mod templates;
mod tojson;

use std::fmt;
use std::ops::Range;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::Model;
use crate::text::Tokens;
use strftime::Date;
use template::Template;
pub(crate) use templates::Templates;

/// A conversation, and what its template is told beside it.
///
/// Where the last message is not the assistant's, the text ends in what opens its answer
/// (`add_generation_prompt=True` in `transformers`).
///
/// ```
/// use thalweg::{Chat, Model};
/// let model = Model::load("data/models/tiny-world")?.with_chat_template(
///     "{{ bos_token }}{% for m in messages %} [{{ m.role }}] {{ m.content }}{% endfor %}\
///      {% if add_generation_prompt %} [assistant]{% endif %}",
/// )?;
/// let chat = Chat::new().system("Be brief.").user("Who is there?");
/// assert_eq!(model.chat_text(&chat)?, "<s> [system] Be brief. [user] Who is there? [assistant]");
/// # thalweg::anyhow::Ok(())
/// ```
#[derive(Clone, Default, PartialEq)]
pub struct Chat {
    messages: Vec<Map<String, Value>>,
    tools: Option<Value>,
    date: Option<Date>,
    generation_prompt: Option<bool>,
    variables: Map<String, Value>,
    template: Option<String>,
}

impl Chat {
    /// No messages yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Messages in the form of `transformers`: a list of objects with `role` and `content`, and
    /// whatever else the template reads, such as `tool_calls`.
    ///
    /// ```
    /// use thalweg::Chat;
    /// let chat = Chat::from_json(r#"[{"role": "user", "content": "Who is there?"}]"#)?;
    /// assert_eq!(chat, Chat::new().user("Who is there?"));
    /// # thalweg::anyhow::Ok(())
    /// ```
    pub fn from_json(messages: &str) -> Result<Self> {
        let list: Vec<Map<String, Value>> = serde_json::from_str(messages)
            .map_err(|error| anyhow::anyhow!("messages: {error}: expected a list of objects"))?;
        for (i, message) in list.iter().enumerate() {
            let role = message.get("role").and_then(Value::as_str);
            role.with_context(|| {
                format!("message {i} has no role: expected \"user\" or the like")
            })?;
        }
        Ok(Chat { messages: list, ..Chat::new() })
    }

    /// With one message more: what is said, and by whom.
    pub fn message(mut self, role: &str, content: &str) -> Self {
        let message = json!({"role": role, "content": content});
        self.messages.extend(message.as_object().cloned());
        self
    }

    /// With an instruction for the whole conversation.
    pub fn system(self, content: &str) -> Self {
        self.message("system", content)
    }

    /// With a question.
    pub fn user(self, content: &str) -> Self {
        self.message("user", content)
    }

    /// With an answer.
    pub fn assistant(self, content: &str) -> Self {
        self.message("assistant", content)
    }

    /// Tools that the model is told of, as a list of JSON schemas.
    pub fn tools(mut self, schemas: &str) -> Result<Self> {
        let tools: Vec<Map<String, Value>> = serde_json::from_str(schemas)
            .map_err(|error| anyhow::anyhow!("tools: {error}: expected a list of JSON objects"))?;
        self.tools = Some(json!(tools));
        Ok(self)
    }

    /// The day that the template takes for today: year, month and day. Without it no clock is
    /// read, so that the same conversation is the same text tomorrow: templates then name the day
    /// that they have themselves, and one that has none is an error.
    pub fn date(mut self, year: u32, month: u32, day: u32) -> Self {
        self.date = Some(Date { year, month, day });
        self
    }

    /// A variable that the template reads, such as `enable_thinking`.
    pub fn variable(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.variables.insert(name.to_owned(), value.into());
        self
    }

    /// The template of this name, where a model has several.
    pub fn template(mut self, name: &str) -> Self {
        self.template = Some(name.to_owned());
        self
    }

    /// Ends the text with what opens an answer, whoever spoke last.
    pub fn with_generation_prompt(mut self) -> Self {
        self.generation_prompt = Some(true);
        self
    }

    /// Ends the text with the last message, whoever spoke last.
    pub fn without_generation_prompt(mut self) -> Self {
        self.generation_prompt = Some(false);
        self
    }

    fn role(&self, message: usize) -> &str {
        self.messages[message].get("role").and_then(Value::as_str).unwrap_or_default()
    }

    /// What a template reads.
    fn context(&self, special: &Map<String, Value>) -> Value {
        let last = self.messages.len().checked_sub(1).map(|last| self.role(last));
        let open = self.generation_prompt.unwrap_or(last != Some("assistant"));
        let mut context = special.clone();
        context.insert("messages".to_owned(), json!(self.messages));
        context.insert("tools".to_owned(), json!(self.tools));
        context.insert("documents".to_owned(), Value::Null);
        context.insert("add_generation_prompt".to_owned(), json!(open));
        context.extend(self.variables.clone());
        Value::Object(context)
    }
}

impl fmt::Debug for Chat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let roles = (0..self.messages.len()).map(|i| self.role(i)).collect::<Vec<_>>();
        write!(f, "Chat of {}: {}", roles.len(), roles.join(", ").escape_debug())
    }
}

impl Model {
    /// A conversation in the words of the model's chat template, rendered as `transformers` does:
    /// the default template, or the one for tools where there are any. A template that asks too much
    /// work or memory is stopped.
    pub fn chat_text(&self, chat: &Chat) -> Result<String> {
        self.templates
            .of(chat.template.as_deref(), chat.tools.is_some())
            .and_then(|text| Template::new(text, chat.date)?.render(self.chat_context(chat)))
            .map_err(|error| anyhow::anyhow!("{}: {error}", self.source))
    }

    /// The tokens of a conversation. Nothing is put in front: the template itself writes the
    /// beginning-of-text token, which is therefore there once.
    ///
    /// ```
    /// use thalweg::{Chat, Model};
    /// let model = Model::load("data/models/tiny-world")?.with_chat_template(
    ///     "{{ bos_token }} {% for m in messages %}{{ m.content }} . {% endfor %}",
    /// )?;
    /// let tokens = model.chat(&Chat::new().user("Mary went to the store"))?;
    /// assert_eq!(tokens.ids()[0], model.tokens("Mary went to the store .")?.ids()[0]);
    /// # thalweg::anyhow::Ok(())
    /// ```
    pub fn chat(&self, chat: &Chat) -> Result<Tokens> {
        self.chats(std::slice::from_ref(chat))
    }

    /// The tokens of several conversations, padded on the left where they differ in length.
    pub fn chats(&self, chats: &[Chat]) -> Result<Tokens> {
        let vocabulary = self.vocabulary()?;
        let rows = chats.iter().map(|chat| vocabulary.raw(&self.chat_text(chat)?, false));
        Ok(Tokens::from_ids(&rows.collect::<Result<Vec<_>>>()?)?.with_pieces(vocabulary))
    }

    /// Where each message's own words stand among the tokens of [`chat`](Self::chat), without the
    /// marks around them: one range a message, empty where it has no words. For `.pos(range)`.
    pub fn chat_spans(&self, chat: &Chat) -> Result<Vec<Range<usize>>> {
        let text = self.chat_text(chat)?;
        let (marked, marks) = spans::marked(chat);
        let marked = self.chat_text(&marked)?;
        let bytes = spans::found(&text, &marked, &marks)
            .map_err(|error| anyhow::anyhow!("{}: {error}", self.source))?;
        self.vocabulary()?.overlapping(&text, &bytes)
    }

    /// The same model with another chat template, or with one where it has none. `bos_token` and
    /// `eos_token` are those of `tokenizer_config.json`, or what the config's ids stand for.
    pub fn with_chat_template(&self, template: &str) -> Result<Self> {
        Template::new(template, None)?;
        let mut model = self.clone();
        model.templates = self.templates.with(template);
        Ok(model)
    }

    fn chat_context(&self, chat: &Chat) -> Value {
        let mut special = self.templates.special().clone();
        for (name, id) in
            [("bos_token", self.config.bos), ("eos_token", self.config.eos.first().copied())]
        {
            if let (Some(id), false) = (id, special.contains_key(name)) {
                special.insert(name.to_owned(), json!(self.piece(id)));
            }
        }
        chat.context(&special)
    }
}
