//! `data/prompts`: one set a task, for tests and notebooks.

use super::facts::{FORMS, greater_of, plain, suppose};
use super::lists::{Ask, RELATIONS, icl_of, recall_of, repeat_of};
use super::sentence::{Draw, Level, Sentence, Split, Task};
use super::stories::ioi_parts;
use super::words::{BAD, EVENTS, FACTS, GOOD, NAMES, NOUNS, SYMBOLS};
use std::collections::{BTreeMap, HashSet};
use thalweg::prompts::{Prompt, Prompts};
use thalweg::rng::Rng;

/// What stands as generator in the files.
pub const GENERATOR: &str = "examples/train_tiny_world.rs --prompts";

/// The set of one task: at least 512 different prompts, none of them a text that training draws
/// where the task holds something out.
pub fn prompt_set(task: Task, seed: u64) -> Prompts {
    let mut rng = Rng::new(seed).fork(task as u64);
    let prompts = match task {
        Task::Repeat => repeats(&mut rng),
        Task::Recall => recalls(&mut rng),
        Task::Ioi => iois(&mut rng),
        Task::Fact => facts(&mut rng),
        Task::Icl => icls(&mut rng),
        Task::Greater => greaters(&mut rng),
        Task::Agree => by_cell(&mut rng, task, 8, agreements, flip_number),
        Task::Pronoun => by_cell(&mut rng, task, 4, |_| 140, flip_gender),
        Task::Sentiment => by_cell(&mut rng, task, 4, sentiments, flip_mood),
    };
    Prompts {
        task: task.name().to_string(),
        generator: GENERATOR.to_string(),
        seed,
        licence: "MIT OR Apache-2.0".to_string(),
        prompts,
    }
}

/// A sentence cut before its answer. Roles count tokens, so BOS shifts words by one.
pub fn prompt(s: &Sentence) -> Prompt {
    let end = s.end();
    let places = s.roles.iter().filter(|(_, at)| *at < end);
    let mut roles: BTreeMap<String, [usize; 2]> =
        places.map(|(name, at)| (name.to_string(), [at + 1, at + 2])).collect();
    roles.insert("END".to_string(), [end, end + 1]);
    let strings = |words: &[&str]| words.iter().map(|w| w.to_string()).collect();
    Prompt {
        clean: s.prompt(),
        corrupt: BTreeMap::new(),
        right: strings(&s.right),
        wrong: strings(&s.wrong),
        roles,
        label: s.cell.clone(),
        split: if s.held_out { "held out" } else { "test" }.to_string(),
    }
}

