//! A chat template as `transformers` renders it: Jinja with trimmed blocks, Python's string methods,
//! `raise_exception`, `strftime_now`, and JSON as Python writes it.

use std::error::Error as _;
use std::fmt;

use anyhow::Result;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Error, ErrorKind};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde_json::Value;

use super::strftime::Date;
use super::tojson::tojson;

/// What a template may spend: instructions, and 64 bytes made each; so its memory is bounded too. A
/// long conversation takes some ten thousands.
const FUEL: u64 = 200_000;
/// Templates of models have some kilobytes.
const LARGEST: usize = 1 << 20;

/// A template that has been read.
pub(super) struct Template {
    environment: Environment<'static>,
}

impl Template {
    /// A syntax error is one of the template's lines.
    pub(super) fn new(text: &str, date: Option<Date>) -> Result<Self> {
        anyhow::ensure!(
            text.len() <= LARGEST,
            "the chat template has {} bytes, expected at most {LARGEST}",
            text.len()
        );
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
        environment.set_syntax(syntax);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_unknown_method_callback(unknown_method_callback);
        environment.set_fuel(Some(FUEL));
        environment.add_filter("tojson", tojson);
        environment.add_function("raise_exception", raise);
        if let Some(date) = date {
            date.check()?;
            environment.add_function("strftime_now", move |format: &str| date.format(format));
        }
        environment.add_template_owned("chat", without_generation(text)).map_err(told)?;
        Ok(Template { environment })
    }

    pub(super) fn render(&self, context: Value) -> Result<String> {
        let context = minijinja::Value::from(Serde(context));
        let template = self.environment.get_template("chat").map_err(told)?;
        template.render(context).map_err(told)
    }
}

/// What `raise_exception` was told.
#[derive(Debug)]
struct Raised(String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

fn raise(message: &str) -> Result<minijinja::Value, Error> {
    let raised = Raised(message.to_owned());
    Err(Error::new(ErrorKind::InvalidOperation, "raised").with_source(raised))
}

/// An error of a template in one line.
fn told(error: Error) -> anyhow::Error {
    let line = error.line().map(|line| format!(" at line {line}")).unwrap_or_default();
    let mut cause = error.source();
    let (mut raised, mut what) = (None, one_line(&error));
    while let Some(inner) = cause {
        raised = raised.or(inner.downcast_ref::<Raised>());
        what = format!("{what}: {}", one_line(inner));
        cause = inner.source();
    }
    match (raised, error.kind()) {
        (Some(Raised(message)), _) => {
            anyhow::anyhow!("the chat template refuses the conversation: {}", one_line(message))
        }
        (None, ErrorKind::OutOfFuel) => {
            anyhow::anyhow!("the chat template was stopped{line}: it takes more than {FUEL} steps")
        }
        (None, ErrorKind::UnknownFunction) if what.contains("strftime_now") => anyhow::anyhow!(
            "the chat template asks for today's date{line}: give one with Chat::date"
        ),
        _ => anyhow::anyhow!("the chat template fails{line}: {what}"),
    }
}

fn one_line(text: &(impl fmt::Display + ?Sized)) -> String {
    text.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `{% generation %}` marks what the assistant wrote and adds nothing to the text: it becomes a
/// block that is always there, with its own signs for trimming.
fn without_generation(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let end = tag.find("%}").map_or(tag.len(), |end| end + 2);
        let inside = tag[..end].trim_start_matches("{%").trim_end_matches("%}");
        let word = inside.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        match word {
            "generation" => out.push_str(&tag[..end].replace(word, "if true")),
            "endgeneration" => out.push_str(&tag[..end].replace(word, "endif")),
            _ => out.push_str(&tag[..end]),
        }
        rest = &tag[end..];
    }
    out + rest
}
