//! Sentences about people and things: `ioi`, `agree`, `pronoun`, `sentiment`.

use super::sentence::{Draw, Sentence, Split, Task};
use super::words::{BAD, GOOD, LOOKS, NAMES, NOUNS, OBJECTS, PLACES, THINGS};

/// Number of `ioi` templates.
pub const TEMPLATES: usize = 3;

/// The parts of an `ioi` sentence, so that a corruption can change one of them.
#[derive(Debug, Clone)]
pub struct Ioi {
    /// 0: `When ... went`, 1: `After ... met`, 2: `Then ... had a long talk`.
    pub template: usize,
    /// Whose verb it has: that of its own template, but any in training.
    pub verb: usize,
    /// The name that is the answer.
    pub io: &'static str,
    /// The name said twice.
    pub s: &'static str,
    /// The giver: `s`, or a third name (then either of the first two may follow).
    pub giver: &'static str,
    /// Whether the answer is named first (ABBA) or second (BABA).
    pub io_first: bool,
    /// Where, and what is given.
    pub place: &'static str,
    /// What is given.
    pub object: &'static str,
}

impl Ioi {
    /// The sentence, answered with the indirect object.
    pub fn sentence(&self) -> Sentence {
        let mut s = Sentence::new(Task::Ioi);
        s.say(["When", "After", "Then"][self.template]);
        let names = [("IO", self.io), ("S1", self.s)];
        let [first, second] = if self.io_first { names } else { [names[1], names[0]] };
        s.role(first.0, first.1).say("and").role(second.0, second.1);
        match self.template {
            0 => s.say("went to the").role("place", self.place).say(","),
            1 => s.say("met at the").role("place", self.place).say(","),
            _ => s.say("had a long talk and"),
        };
        s.role("S2", self.giver).say(["gave a", "handed the", "offered a"][self.verb]);
        s.role("object", self.object).role("END", "to").answer(self.io, &[self.s]).say(".");
        if self.giver != self.s {
            s.right = vec![self.io, self.s];
            s.wrong = vec![self.giver];
            s.cell =
                format!("T{} {}", self.template + 1, if self.io_first { "ABC" } else { "BAC" });
        } else {
            s.cell =
                format!("T{} {}", self.template + 1, if self.io_first { "ABBA" } else { "BABA" });
        }
        s.held_out = self.pair_held_out() || self.order_held_out();
        s
    }

    /// About one name pair in six is never trained on.
    fn pair_held_out(&self) -> bool {
        (index(&NAMES, self.io) + index(&NAMES, self.s)).is_multiple_of(6)
    }

    /// The second template is trained on in ABBA order only. Its beginning is also seen with other
    /// verbs, in both orders: else `After` alone would tell the answer.
    fn order_held_out(&self) -> bool {
        self.template == 1 && self.verb == 1 && !self.io_first
    }
}

/// The parts of an `ioi` sentence: in training never a held-out pair or order, in tests always a
/// held-out pair; `abc` asks for a third name as the giver.
pub fn ioi_parts(draw: &mut Draw<'_>, abc: bool) -> Option<Ioi> {
    let names: Vec<_> = NAMES.into_iter().filter(|n| !draw.used.contains(n)).collect();
    let wanted = draw.split == Split::Test;
    for _ in 0..64 {
        let picked = draw.rng.sample(names.len(), 3);
        let [Some(&io), Some(&s), third] = [0, 1, 2].map(|i| picked.get(i).map(|&j| &names[j]))
        else {
            break;
        };
        let third = third.copied();
        let template = draw.rng.below(TEMPLATES);
        let parts = Ioi {
            template,
            verb: if wanted { template } else { draw.rng.below(TEMPLATES) },
            io,
            s,
            giver: if abc { third? } else { s },
            io_first: draw.rng.chance(0.5),
            place: "",
            object: "",
        };
        let held = parts.pair_held_out() || (!wanted && parts.order_held_out());
        if held != wanted {
            continue;
        }
        draw.used.extend([io, s, parts.giver]);
        let place = draw.any(&PLACES);
        let object = draw.fresh(&OBJECTS, 1)?[0];
        return Some(Ioi { place, object, ..parts });
    }
    None
}

/// `When A and B went to the P , B gave a O to >A .`, and two more templates; a quarter has a third
/// name as the giver, so that no order of names alone gives the answer away.
pub fn ioi(draw: &mut Draw<'_>) -> Option<Sentence> {
    let abc = draw.rng.chance(0.25);
    Some(ioi_parts(draw, abc)?.sentence())
}

