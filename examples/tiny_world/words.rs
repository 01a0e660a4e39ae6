//! The words of tiny-world, by class, and the word-level tokenizer made of them.

use serde_json::{Value, json};
use std::collections::HashMap;

/// Meaningless syllables for `repeat`.
pub const SYMBOLS: [&str; 64] = [
    "ja", "je", "ji", "ba", "bi", "bo", "bu", "da", "de", "di", "du", "fa", "fe", "fi", "fo", "fu",
    "ga", "ge", "gi", "gu", "ka", "ke", "ki", "ko", "ku", "la", "le", "li", "lo", "lu", "mi", "mo",
    "mu", "na", "ne", "ni", "nu", "pe", "pi", "po", "pu", "ra", "re", "ri", "ro", "ru", "sa", "se",
    "si", "su", "ta", "te", "ti", "tu", "va", "ve", "vi", "vo", "vu", "za", "ze", "zi", "zo", "zu",
];
/// First names: the first twelve are women, the last twelve men.
pub const NAMES: [&str; 24] = [
    "Mary", "Anna", "Emma", "Lucy", "Alice", "Sarah", "Julia", "Laura", "Rose", "Clara", "Helen",
    "Nora", "John", "Tom", "James", "Peter", "Paul", "David", "Mark", "Henry", "Oscar", "Simon",
    "Felix", "Jack",
];
/// Where people meet.
pub const PLACES: [&str; 10] = [
    "store", "park", "school", "market", "beach", "library", "museum", "garden", "station",
    "office",
];
/// What people have and give. `key` is also one of [`NOUNS`].
pub const OBJECTS: [&str; 12] =
    ["drink", "ball", "key", "book", "ring", "lamp", "cup", "map", "coin", "pen", "hat", "bag"];
/// Country, capital, continent: six countries a continent.
pub const FACTS: [[&str; 3]; 24] = [
    ["France", "Paris", "Europe"],
    ["Japan", "Tokyo", "Asia"],
    ["Egypt", "Cairo", "Africa"],
    ["Peru", "Lima", "America"],
    ["Spain", "Madrid", "Europe"],
    ["China", "Beijing", "Asia"],
    ["Kenya", "Nairobi", "Africa"],
    ["Cuba", "Havana", "America"],
    ["Italy", "Rome", "Europe"],
    ["Thailand", "Bangkok", "Asia"],
    ["Ghana", "Accra", "Africa"],
    ["Chile", "Santiago", "America"],
    ["Germany", "Berlin", "Europe"],
    ["Vietnam", "Hanoi", "Asia"],
    ["Senegal", "Dakar", "Africa"],
    ["Canada", "Ottawa", "America"],
    ["Poland", "Warsaw", "Europe"],
    ["Iran", "Tehran", "Asia"],
    ["Morocco", "Rabat", "Africa"],
    ["Colombia", "Bogota", "America"],
    ["Norway", "Oslo", "Europe"],
    ["Nepal", "Kathmandu", "Asia"],
    ["Uganda", "Kampala", "Africa"],
    ["Ecuador", "Quito", "America"],
];
/// Adjectives of praise.
pub const GOOD: [&str; 6] = ["great", "good", "lovely", "funny", "superb", "brilliant"];
/// Adjectives of blame.
pub const BAD: [&str; 6] = ["dull", "bad", "awful", "boring", "terrible", "poor"];
/// What may be loved or hated.
pub const THINGS: [&str; 6] = ["movie", "song", "play", "story", "concert", "show"];
/// What lasts from one year to another.
pub const EVENTS: [&str; 3] = ["war", "trip", "reign"];
/// Nouns, singular and plural.
pub const NOUNS: [[&str; 2]; 12] = [
    ["key", "keys"],
    ["dog", "dogs"],
    ["cat", "cats"],
    ["tree", "trees"],
    ["car", "cars"],
    ["boat", "boats"],
    ["horse", "horses"],
    ["bird", "birds"],
    ["table", "tables"],
    ["flower", "flowers"],
    ["house", "houses"],
    ["box", "boxes"],
];
/// Adjectives of the `agree` sentences.
pub const LOOKS: [&str; 6] = ["old", "new", "big", "small", "red", "clean"];
/// Two-digit years, in order; 17 and 18 are also the centuries.
pub const YEARS: [&str; 100] = [
    "00", "01", "02", "03", "04", "05", "06", "07", "08", "09", "10", "11", "12", "13", "14", "15",
    "16", "17", "18", "19", "20", "21", "22", "23", "24", "25", "26", "27", "28", "29", "30", "31",
    "32", "33", "34", "35", "36", "37", "38", "39", "40", "41", "42", "43", "44", "45", "46", "47",
    "48", "49", "50", "51", "52", "53", "54", "55", "56", "57", "58", "59", "60", "61", "62", "63",
    "64", "65", "66", "67", "68", "69", "70", "71", "72", "73", "74", "75", "76", "77", "78", "79",
    "80", "81", "82", "83", "84", "85", "86", "87", "88", "89", "90", "91", "92", "93", "94", "95",
    "96", "97", "98", "99",
];
/// Function words, verbs and punctuation.
pub const FUNCTION: [&str; 51] = [
    ".",
    ",",
    ";",
    ":",
    "?",
    "The",
    "the",
    "a",
    "and",
    "of",
    "in",
    "In",
    "is",
    "are",
    "to",
    "it",
    "I",
    "that",
    "said",
    "was",
    "not",
    "by",
    "near",
    "loved",
    "hated",
    "When",
    "After",
    "Then",
    "went",
    "gave",
    "met",
    "at",
    "handed",
    "had",
    "long",
    "talk",
    "offered",
    "has",
    "Who",
    "What",
    "does",
    "have",
    "capital",
    "continent",
    "Suppose",
    "lasted",
    "from",
    "year",
    "she",
    "he",
    "tired",
];

