//! Tasks answered from the text itself: `repeat`, `recall`, `icl`.

use super::facts::{CONTINENTS, free_countries, held_out, use_country};
use super::sentence::{Draw, Level, Sentence, Split, Task};
use super::words::{FACTS, NAMES, NOUNS, OBJECTS, PLACES, SYMBOLS};

/// A block of distinct items said two or three times, with filler before it and between the copies
/// that is never from the block. Scored: the second and later items of each later copy. Tests hold
/// blocks longer than any trained on, with a wider gap.
pub fn repeat(draw: &mut Draw<'_>, level: &Level) -> Option<Sentence> {
    let content = level.symbols > SYMBOLS.len() && draw.rng.chance(0.25);
    if draw.split == Split::Test && draw.rng.chance(0.5) {
        let (prefix, block) = (draw.rng.range(0..5), draw.rng.range(20..25));
        let mut s = repeat_of(draw, prefix, block, 2, &[6], content)?;
        (s.cell, s.held_out) = ("long".to_string(), true);
        return Some(s);
    }
    let prefix = draw.rng.range(*level.prefix.start()..level.prefix.end() + 1);
    let block = draw.rng.range(*level.block.start()..level.block.end() + 1);
    let copies = draw.rng.range(*level.copies.start()..level.copies.end() + 1);
    let gaps: Vec<usize> = (1..copies).map(|_| draw.rng.below(level.gap + 1)).collect();
    let few = SYMBOLS.len().min(level.symbols);
    let class = if content { content_words() } else { SYMBOLS[..few].to_vec() };
    let mut s = repeat_from(draw, &class, prefix, block, copies, &gaps)?;
    s.cell = if content { "words" } else { "symbols" }.to_string();
    Some(s)
}

/// `prefix` filler items, then `copies` of a block with `gaps[i]` filler items after copy i; the
/// items are symbols, or words that also mean something.
pub fn repeat_of(
    draw: &mut Draw<'_>,
    prefix: usize,
    block: usize,
    copies: usize,
    gaps: &[usize],
    content: bool,
) -> Option<Sentence> {
    let class = if content { content_words() } else { SYMBOLS.to_vec() };
    let mut s = repeat_from(draw, &class, prefix, block, copies, gaps)?;
    s.cell = if content { "words" } else { "symbols" }.to_string();
    Some(s)
}

/// The same with items of any class.
fn repeat_from(
    draw: &mut Draw<'_>,
    class: &[&'static str],
    prefix: usize,
    block: usize,
    copies: usize,
    gaps: &[usize],
) -> Option<Sentence> {
    let items = draw.fresh(class, prefix + block + gaps.iter().sum::<usize>())?;
    let (filler, items) = items.split_at(items.len() - block);
    let mut filler = filler.iter();
    let mut s = Sentence::new(Task::Repeat);
    filler.by_ref().take(prefix).for_each(|w| {
        s.say(w);
    });
    for copy in 0..copies {
        for (i, item) in items.iter().enumerate() {
            if copy == 0 || i == 0 {
                s.say(item);
            } else {
                s.answer(item, &[]);
            }
        }
        let gap = gaps.get(copy).copied().unwrap_or(0);
        filler.by_ref().take(gap).for_each(|w| {
            s.say(w);
        });
    }
    Some(s)
}

/// Words of every class with a meaning, for a quarter of the repeats.
fn content_words() -> Vec<&'static str> {
    let mut all = NAMES.to_vec();
    all.extend(PLACES.into_iter().chain(OBJECTS));
    all.extend(FACTS.iter().map(|f| f[0]));
    all.extend(NOUNS[1..].iter().map(|n| n[0])); // the first noun is an object as well
    all
}

/// `Mary has the ball . John has the key . Who has the key ? >John .` or `What does Mary have ?
/// >ball .`; as a statement `Mary has the >ball .`
pub fn recall(draw: &mut Draw<'_>, level: &Level) -> Option<Sentence> {
    let k = draw.rng.range(2..level.recall + 1);
    if level.questions > 1 {
        return several(draw, k, level);
    }
    let statement = draw.rng.chance(level.statement);
    let who = draw.rng.chance(level.who);
    let asked = draw.rng.below(k);
    recall_of(
        draw,
        k,
        asked,
        if statement {
            Ask::Statement
        } else if who {
            Ask::Who
        } else {
            Ask::What
        },
    )
}

/// `k` statements, and then several questions, each about another of them but never about all: the
/// last could be answered by who is left. Some are as short as `ball ? >Mary`.
fn several(draw: &mut Draw<'_>, k: usize, level: &Level) -> Option<Sentence> {
    let names = draw.fresh(&NAMES, k)?;
    let objects = draw.fresh(&OBJECTS, k)?;
    let mut s = Sentence::new(Task::Recall);
    for (name, object) in names.iter().zip(&objects) {
        s.say(name).say("has the").say(object).say(".");
    }
    for asked in draw.rng.sample(k, level.questions.min(k - 1)) {
        if draw.rng.chance(level.statement) {
            s.say(objects[asked]).say("?").answer(names[asked], &[]);
        } else if draw.rng.chance(level.who) {
            s.say("Who has the").say(objects[asked]).say("?").answer(names[asked], &[]).say(".");
        } else {
            s.say("What does").say(names[asked]).say("have ?").answer(objects[asked], &[]).say(".");
        }
    }
    s.cell = format!("k={k} several");
    Some(s)
}

