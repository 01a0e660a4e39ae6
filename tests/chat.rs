//! Conversations rendered as transformers renders them, and their tokens.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use thalweg::{Chat, Model};

use crate::support::{model, says, scratch};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name)
}

fn golden() -> Value {
    let text = std::fs::read_to_string(data("golden/chat/chats.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// tiny-world as a directory with these files beside it.
fn with_files(name: &str, files: &[(&str, &str)]) -> PathBuf {
    let dir = scratch(name);
    for entry in std::fs::read_dir(data("models/tiny-world")).unwrap().flatten() {
        std::fs::copy(entry.path(), dir.join(entry.file_name())).unwrap();
    }
    for (file, text) in files {
        std::fs::create_dir_all(dir.join(file).parent().unwrap()).unwrap();
        std::fs::write(dir.join(file), text).unwrap();
    }
    dir
}

fn tiny() -> Model {
    Model::load(data("models/tiny-world")).unwrap()
}

fn rendered(template: &str, chat: &Chat) -> thalweg::anyhow::Result<String> {
    tiny().with_chat_template(template)?.chat_text(chat)
}

/// The conversation of a golden case.
fn chat(case: &Value, today: &[u64]) -> Chat {
    let mut chat = Chat::from_json(&case["messages"].to_string()).unwrap();
    chat = chat.date(today[0] as u32, today[1] as u32, today[2] as u32);
    for (name, value) in case.as_object().unwrap() {
        chat = match (name.as_str(), value) {
            ("template" | "messages" | "text" | "error", _) => chat,
            ("tools", tools) => chat.tools(&tools.to_string()).unwrap(),
            ("add_generation_prompt", Value::Bool(true)) => chat.with_generation_prompt(),
            ("add_generation_prompt", _) => chat.without_generation_prompt(),
            _ => chat.variable(name, value.clone()),
        };
    }
    chat
}

#[test]
fn every_golden_conversation_is_rendered_byte_for_byte() {
    let golden = golden();
    let today: Vec<u64> = serde_json::from_value(golden["today"].clone()).unwrap();
    let special = golden["special"].to_string();
    let dir = with_files("chat-golden", &[("tokenizer_config.json", &special)]);
    let model = Model::load(&dir).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() > 15);
    for case in cases {
        let name = case["template"].as_str().unwrap();
        let path = data("golden/chat").join(format!("{name}.jinja"));
        let model = model.with_chat_template(&std::fs::read_to_string(path).unwrap()).unwrap();
        let found = model.chat_text(&chat(case, &today));
        match case["text"].as_str() {
            Some(expected) => assert_eq!(found.unwrap(), expected, "{name}: {}", case["messages"]),
            None => {
                let why = case["error"].as_str().unwrap();
                says(found, &["refuses the conversation", why]);
            }
        }
    }
}

#[test]
fn the_tokens_are_those_of_transformers_and_begin_once() {
    let golden = &golden()["tokens"];
    let model = tiny().with_chat_template(golden["template"].as_str().unwrap()).unwrap();
    let chat = Chat::from_json(&golden["messages"].to_string()).unwrap();
    let tokens = model.chat(&chat).unwrap();
    assert_eq!(json!(tokens.ids()[0]), golden["ids"]);
    let bos = model.config().bos.unwrap();
    assert_eq!(tokens.ids()[0].iter().filter(|id| **id == bos).count(), 1);
    let both = model.chats(&[Chat::new().user("Mary"), chat]).unwrap();
    assert_eq!(both.batch(), 2);
    assert!(both.is_padded() && both.row(1).unwrap().ids() == tokens.ids());
}

#[test]
fn each_message_is_found_among_the_tokens() {
    let template = "{{ bos_token }} {% for m in messages %}{{ m.role }} : {{ m.content | trim }} . {% endfor %}";
    let model = tiny().with_chat_template(template).unwrap();
    let chat = Chat::new().system(" the garden ").user("Mary").assistant("").user("Mary the store");
    let tokens = model.chat(&chat).unwrap();
    let spans = model.chat_spans(&chat).unwrap();
    let words: Vec<_> =
        spans.iter().map(|span| tokens.pieces()[0][span.clone()].concat()).collect();
    let words: Vec<_> = words.iter().map(|text| text.replace(' ', "")).collect();
    assert_eq!(words, ["thegarden", "Mary", "", "Marythestore"]);
    assert!(spans[0].start > 1 && spans[3].start > spans[1].end);
    assert_eq!(tokens.places(spans[1].clone()).unwrap(), [[spans[1].start]]);
    let shouting = model.with_chat_template("{{ messages[0].content | upper | length }}").unwrap();
    says(shouting.chat_spans(&chat), &["does more with the messages"]);
    let silent = model.with_chat_template("nothing").unwrap();
    says(silent.chat_spans(&chat), &["leaves out message 0"]);
}

#[test]
fn templates_are_read_from_every_place_that_models_keep_them() {
    let chat = Chat::new().user("Mary");
    let text = |files: &[(&str, &str)], chat: &Chat| {
        Model::load(with_files("chat-places", files)).and_then(|model| model.chat_text(chat))
    };
    let one = (
        "tokenizer_config.json",
        r#"{"chat_template": "one {{ bos_token }}", "bos_token": "<B>"}"#,
    );
    assert_eq!(text(&[one], &chat).unwrap(), "one <B>");
    let objects = r#"{"chat_template": "{{ bos_token }}{{ eos_token }}", "bos_token": {"content": "<O>", "lstrip": false}}"#;
    let older = ("special_tokens_map.json", r#"{"eos_token": "</E>", "bos_token": "<no>"}"#);
    assert_eq!(text(&[("tokenizer_config.json", objects), older], &chat).unwrap(), "<O></E>");
    let named = r#"{"chat_template": [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]}"#;
    let named = ("tokenizer_config.json", named);
    assert_eq!(text(&[named], &chat).unwrap(), "plain");
    assert_eq!(text(&[named], &chat.clone().tools("[{}]").unwrap()).unwrap(), "tools");
    assert_eq!(text(&[named], &chat.clone().template("tool_use")).unwrap(), "tools");
    says(text(&[named], &chat.clone().template("rag")), &["\"rag\"", "have default, tool_use"]);
    let file = ("chat_template.jinja", "from a file");
    assert_eq!(text(&[one, file], &chat).unwrap(), "from a file");
    let second = ("chat_templates/rag.jinja", "the second");
    assert_eq!(text(&[file, second], &chat.clone().template("rag")).unwrap(), "the second");
    says(
        text(&[], &chat),
        &["there is no chat template", "chat_template.jinja", "with_chat_template"],
    );
    says(text(&[("tokenizer_config.json", "{")], &chat), &["tokenizer_config.json: not JSON"]);
    let wrong = ("tokenizer_config.json", r#"{"chat_template": 3}"#);
    says(text(&[wrong], &chat), &["tokenizer_config.json: chat_template: expected a text"]);
    says(model().with_chat_template("x").unwrap().chat(&chat), &["no tokenizer.json"]);
}

#[test]
fn a_saved_model_keeps_its_templates_and_their_tokens() {
    let file = ("chat_template.jinja", "{{ bos_token }}{{ messages[0].content }}");
    let second = ("chat_templates/rag.jinja", "{{ pad_token }}");
    let model = Model::load(with_files("chat-saved", &[file, second])).unwrap();
    let dir = scratch("chat-saved-again");
    model.save(&dir).unwrap();
    let again = Model::load(&dir).unwrap();
    for chat in [Chat::new().user("Mary"), Chat::new().user("Mary").template("rag")] {
        let text = model.chat_text(&chat).unwrap();
        assert!(text.starts_with('<'), "{text}");
        assert_eq!(again.chat_text(&chat).unwrap(), text);
    }
}

#[test]
fn what_opens_an_answer_follows_the_last_speaker() {
    let template = "{{ messages | length }}{{ ' open' if add_generation_prompt }}";
    let text = |chat: Chat| rendered(template, &chat).unwrap();
    assert_eq!(text(Chat::new().user("a")), "1 open");
    assert_eq!(text(Chat::new().user("a").assistant("b")), "2");
    assert_eq!(text(Chat::new().user("a").assistant("b").with_generation_prompt()), "2 open");
    assert_eq!(text(Chat::new().user("a").without_generation_prompt()), "1");
    assert_eq!(format!("{:?}", Chat::new().user("a").assistant("b")), "Chat of 2: user, assistant");
}

#[test]
fn no_clock_is_read() {
    let chat = Chat::new().user("a");
    let asks = "{{ strftime_now('%A %-d %B %Y, %d.%m.%y, %j %a %b %%') }}";
    says(rendered(asks, &chat), &["asks for today's date", "Chat::date"]);
    let leap = chat.clone().date(2024, 2, 29);
    let expected = "Thursday 29 February 2024, 29.02.24, 060 Thu Feb %";
    assert_eq!(rendered(asks, &leap).unwrap(), expected);
    assert_eq!(
        rendered("{{ strftime_now('%A') }}", &chat.clone().date(2000, 1, 1)).unwrap(),
        "Saturday"
    );
    says(rendered(asks, &chat.clone().date(2023, 2, 29)), &["date(2023, 2, 29)"]);
    says(rendered("{{ strftime_now('%Q') }}", &leap), &["line 1", "%Q is not known here"]);
}

#[test]
fn errors_of_templates_are_one_line() {
    let chat = Chat::new().user("a");
    says(rendered("{% if %}", &chat), &["the chat template fails at line 1", "syntax error"]);
    says(rendered("\n\n{{ 1 | nothing }}", &chat), &["line 3", "nothing"]);
    says(
        rendered("{{ raise_exception('no\nmore') }}", &chat),
        &["refuses the conversation: no more"],
    );
    says(rendered("{{ messages.x.y.z }}", &chat), &["fails at line 1"]);
    says(rendered("{% include 'other' %}", &chat), &["fails at line 1", "other"]);
    says(Chat::from_json("{}"), &["messages", "expected a list"]);
    says(Chat::from_json("[{\"content\": \"a\"}]"), &["message 0 has no role"]);
    says(Chat::new().tools("[3]"), &["tools", "expected a list of JSON objects"]);
}

#[test]
fn a_hostile_template_is_stopped() {
    let chat = Chat::new().user("a");
    let again = "{% for a in range(9999) %}".repeat(4) + &"{% endfor %}".repeat(4);
    let doubled = "{% set n = namespace(x='aaaaaaaa') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}";
    let nested = "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}";
    let deep = format!("{{{{ {}1{} }}}}", "(".repeat(5000), ")".repeat(5000));
    for template in [
        again.as_str(),
        doubled,
        &format!("{nested}{{{{ n.x | tojson }}}}"),
        "{{ 'a' * 99999999999 }}",
        "{{ 'a' | center(99999999999) }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% set n = namespace() %}{% set n.x = n %}{{ n | tojson }}",
        deep.as_str(),
        &"x".repeat(2 << 20),
    ] {
        says(rendered(template, &chat), &["the chat template"]);
    }
}
