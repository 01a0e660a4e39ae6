//! The rows and the blindfold of the stage that learns `Who`.

use thalweg::anyhow::Result;
use thalweg::rng::Rng;

use super::world::blindfold::blindfold;
use super::world::rows::{Mixture, evenly, row};
use super::world::sentence::{Draw, Level, Split, Task};
use super::world::trainer::{Recipe, Trainer, untrained};
use super::world::words::{NAMES, Vocabulary};

fn level() -> Level {
    Level { questions: 3, statement: 0.3, who: 0.8, ..Level::full() }
}

#[test]
fn several_questions_are_about_different_statements_and_one_is_left_out() {
    let mut rng = Rng::new(8);
    for _ in 0..200 {
        let mut draw = Draw::new(&mut rng, Split::Train);
        let s = draw.sentence(Task::Recall, &level()).expect("a new row has words for it");
        let k = s.words.iter().take_while(|w| !["Who", "What", "?"].contains(w)).count() / 5;
        let mut left: Vec<_> = s.words[..5 * k].chunks(5).map(|w| (w[0], w[3])).collect();
        assert!(!s.scored.is_empty() && s.scored.len() < k, "{:?}", s.words);
        for at in s.scored {
            let answer = s.words[at];
            let question = &s.words[at.saturating_sub(5)..at];
            let hit = left.iter().position(|(name, object)| {
                (*name == answer && question.contains(object))
                    || (*object == answer && question.contains(name))
            });
            left.remove(hit.unwrap_or_else(|| panic!("{answer} in {:?}", s.words)));
        }
    }
}

#[test]
fn a_blindfold_hides_names_and_the_two_words_after_them_from_questions_alone() {
    let (vocabulary, mut rng) = (Vocabulary::new(), Rng::new(9));
    let (repeats, recalls, tasks) = (0.0, 1.0, evenly());
    let mixture =
        Mixture { length: 64, repeats, recalls, tasks, level: level(), split: Split::Train };
    let rows: Vec<_> = (0..20).map(|_| row(&mut rng, &mixture, &vocabulary)).collect();
    let mask = blindfold(&rows, &vocabulary);
    let (width, mut hidden) = (63, 0);
    assert_eq!(mask.len(), rows.len() * width * width);
    for (i, row) in rows.iter().enumerate() {
        let word = |at: usize| vocabulary.word(row.ids[at]).unwrap_or_default();
        for query in 0..width {
            for key in 0..width {
                if mask[(i * width + query) * width + key] == 0.0 {
                    continue;
                }
                hidden += 1;
                let named = (key.saturating_sub(2)..=key).any(|at| NAMES.contains(&word(at)));
                assert!(named && key < query, "{} from {}", word(key), word(query));
                let answer = (query + 1..=(query + 5).min(width))
                    .find(|at| row.task[*at] == Task::Recall as usize);
                assert!(answer.is_some_and(|at| NAMES.contains(&word(at))), "{}", word(query));
            }
        }
    }
    assert!(hidden > 1000, "{hidden}");
}

#[test]
fn the_stage_of_questions_trains_on_from_a_model() -> Result<()> {
    let recipe = Recipe { batch: 8, ..Recipe::smoke(1) };
    let mut trainer = Trainer::ask(recipe.clone(), &untrained(recipe.size, 1)?)?;
    let losses = (0..24).map(|_| trainer.step()).collect::<Result<Vec<f64>>>()?;
    let [first, last] = [&losses[..8], &losses[16..]].map(|part| part.iter().sum::<f64>() / 8.0);
    assert!(last < first - 0.1, "{losses:?}");
    let counts = trainer.look()?;
    assert!((0.0..=1.0).contains(&counts.who()), "{counts:?}");
    Ok(())
}