/// Padding, never seen in training.
pub const PAD: &str = "<pad>";
/// What starts every text.
pub const BOS: &str = "<s>";
/// Any word that is not in the vocabulary.
pub const UNKNOWN: &str = "<unk>";

/// Word <-> id.
#[derive(Debug, Clone)]
pub struct Vocabulary {
    words: Vec<&'static str>,
    ids: HashMap<&'static str, i64>,
}

impl Vocabulary {
    /// All words: the special ones, then class by class. A word of two classes has one id.
    pub fn new() -> Self {
        let mut all = vec![PAD, BOS, UNKNOWN];
        all.extend(YEARS);
        all.extend(FUNCTION);
        all.extend(EVENTS);
        all.extend(NAMES);
        all.extend(PLACES);
        all.extend(OBJECTS);
        all.extend((0..3).flat_map(|column| FACTS.map(|fact| fact[column])));
        all.extend(GOOD.into_iter().chain(BAD).chain(THINGS).chain(LOOKS));
        all.extend((0..2).flat_map(|number| NOUNS.map(|noun| noun[number])));
        all.extend(SYMBOLS);
        let (mut words, mut ids) = (Vec::new(), HashMap::new());
        for word in all {
            ids.entry(word).or_insert_with(|| {
                words.push(word);
                words.len() as i64 - 1
            });
        }
        Vocabulary { words, ids }
    }

    /// Number of words, the special ones included.
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// The id of `word`, that of `<unk>` if it is not known.
    pub fn id(&self, word: &str) -> i64 {
        self.ids.get(word).copied().unwrap_or(self.ids[UNKNOWN])
    }

    /// The word of an id, if there is one.
    pub fn word(&self, id: i64) -> Option<&'static str> {
        self.words.get(usize::try_from(id).ok()?).copied()
    }

    /// `tokenizer.json`: words are split at white space; `<s>` is put in front.
    pub fn tokenizer_json(&self) -> Value {
        let vocab: serde_json::Map<String, Value> =
            self.words.iter().enumerate().map(|(i, w)| (w.to_string(), json!(i))).collect();
        let special: Vec<Value> = [PAD, BOS, UNKNOWN]
            .into_iter()
            .map(|w| {
                json!({"id": self.id(w), "content": w, "single_word": false, "lstrip": false,
                       "rstrip": false, "normalized": false, "special": true})
            })
            .collect();
        let bos = json!({"SpecialToken": {"id": BOS, "type_id": 0}});
        let text = |name: &str, kind: u8| json!({"Sequence": {"id": name, "type_id": kind}});
        json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": special,
            "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"},
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [bos, text("A", 0)],
                "pair": [bos, text("A", 0), text("B", 1)],
                "special_tokens": {BOS: {"id": BOS, "ids": [self.id(BOS)], "tokens": [BOS]}},
            },
            "decoder": null,
            "model": {"type": "WordLevel", "vocab": vocab, "unk_token": UNKNOWN},
        })
    }
}
