//! Prompt sets: what is read, chosen and proved.

use thalweg::anyhow::{Result, bail};
use thalweg::prompts::{Encode, Prompts, mean};
use thalweg::{Metric, Tokens};

/// One token a word; only these words are known.
struct Words(&'static [&'static str]);

impl Encode for Words {
    fn encode(&self, texts: &[&str]) -> Result<Tokens> {
        let ids = |text: &&str| {
            let words = std::iter::once("<s>").chain(text.split_whitespace());
            words.map(|w| self.one_token(w)).collect::<Result<Vec<_>>>()
        };
        Tokens::from_ids(&texts.iter().map(ids).collect::<Result<Vec<_>>>()?)
    }

    fn one_token(&self, text: &str) -> Result<i64> {
        match self.0.iter().position(|w| *w == text) {
            Some(id) => Ok(id as i64),
            None => bail!("{text:?} is not in the vocabulary"),
        }
    }
}

const WORDS: Words = Words(&["<s>", "Mary", "John", "Anna", "gave", "to", "and", "old"]);

fn set(prompts: &str) -> Prompts {
    let text = format!(
        r#"{{"task": "give", "generator": "by hand", "seed": 1, "licence": "MIT", "prompts": [{prompts}]}}"#
    );
    Prompts::from_json(&text).expect("the set is well formed")
}

const FIRST: &str = r#"{"clean": "Mary and John gave to", "corrupt": {"swap": "John and Mary gave to"},
    "right": ["Mary"], "wrong": ["John"], "roles": {"S": [3, 4]}, "label": "short", "split": "test"}"#;
const SECOND: &str = r#"{"clean": "Anna and Mary gave to", "corrupt": {"swap": "Mary and Anna gave to"},
    "right": ["Anna"], "wrong": ["Mary"], "roles": {"S": [3, 4]}, "label": "short", "split": "held out"}"#;
const LONG: &str = r#"{"clean": "Anna and old Mary gave to", "right": ["Anna"], "wrong": ["Mary"],
    "roles": {"S": [4, 5]}, "label": "long", "split": "test"}"#;

fn message(result: Result<impl std::fmt::Debug>) -> String {
    result.expect_err("this must fail").to_string()
}

#[test]
fn an_aligned_set_has_tokens_roles_and_answers() -> Result<()> {
    let aligned = set(&[FIRST, SECOND].join(",")).aligned(&WORDS)?;
    assert_eq!(aligned.clean.ids(), [[0, 1, 6, 2, 4, 5], [0, 3, 6, 1, 4, 5]]);
    assert_eq!(aligned.corrupted("swap")?.ids()[0], [0, 2, 6, 1, 4, 5]);
    assert_eq!((aligned.length(), aligned.position("S")?), (6, 3));
    assert_eq!(aligned.clean.role("S")?, [3, 3]);
    assert_eq!((aligned.right.row(1), aligned.wrong.row(1)), ([3].as_slice(), [1].as_slice()));
    let _ = Metric::logit_diff(&aligned.right, &aligned.wrong);
    assert_eq!(set(&[FIRST, SECOND].join(",")).right_answers(), ["Mary", "Anna"]);
    let named = Tokens::from_ids(&[vec![5, 6], vec![7]])?
        .labelled(vec![vec!["a".into(), " b".into()], vec![" c".into()]])?;
    assert_eq!(
        (named.words_at(-1)?, named.words_at(0)?),
        (vec!["b".into(), "c".into()], vec!["a".to_string(), "c".into()])
    );
    assert!(message(named.words_at(1)).contains("row 1"));
    assert!(message(aligned.position("IO")).contains("`S`"));
    assert!(message(aligned.corrupted("ABC")).contains("`swap`"));
    Ok(())
}

#[test]
fn answers_of_prompts_of_several_lengths_are_ids_in_order() -> Result<()> {
    let set = set(&[FIRST, SECOND, LONG].join(","));
    assert!(set.aligned(&WORDS).is_err());
    let (right, wrong) = (set.right(&WORDS)?, set.wrong(&WORDS)?);
    assert_eq!((right.row(1), wrong.row(1)), ([3].as_slice(), [1].as_slice()));
    assert_eq!(right.row(2), [WORDS.one_token(&set.prompts[2].right[0])?]);
    Ok(())
}

#[test]
fn unequal_lengths_are_an_error_that_says_where_and_what_to_keep() {
    let error = message(set(&[FIRST, SECOND, LONG].join(",")).aligned(&WORDS));
    for part in
        ["prompt 0 has 6 tokens", "prompt 2 has 7", "token 1", ".labelled(\"short\")` keeps 2"]
    {
        assert!(error.contains(part), "{part:?} is missing in: {error}");
    }
}