/// The prompt with the words at some places replaced.
fn replaced(s: &Sentence, changes: &[(usize, &'static str)]) -> String {
    let mut changed = s.clone();
    for (at, word) in changes {
        changed.words[*at] = word;
    }
    changed.prompt()
}

/// Where a role stands; 0 if the sentence lacks it.
fn place(s: &Sentence, role: &str) -> usize {
    s.roles.iter().find(|r| r.0 == role).map_or(0, |r| r.1)
}

/// A word of `class` that the sentence does not hold.
fn other(rng: &mut Rng, class: &[&'static str], s: &Sentence) -> &'static str {
    let left: Vec<_> = class.iter().copied().filter(|w| !s.words.contains(w)).collect();
    left[rng.below(left.len())]
}

/// `each` different prompts for every one of `cells` kinds of sentence, as the task draws them.
fn by_cell(
    rng: &mut Rng,
    task: Task,
    cells: usize,
    each: fn(&str) -> usize,
    corrupt: fn(&mut Rng, &Sentence) -> (&'static str, String),
) -> Vec<Prompt> {
    let (mut found, mut seen) = (BTreeMap::<String, Vec<Prompt>>::new(), HashSet::new());
    while found.len() < cells || found.iter().any(|(cell, v)| v.len() < each(cell)) {
        let Some(s) = Draw::new(rng, Split::Test).sentence(task, &Level::full()) else { continue };
        let cell = found.entry(s.cell.clone()).or_default();
        if cell.len() < each(&s.cell) && seen.insert(s.prompt()) {
            let (name, text) = corrupt(rng, &s);
            let mut p = prompt(&s);
            p.corrupt.insert(name.to_string(), text);
            cell.push(p);
        }
    }
    found.into_values().flatten().collect()
}

fn flip_number(_: &mut Rng, s: &Sentence) -> (&'static str, String) {
    let at = place(s, "subject");
    let noun = NOUNS.iter().find(|n| n.contains(&s.words[at])).unwrap_or(&NOUNS[0]);
    let flipped = if noun[0] == s.words[at] { noun[1] } else { noun[0] };
    ("number", replaced(s, &[(at, flipped)]))
}

fn flip_gender(rng: &mut Rng, s: &Sentence) -> (&'static str, String) {
    let (at, [a, b]) = (place(s, "S"), ["A", "B"].map(|r| place(s, r)));
    let (women, men) = NAMES.split_at(12);
    let woman = women.contains(&s.words[at]);
    let name = other(rng, if woman { men } else { women }, s);
    // the speaker stays one of the two: the name is replaced where it was said first, too
    let said = if s.words[a] == s.words[at] { a } else { b };
    ("other gender", replaced(s, &[(at, name), (said, name)]))
}

fn flip_mood(rng: &mut Rng, s: &Sentence) -> (&'static str, String) {
    if place(s, "verb") > 0 {
        let at = place(s, "verb");
        let verb = if s.words[at] == "loved" { "hated" } else { "loved" };
        return ("verb", replaced(s, &[(at, verb)]));
    }
    let at = place(s, "adjective");
    let class = if GOOD.contains(&s.words[at]) { BAD } else { GOOD };
    ("adjective", replaced(s, &[(at, other(rng, &class, s))]))
}

/// The shortest kind has about 50 held-out texts, the others many.
fn agreements(cell: &str) -> usize {
    if cell.contains(' ') { 80 } else { 40 }
}

/// 6 things x 12 adjectives are all the texts there are of each verb form.
fn sentiments(cell: &str) -> usize {
    if cell.starts_with("verb") { 72 } else { 200 }
}

fn repeats(rng: &mut Rng) -> Vec<Prompt> {
    let kinds = [
        ("symbols 12", 2, 12, 0, false),
        ("words 12", 2, 12, 0, true),
        ("long 22", 2, 22, 6, false),
    ];
    let mut all = Vec::new();
    for (label, prefix, block, gap, content) in kinds {
        for _ in 0..180 {
            let mut draw = Draw::new(rng, Split::Test);
            let Some(mut s) = repeat_of(&mut draw, prefix, block, 2, &[gap], content) else {
                continue;
            };
            let cut = prefix + block + gap + block / 2;
            let source = prefix + block / 2;
            let swapped = other(rng, &SYMBOLS, &s);
            s.scored.truncate(block / 2);
            s.roles.extend([("before", source - 1), ("source", source)]);
            s.wrong = vec![swapped];
            s.right = vec![s.words[cut]];
            (s.cell, s.held_out) = (label.to_string(), gap == 6);
            let mut p = prompt(&s);
            p.corrupt.insert("random item".to_string(), replaced(&s, &[(source, swapped)]));
            all.push(p);
        }
    }
    all
}

fn recalls(rng: &mut Rng) -> Vec<Prompt> {
    let mut all = Vec::new();
    for k in 2..6 {
        for asked in 0..k {
            for ask in [Ask::Who, Ask::What] {
                for _ in 0..20 {
                    let mut draw = Draw::new(rng, Split::Test);
                    let Some(s) = recall_of(&mut draw, k, asked, ask) else { continue };
                    // statement i is five words: its object the fourth
                    let rival = 5 * ((asked + 1 + rng.below(k - 1)) % k) + 3;
                    let own = place(&s, "object");
                    let mut p = prompt(&s);
                    let swap = replaced(&s, &[(own, s.words[rival]), (rival, s.words[own])]);
                    p.corrupt.insert("swap".to_string(), swap);
                    all.push(p);
                }
            }
        }
    }
    all
}

fn iois(rng: &mut Rng) -> Vec<Prompt> {
    let (mut cells, mut seen) = (BTreeMap::<String, Vec<Prompt>>::new(), HashSet::new());
    while cells.len() < 12 || cells.values().any(|v| v.len() < 48) {
        let abc = rng.chance(0.3);
        let Some(parts) = ioi_parts(&mut Draw::new(rng, Split::Test), abc) else { continue };
        let s = parts.sentence();
        let cell = cells.entry(s.cell.clone()).or_default();
        if cell.len() == 48 || !seen.insert(s.prompt()) {
            continue;
        }
        let third = other(rng, &NAMES, &s);
        let mut p = prompt(&s);
        let giver = place(&s, "S2");
        for (name, changes) in [
            ("ABC", vec![(giver, third)]),
            ("swap", vec![(giver, parts.io)]),
            ("random name", vec![(place(&s, "IO"), third)]),
        ] {
            if !abc || name != "ABC" {
                p.corrupt.insert(name.to_string(), replaced(&s, &changes));
            }
        }
        cell.push(p);
    }
    cells.into_values().flatten().collect()
}

fn facts(rng: &mut Rng) -> Vec<Prompt> {
    let mut all = Vec::new();
    for form in 0..FORMS.len() {
        for country in 0..FACTS.len() {
            let mut s = plain(&mut Draw::new(rng, Split::Test), country, form);
            s.wrong = sample(rng, &s.wrong, 3);
            let column = usize::from(form == 2);
            let stranger = other(rng, &FACTS.map(|f| f[column]), &s);
            let mut p = prompt(&s);
            let text = replaced(&s, &[(place(&s, "subject"), stranger)]);
            p.corrupt.insert("random subject".to_string(), text);
            all.push(p);
        }
    }
    for (country, fact) in FACTS.iter().enumerate() {
        for other_country in rng.sample(FACTS.len(), 20) {
            if other_country == country {
                continue;
            }
            let s = suppose(&mut Draw::new(rng, Split::Test), country, other_country);
            let mut p = prompt(&s);
            let text = replaced(&s, &[(place(&s, "said"), fact[1])]);
            p.corrupt.insert("truth".to_string(), text);
            all.push(p);
        }
    }
    all
}

fn icls(rng: &mut Rng) -> Vec<Prompt> {
    let mut all = Vec::new();
    for (relation, name) in RELATIONS.iter().enumerate() {
        for held in [false, true] {
            for shots in 2..5 {
                let n = if held { 12 } else { 36 };
                let draws = (0..if held && relation > 2 { 0 } else { n }).filter_map(|_| {
                    let s = icl_of(&mut Draw::new(rng, Split::Test), relation, shots, held)?;
                    Some(icl_prompt(rng, s, relation, name, shots))
                });
                all.extend(draws.collect::<Vec<_>>());
            }
        }
    }
    all
}

fn icl_prompt(rng: &mut Rng, mut s: Sentence, relation: usize, name: &str, shots: usize) -> Prompt {
    s.wrong = sample(rng, &s.wrong, 3);
    let class: Vec<&'static str> = match relation {
        0 | 1 => FACTS.map(|f| f[0]).to_vec(),
        2 => FACTS.map(|f| f[1]).to_vec(),
        3 => NOUNS.map(|n| n[0]).to_vec(),
        _ => NAMES.to_vec(),
    };
    let query = other(rng, &class, &s);
    let mut p = prompt(&s);
    p.label = format!("{name}, {shots} shots");
    p.corrupt.insert("random query".to_string(), replaced(&s, &[(place(&s, "asked"), query)]));
    p
}

fn greaters(rng: &mut Rng) -> Vec<Prompt> {
    let mut all = Vec::new();
    for event in EVENTS {
        for century in [17, 18] {
            for y in 2..98 {
                let s = greater_of(&mut Draw::new(rng, Split::Test), event, century, y);
                let mut p = prompt(&s);
                p.corrupt.insert("01".to_string(), replaced(&s, &[(place(&s, "start"), "01")]));
                all.push(p);
            }
        }
    }
    all
}

/// At most `n` of the words, in random order.
fn sample(rng: &mut Rng, words: &[&'static str], n: usize) -> Vec<&'static str> {
    rng.sample(words.len(), n).into_iter().map(|i| words[i]).collect()
}