/// How a `recall` sentence asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// `Who has the key ?`
    Who,
    /// `What does Mary have ?`
    What,
    /// `Mary has the`
    Statement,
}

/// `recall` with `k` statements, asking for the one at index `asked`.
pub fn recall_of(draw: &mut Draw<'_>, k: usize, asked: usize, ask: Ask) -> Option<Sentence> {
    let names = draw.fresh(&NAMES, k)?;
    let objects = draw.fresh(&OBJECTS, k)?;
    let mut s = Sentence::new(Task::Recall);
    for i in 0..k {
        if i == asked {
            s.role("name", names[i]).say("has the").role("object", objects[i]).say(".");
        } else {
            s.say(names[i]).say("has the").say(objects[i]).say(".");
        }
    }
    let others = |class: &[&'static str]| {
        (0..k).filter(|&i| i != asked).map(|i| class[i]).collect::<Vec<_>>()
    };
    let direction = match ask {
        Ask::Who => {
            s.say("Who has the").role("asked", objects[asked]).role("END", "?");
            s.answer(names[asked], &others(&names));
            "who"
        }
        Ask::What => {
            s.say("What does").role("asked", names[asked]).say("have").role("END", "?");
            s.answer(objects[asked], &others(&objects));
            "what"
        }
        Ask::Statement => {
            s.role("asked", names[asked]).say("has").role("END", "the");
            s.answer(objects[asked], &others(&objects));
            "statement"
        }
    };
    s.say(".");
    s.cell = format!("k={k} {direction} {}", asked + 1);
    Some(s)
}

/// The relations `icl` shows by example.
pub const RELATIONS: [&str; 5] = ["capital", "continent", "country of", "plural", "she or he"];

/// `France : Paris ; Peru : >Lima ; Egypt : >Cairo .`: two to four examples, then one more. Tests
/// end in a country that training never shows in this relation.
pub fn icl(draw: &mut Draw<'_>) -> Option<Sentence> {
    let test = draw.split == Split::Test;
    let relation = draw.rng.below(if test { 3 } else { RELATIONS.len() });
    let shots = draw.rng.range(2..5);
    icl_of(draw, relation, shots, test)
}

/// `icl` of one relation; `held` asks for a held-out country at the end.
pub fn icl_of(draw: &mut Draw<'_>, relation: usize, shots: usize, held: bool) -> Option<Sentence> {
    let pairs = match relation {
        0..3 => country_pairs(draw, relation, shots, held)?,
        3 => {
            let singular = draw.fresh(&NOUNS.map(|n| n[0]), shots + 1)?;
            let plural = |w: &str| NOUNS.iter().find(|n| n[0] == w).map_or("", |n| n[1]);
            singular.into_iter().map(|w| (w, plural(w))).collect::<Vec<_>>()
        }
        _ => {
            let names = draw.fresh(&NAMES, shots + 1)?;
            let she = |w: &str| if NAMES[..12].contains(&w) { "she" } else { "he" };
            names.into_iter().map(|w| (w, she(w))).collect()
        }
    };
    let mut s = Sentence::new(Task::Icl);
    for (i, (x, y)) in pairs.iter().enumerate() {
        if i > 0 {
            s.say(";");
        }
        if i == shots {
            s.role("asked", x).role("END", ":");
        } else {
            s.say(x).say(":");
        }
        if i == 0 {
            s.say(y);
        } else {
            let wrong = wrong_answers(relation, y);
            s.answer(y, &wrong);
        }
    }
    s.say(".");
    s.cell = RELATIONS[relation].to_string();
    s.held_out = held;
    Some(s)
}

/// Countries with the word each stands in this relation to.
fn country_pairs(
    draw: &mut Draw<'_>,
    relation: usize,
    shots: usize,
    held: bool,
) -> Option<Vec<(&'static str, &'static str)>> {
    let slot = 4 + relation;
    let (out, mut known): (Vec<usize>, Vec<usize>) =
        free_countries(draw).into_iter().partition(|&i| held_out(i, slot));
    draw.rng.shuffle(&mut known);
    known.truncate(shots + usize::from(!held));
    if held {
        known.push(*draw.rng.pick(&out)?);
    }
    if known.len() < shots + 1 {
        return None;
    }
    known.iter().for_each(|&i| use_country(draw, i));
    Some(known.into_iter().map(|i| pair(FACTS[i], relation)).collect())
}

/// Question and answer of one country in a relation.
fn pair(fact: [&'static str; 3], relation: usize) -> (&'static str, &'static str) {
    match relation {
        0 => (fact[0], fact[1]),
        1 => (fact[0], fact[2]),
        _ => (fact[1], fact[0]),
    }
}

/// The other words of the class an answer comes from.
fn wrong_answers(relation: usize, right: &str) -> Vec<&'static str> {
    let all: Vec<&'static str> = match relation {
        0 => FACTS.map(|f| f[1]).to_vec(),
        1 => CONTINENTS.to_vec(),
        2 => FACTS.map(|f| f[0]).to_vec(),
        3 => NOUNS.map(|n| n[1]).to_vec(),
        _ => vec!["she", "he"],
    };
    all.into_iter().filter(|w| *w != right).collect()
}