/// `The (old) key near the dogs (by the N) >is old .`
pub fn agree(draw: &mut Draw<'_>) -> Option<Sentence> {
    let free: Vec<usize> = (0..NOUNS.len()).filter(|&n| !draw.used.contains(NOUNS[n][0])).collect();
    let wanted = draw.split == Split::Test;
    for _ in 0..64 {
        let picked = draw.rng.sample(free.len(), 3);
        let &[a, b, c] = picked.as_slice() else { return None };
        let (subject, beside, third) = (free[a], free[b], free[c]);
        let held = (subject + 2 * beside).is_multiple_of(5);
        if held != wanted {
            continue;
        }
        let (number, other) = (draw.rng.below(2), draw.rng.below(2));
        let mut s = Sentence::new(Task::Agree);
        s.say("The");
        let adjective = draw.rng.chance(0.5);
        if adjective {
            s.say(draw.any(&LOOKS));
        }
        s.role("subject", NOUNS[subject][number]).say("near the");
        s.role("attractor", NOUNS[beside][other]);
        draw.used.extend([NOUNS[subject][0], NOUNS[beside][0]]);
        let long = draw.rng.chance(0.5);
        if long {
            s.say("by the").role("third", NOUNS[third][draw.rng.below(2)]);
            draw.used.insert(NOUNS[third][0]);
        }
        let verbs = ["is", "are"];
        s.answer(verbs[number], &[verbs[1 - number]]).say(draw.any(&LOOKS)).say(".");
        let kind = if number == other { "congruent" } else { "incongruent" };
        let adjective = if adjective { " adjective" } else { "" };
        s.cell = format!("{kind}{adjective}{}", if long { " long" } else { "" });
        s.held_out = held;
        return Some(s);
    }
    None
}

/// `A met B . S said that >she was tired .` with S one of the two.
pub fn pronoun(draw: &mut Draw<'_>) -> Option<Sentence> {
    let (women, men) = NAMES.split_at(12);
    let pronouns = ["she", "he"];
    let sides = [women, men];
    let first = draw.rng.below(2);
    let second = if draw.rng.chance(0.5) { first } else { 1 - first };
    let a = draw.fresh(sides[first], 1)?[0];
    let b = draw.fresh(sides[second], 1)?[0];
    let (speaker, side, at) = if draw.rng.chance(0.5) { (a, first, 1) } else { (b, second, 2) };
    let mut s = Sentence::new(Task::Pronoun);
    s.role("A", a).say("met").role("B", b).say(".").role("S", speaker).say("said that");
    s.answer(pronouns[side], &[pronouns[1 - side]]).say("was tired .");
    s.cell = format!("{} {at}", if first == second { "same" } else { "opposite" });
    Some(s)
}

/// `The movie was (not) great . I >loved it .` or
/// `The T1 was great . The T2 was dull . I hated the >T2 .`
pub fn sentiment(draw: &mut Draw<'_>) -> Option<Sentence> {
    let mut s = Sentence::new(Task::Sentiment);
    let verbs = ["loved", "hated"];
    let words = [GOOD, BAD];
    let bad = draw.rng.below(2);
    // the second form is the harder one; in training it comes more often
    if draw.rng.chance(if draw.split == Split::Train { 0.3 } else { 0.5 }) {
        // with half of them negated the adjective alone would say nothing, and nothing is learnt
        let not = draw.rng.chance(0.25);
        let felt = if not { 1 - bad } else { bad };
        s.say("The").role("thing", draw.any(&THINGS)).say("was");
        if not {
            s.role("not", "not");
        }
        s.role("adjective", draw.any(&words[bad])).say(". I");
        s.answer(verbs[felt], &[verbs[1 - felt]]).say("it .");
        s.cell = if not { "verb not" } else { "verb" }.to_string();
    } else {
        let things = draw.rng.sample(THINGS.len(), 2).into_iter().map(|i| THINGS[i]);
        let things: Vec<_> = things.collect();
        let asked = draw.rng.below(2);
        let mut moods = [1 - bad; 2];
        moods[asked] = bad;
        s.say("The")
            .role("T1", things[0])
            .say("was")
            .role("adjective 1", draw.any(&words[moods[0]]));
        s.say(". The").role("T2", things[1]).say("was");
        s.role("adjective 2", draw.any(&words[moods[1]])).say(". I").role("verb", verbs[bad]);
        s.say("the").answer(things[asked], &[things[1 - asked]]).say(".");
        s.cell = format!("thing {}", asked + 1);
    }
    Some(s)
}

/// Index of a word in its class; the class must hold it.
fn index(class: &[&str], word: &str) -> usize {
    class.iter().position(|w| *w == word).unwrap_or(0)
}
