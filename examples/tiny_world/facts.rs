//! What is stored in the weights: `fact`, and `greater` (the order of years).

use super::sentence::{Draw, Sentence, Split, Task};
use super::words::{EVENTS, FACTS, YEARS};

/// Forms in which a country can be held out: four of `fact`, three relations of `icl`.
const SLOTS: usize = 7;
/// Continents, in the order of the table.
pub const CONTINENTS: [&str; 4] = ["Europe", "Asia", "Africa", "America"];
/// The names of the forms of `fact`.
pub const FORMS: [&str; 4] = ["capital of", "continent of", "is the capital of", "In X"];

/// Whether country `i` never appears in slot `slot` in training: each is missing from exactly one.
/// Slots 0..4 are [`FORMS`], 4..7 the `icl` relations capital, continent, country-of.
pub fn held_out(country: usize, slot: usize) -> bool {
    country % SLOTS == slot
}

/// The countries a row does not hold yet, neither they nor their capitals.
pub fn free_countries(draw: &Draw<'_>) -> Vec<usize> {
    let free = |i: &usize| FACTS[*i][..2].iter().all(|w| !draw.used.contains(w));
    (0..FACTS.len()).filter(free).collect()
}

/// Mark a country and its capital as said.
pub fn use_country(draw: &mut Draw<'_>, country: usize) {
    draw.used.extend([FACTS[country][0], FACTS[country][1]]);
}

/// `The capital of X is >Y .` and three more forms; 15 % `Suppose the capital of X is W . Then the
/// capital of X is >W .`, where what was just said beats what is known.
pub fn fact(draw: &mut Draw<'_>) -> Option<Sentence> {
    let free = free_countries(draw);
    if draw.rng.chance(0.15) {
        let picked = draw.rng.sample(free.len(), 2);
        let &[x, w] = picked.as_slice() else { return None };
        return Some(suppose(draw, free[x], free[w]));
    }
    let form = draw.rng.below(FORMS.len());
    let may = |i: &&usize| draw.split == Split::Test || !held_out(**i, form);
    let free: Vec<usize> = free.iter().filter(may).copied().collect();
    let country = *draw.rng.pick(&free)?;
    Some(plain(draw, country, form))
}

/// A country in one of the [`FORMS`].
pub fn plain(draw: &mut Draw<'_>, country: usize, form: usize) -> Sentence {
    use_country(draw, country);
    let [x, capital, continent] = FACTS[country];
    let other = |column: usize| {
        let all = FACTS.iter().map(move |f| f[column]);
        all.filter(move |w| *w != FACTS[country][column]).collect::<Vec<_>>()
    };
    let mut s = Sentence::new(Task::Fact);
    match form {
        0 => s.say("The capital of").role("subject", x).say("is").answer(capital, &other(1)),
        1 => {
            let wrong: Vec<_> = CONTINENTS.into_iter().filter(|c| *c != continent).collect();
            s.say("The continent of").role("subject", x).say("is").answer(continent, &wrong)
        }
        2 => s.role("subject", capital).say("is the capital of").answer(x, &other(0)),
        _ => s.say("In").role("subject", x).say("the capital is").answer(capital, &other(1)),
    };
    s.say(".");
    s.cell = FORMS[form].to_string();
    s.held_out = held_out(country, form);
    s
}

/// The counterfactual form: the capital of country `x` is said to be that of country `w`.
pub fn suppose(draw: &mut Draw<'_>, x: usize, w: usize) -> Sentence {
    use_country(draw, x);
    use_country(draw, w);
    let ([country, truth, _], [_, said, _]) = (FACTS[x], FACTS[w]);
    let mut s = Sentence::new(Task::Fact);
    s.say("Suppose the capital of").role("subject 1", country).say("is").role("said", said);
    s.say(". Then the capital of")
        .role("subject", country)
        .say("is")
        .answer(said, &[truth])
        .say(".");
    s.cell = "suppose".to_string();
    s
}

/// `The war lasted from the year 17 32 to the year >17 >z .`, z uniform above 32. One start year in
/// five is held out, another one for each century.
pub fn greater(draw: &mut Draw<'_>) -> Option<Sentence> {
    loop {
        let (century, y) = (draw.rng.range(17..19), draw.rng.range(1..98));
        if draw.split == Split::Test || !year_held_out(century, y) {
            let event = draw.any(&EVENTS);
            return Some(greater_of(draw, event, century, y));
        }
    }
}

/// Whether training never shows a war that starts in this year.
fn year_held_out(century: usize, y: usize) -> bool {
    y % 5 == if century == 17 { 0 } else { 2 }
}

/// `greater` for one event and start year; y from 1 to 97.
pub fn greater_of(draw: &mut Draw<'_>, event: &'static str, century: usize, y: usize) -> Sentence {
    let held = year_held_out(century, y);
    let mut s = Sentence::new(Task::Greater);
    let z = draw.rng.range(y + 1..YEARS.len());
    s.say("The").role("event", event).say("lasted from the year");
    s.role("century", YEARS[century]).role("start", YEARS[y]).say("to the year");
    s.answer(YEARS[century], &[]).answer(YEARS[z], &YEARS[..=y]).say(".");
    s.right = YEARS[y + 1..].to_vec();
    s.cell = format!("{} {}", YEARS[century], if held { "held out" } else { "trained" });
    s.held_out = held;
    s
}
