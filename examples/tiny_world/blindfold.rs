//! What is kept from a model while it learns where to keep an answer.

use super::rows::Row;
use super::sentence::Task;
use super::words::{FACTS, NAMES, Vocabulary};

/// To be added to attention scores, `[row, query, key]` in one list: it keeps the questions that ask
/// for a name from the names said before, and from the two words after each. The name can then
/// only be read at what it has, or later. Any name of the text is right once in a while, and as
/// long as that pays, nothing leads to the object.
pub fn blindfold(rows: &[Row], vocabulary: &Vocabulary) -> Vec<f32> {
    let names = vocabulary.id(NAMES[0])..=vocabulary.id(NAMES[NAMES.len() - 1]);
    let the = vocabulary.id("the");
    let width = rows.first().map_or(0, |row| row.ids.len() - 1); // the last token is only predicted
    let mut mask = vec![0f32; rows.len() * width * width];
    for (i, row) in rows.iter().enumerate() {
        let asked = (6..=width)
            .filter(|&at| row.task[at] == Task::Recall as usize && names.contains(&row.ids[at]));
        for at in asked {
            // `Who has the key ?` or `key ?`
            let start = if row.ids[at - 3] == the { at - 5 } else { at - 2 };
            for name in (0..start).filter(|&p| names.contains(&row.ids[p])) {
                for query in start..at {
                    for key in name..(name + 3).min(start) {
                        mask[(i * width + query) * width + key] = -1e9;
                    }
                }
            }
        }
    }
    mask
}

/// Where the facts of some rows stand, `row * width + position` each.
#[derive(Debug, Default)]
pub struct FactPlaces {
    /// Of the countries and capitals that are asked about.
    pub subjects: Vec<i64>,
    /// Of all words between a subject and its answer.
    pub after: Vec<i64>,
}

impl FactPlaces {
    /// Of all facts in `rows`.
    pub fn of(rows: &[Row], vocabulary: &Vocabulary) -> Self {
        let named = FACTS.iter().flat_map(|fact| [fact[0], fact[1]]);
        let named: Vec<i64> = named.map(|word| vocabulary.id(word)).collect();
        let width = rows.first().map_or(0, |row| row.ids.len() - 1); // the last token is only predicted
        let mut found = FactPlaces::default();
        for (i, row) in rows.iter().enumerate() {
            for answer in (0..=width).filter(|&at| row.task[at] == Task::Fact as usize) {
                let before = (0..answer).rfind(|&at| named.contains(&row.ids[at]));
                let Some(subject) = before else { continue };
                if row.ids[..subject].contains(&row.ids[subject]) {
                    continue; // `Suppose ..`: what was just said is asked for, and no fact
                }
                found.subjects.push((i * width + subject) as i64);
                found.after.extend((subject + 1..answer).map(|at| (i * width + at) as i64));
            }
        }
        found
    }
}