#[test]
fn roles_at_different_places_are_an_error_that_names_them() {
    let moved = SECOND.replace("[3, 4]", "[1, 2]");
    let error = message(set(&[FIRST, &moved].join(",")).aligned(&WORDS));
    assert!(error.contains("role `S` is at tokens 3..4 in prompt 0 and at tokens 1..2"), "{error}");
    let beyond = FIRST.replace("[3, 4]", "[8, 9]");
    assert!(message(set(&beyond).aligned(&WORDS)).contains("6 tokens with this tokenizer"));
}

#[test]
fn an_answer_or_a_corruption_that_does_not_fit_is_an_error() {
    let error = message(set(&FIRST.replace("[\"John\"]", "[\"old John\"]")).aligned(&WORDS));
    assert!(error.contains("wrong answer `old John` of prompt 0"), "{error}");
    let error = message(set(&FIRST.replace("John and Mary", "old John and Mary")).aligned(&WORDS));
    assert!(error.contains("corruption `swap` has 7"), "{error}");
}

#[test]
fn sets_are_chosen_by_split_label_and_question() -> Result<()> {
    let all = set(&[FIRST, SECOND, LONG].join(","));
    assert_eq!(all.split("test")?.len(), 2);
    assert_eq!(all.labelled("long")?.clean(), ["Anna and old Mary gave to"]);
    assert_eq!(all.filter(|p| p.right == ["Anna"]).labels(), ["short", "long"]);
    assert!(message(all.split("train")).contains("`held out`, `test`"));
    assert!(message(all.labelled("shrt")).contains("`long`, `short`"));
    assert!(message(all.corrupted("swap")).contains("prompt 2"));
    Ok(())
}

#[test]
fn batches_hold_every_prompt_once_in_order() -> Result<()> {
    let all = set(&[FIRST, SECOND, LONG].join(","));
    let batches = all.batches(2)?;
    assert_eq!(batches.iter().map(Prompts::len).collect::<Vec<_>>(), [2, 1]);
    let joined: Vec<_> = batches.iter().flat_map(Prompts::clean).collect();
    assert_eq!(joined, all.clean());
    assert!(message(all.batches(0)).contains("at least 1"));
    Ok(())
}

#[test]
fn a_set_that_is_not_one_is_an_error_in_one_line() {
    assert!(
        message(Prompts::load("no/such.json")).contains("cannot read the prompt set no/such.json")
    );
    assert!(message(Prompts::from_json("{")).starts_with("this is not a prompt set"));
    let text =
        r#"{"task": "t", "generator": "g", "seed": 1, "licence": "MIT", "prompts": [PROMPT]}"#;
    for (prompt, part) in [
        (r#"{"clean": " ", "right": ["a"]}"#, "no text"),
        (r#"{"clean": "x", "right": []}"#, "no right answer"),
        (r#"{"clean": "x", "right": ["a"], "roles": {"S": [2, 2]}}"#, "role `S` spans 2..2"),
        (r#"{"clean": "x", "right": ["a"], "rigth": ["b"]}"#, "rigth"),
    ] {
        let error = message(Prompts::from_json(&text.replace("PROMPT", prompt)));
        assert!(error.contains(part), "{part:?} is missing in: {error}");
    }
}

#[test]
fn what_is_saved_loads_again() -> Result<()> {
    let all = set(&[FIRST, SECOND, LONG].join(","));
    assert_eq!(Prompts::from_json(&all.to_json()?)?, all);
    Ok(())
}

#[test]
fn means_come_with_intervals_by_label() -> Result<()> {
    let all = set(&[FIRST, SECOND, LONG].join(","));
    let by_label = all.mean_by_label(&[1.0, 0.0, 4.0])?;
    assert_eq!(by_label[0].0, "long");
    assert_eq!((by_label[0].1.mean, by_label[1].1.mean), (4.0, 0.5));
    let m = mean(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])?;
    // the standard error of the mean is 0.81: about twice that to either side
    assert!((m.low - 3.0).abs() < 0.3 && (m.high - 6.0).abs() < 0.3, "{m}");
    assert!(message(mean(&[])).contains("no values"));
    assert!(message(mean(&[1.0, f64::NAN])).contains("value 1"));
    assert!(message(all.mean_by_label(&[1.0])).contains("1 values for the 3 prompts"));
    Ok(())
}
