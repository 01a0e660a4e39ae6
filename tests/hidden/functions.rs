//! Function vectors: a task that one head carries, and the trained model's tasks by example.

use std::collections::{BTreeMap, HashMap};

use thalweg::prelude::*;
use thalweg::{Config, FewShot, FewShotPrompts, function_vectors};

use super::{prompts, tiny_world};
use crate::support::{config, distance, says};

/// Ids of the one-head model: a prompt begins, ends, shows task A or B, or nothing; answers.
const BEGIN: i64 = 0;
const END: i64 = 1;
const A: i64 = 2;
const B: i64 = 3;
const NOTHING: i64 = 4;
const ANSWER_A: i64 = 5;
const ANSWER_B: i64 = 6;
const VOCAB: i64 = 7;

/// Two layers of four heads, all silent but head 2 of layer 0, which looks everywhere alike, reads
/// which task is shown and writes that task's answer.
fn one_head_model() -> Model {
    thalweg::tch::set_num_threads(1);
    let (d, head) = (2 * VOCAB, 4);
    let config = Config {
        d_model: d as usize,
        n_kv_heads: 4,
        d_head: head as usize,
        d_mlp: 1,
        d_vocab: VOCAB as usize,
        ..config()
    };
    let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Double, Device::Cpu));
    let tensors: HashMap<String, Tensor> = crate::support::shapes(&config)
        .into_iter()
        .map(|(name, shape)| {
            let norm = shape.len() == 1;
            (name, if norm { zeros(&shape) + 1.0 } else { zeros(&shape) })
        })
        .collect();
    let entry = |name: &str, row: i64, column: i64, value: f64| {
        let _ = tensors[name].get(row).get(column).fill_(value);
    };
    // The stream: the token, one-hot, then the answer, one-hot.
    for token in 0..VOCAB {
        entry("model.embed_tokens.weight", token, token, 1.0);
        entry("lm_head.weight", token, VOCAB + token, 4.0);
    }
    let first = 2 * head; // of head 2
    for (i, (shown, answer)) in [(A, ANSWER_A), (B, ANSWER_B)].into_iter().enumerate() {
        entry("model.layers.0.self_attn.v_proj.weight", first + i as i64, shown, 1.0);
        let written = VOCAB + answer;
        entry("model.layers.0.self_attn.o_proj.weight", written, first + i as i64, 1.0);
    }
    Model::from_parts(config, tensors, None).unwrap()
}

/// Four prompts that show a task, show nothing, or only ask.
fn shown(task: &str, shows: i64, answer: i64) -> FewShotPrompts {
    let rows = |row: Vec<i64>| Tokens::from_ids(&vec![row; 4]).unwrap();
    FewShotPrompts {
        task: task.to_owned(),
        few_shot: rows(vec![BEGIN, shows, END]),
        shuffled: rows(vec![BEGIN, NOTHING, END]),
        zero_shot: rows(vec![BEGIN, END]),
        answers: vec![answer; 4],
    }
}

#[test]
fn the_one_head_that_carries_a_task_has_the_greatest_effect_and_is_the_vector() {
    let model = one_head_model();
    let tasks = [shown("a", A, ANSWER_A), shown("b", B, ANSWER_B)];
    let found = function_vectors(&model, &tasks).unwrap();
    assert_eq!(found.heads(1).unwrap(), [(0, 2)]);
    for (index, effect) in found.effect.present() {
        if index == [0, 2] {
            assert!(effect > 0.3, "{effect}");
        } else {
            assert_eq!(effect, 0.0, "{index:?}");
        }
    }
    // The vector is what the head writes in every prompt that shows the task.
    for task in &tasks {
        let plan = Plan::new().cache(Point::HeadResult.at(0));
        let cache = model.run(&task.few_shot, &plan).unwrap().cache;
        let written = cache.get(Point::HeadResult.at(0)).unwrap().get(0).get(-1).get(2);
        let vector = found.vector(&task.task, &[(0, 2)]).unwrap();
        assert!(distance(&vector, &written) < 1e-12);
        let added = found.added(&model, task, &[(0, 2)], (20, 1)).unwrap();
        let other = if task.task == "a" { "vector of b" } else { "vector of a" };
        for grid in [&added.zero_shot, &added.shuffled] {
            for layer in ["L0", "L1"] {
                let p = |series: &str| grid.get(&[layer, series]).unwrap();
                assert!(p("function vector") > p("no vector") + 0.3, "{:?}", grid.values);
                // The other heads write nothing, the other task's vector another answer.
                assert!((p("random heads") - p("no vector")).abs() < 1e-12);
                assert!(p(other) < p("no vector"));
            }
        }
    }
}

#[test]
fn effects_are_those_of_patching_each_heads_mean_in_by_hand() {
    let model = tiny_world();
    let tasks = tasks(&model, 6);
    let found = function_vectors(&model, &tasks[..2]).unwrap();
    let mut mean = 0.0;
    for (index, task) in tasks[..2].iter().enumerate() {
        let plan = Plan::new().cache(Point::HeadResult);
        let cache = model.run(&task.few_shot, &plan).unwrap().cache;
        let written = cache.get(Point::HeadResult.at(1)).unwrap().select(1, -1);
        let own = written.mean_dim([0i64].as_slice(), false, Kind::Float).get(5);
        let p = |plan: &Plan| {
            let logits = model.run(&task.shuffled, plan).unwrap().logits.select(1, -1);
            let ids = Tensor::from_slice(&task.answers).unsqueeze(1);
            logits
                .softmax(-1, Kind::Double)
                .gather(1, &ids, false)
                .mean(Kind::Double)
                .double_value(&[])
        };
        let set = Intervention::set(&own).head(5).pos(-1);
        let gain = p(&Plan::new().intervene(Point::HeadResult.at(1), set)) - p(&Plan::new());
        let reported = found.tasks.values[[index, 1, 5].as_slice()];
        assert!((gain - reported).abs() < 1e-5, "{}: {gain} against {reported}", task.task);
        let vector = found.vector(&task.task, &[(1, 5)]).unwrap();
        assert!(distance(&vector, &own) < 1e-5);
        mean += gain / 2.0;
        let both = found.vector(&task.task, &[(1, 5), (0, 3)]).unwrap();
        assert!(distance(&(both - vector), &found.vector(&task.task, &[(0, 3)]).unwrap()) < 1e-9);
    }
    assert!((found.effect.values[[1, 5].as_slice()] - mean).abs() < 1e-5);
    let interval = found.effect.interval.as_ref().unwrap();
    assert!(interval.low.iter().zip(&found.effect.values).all(|(low, value)| low <= value));
}

/// The pairs of each task that the prompt set `icl` shows.
fn pairs() -> BTreeMap<String, Vec<(String, String)>> {
    let mut found: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for prompt in prompts("icl").prompts {
        let task = prompt.label.split(',').next().unwrap().to_owned();
        let own = found.entry(task).or_default();
        let asked = format!("{} {}", prompt.clean, prompt.right[0]);
        for example in asked.split(" ; ") {
            let (question, answer) = example.split_once(" : ").unwrap();
            own.insert(question.to_owned(), answer.to_owned());
        }
    }
    found.into_iter().map(|(task, own)| (task, own.into_iter().collect())).collect()
}

/// Capitals and continents of the same countries, four examples each; wrong answers are those of
/// the other tasks.
fn tasks(model: &Model, n: usize) -> Vec<FewShotPrompts> {
    let pairs = pairs();
    let of = |task: &str| {
        let others = pairs.iter().filter(|(name, _)| *name != task);
        let others: Vec<&String> =
            others.flat_map(|(_, own)| own.iter().map(|(_, answer)| answer)).collect();
        let task = FewShot::new(task, &pairs[task]).shuffled_from(&others);
        task.prompts(model, 4, n, 3).unwrap()
    };
    ["capital", "continent"].map(of).to_vec()
}

#[test]
fn prompts_by_example_hold_their_answers_and_shuffled_ones_others() {
    let model = tiny_world();
    let pairs = [("Japan", "Tokyo"), ("Italy", "Rome"), ("Egypt", "Cairo"), ("Peru", "Lima")];
    let made = FewShot::new("capital", &pairs).prompts(&model, 3, 20, 1).unwrap();
    let answer = |question: &str| pairs.iter().find(|(own, _)| *own == question).unwrap().1;
    let piece = |piece: &String| piece.trim().to_owned();
    for row in 0..20 {
        let [right, wrong, alone] = [&made.few_shot, &made.shuffled, &made.zero_shot]
            .map(|tokens| tokens.pieces()[row].iter().map(piece).collect::<Vec<_>>());
        assert_eq!((right.len(), wrong.len(), alone.len()), (15, 15, 3));
        for first in [1, 5, 9] {
            assert_eq!(right[first + 2], answer(&right[first]));
            assert_ne!(wrong[first + 2], answer(&wrong[first]));
            assert_eq!(right[first], wrong[first]);
        }
        assert_eq!((&right[13], &right[14]), (&alone[1], &alone[2]));
        assert_eq!(model.piece(made.answers[row]).trim(), answer(&alone[1]));
        // Within a prompt nothing is asked that was shown.
        assert!(!right[..13].contains(&right[13]));
    }
    let again = FewShot::new("capital", &pairs).prompts(&model, 3, 20, 1).unwrap();
    assert_eq!(again.shuffled.ids(), made.shuffled.ids());
}

#[test]
fn no_example_of_a_shuffled_prompt_has_its_right_answer_though_answers_recur() {
    let model = tiny_world();
    let pairs = [
        ("Japan", "Asia"),
        ("Italy", "Europe"),
        ("France", "Europe"),
        ("Egypt", "Africa"),
        ("Kenya", "Africa"),
    ];
    let task = FewShot::new("continent", &pairs);
    let names = ["Asia", "Europe", "Africa"];
    for task in [task.clone(), task.shuffled_from(&names)] {
        let made = task.prompts(&model, 3, 60, 2).unwrap();
        for row in made.shuffled.pieces() {
            let row: Vec<&str> = row.iter().map(|piece| piece.trim()).collect();
            for first in [1, 5, 9] {
                let right = pairs.iter().find(|(own, _)| *own == row[first]).unwrap().1;
                assert_ne!(row[first + 2], right, "{row:?}");
            }
        }
    }
    let same =
        FewShot::new("one", &[("Italy", "Europe"), ("France", "Europe"), ("Spain", "Europe")]);
    says(same.prompts(&model, 2, 1, 0), &["\"one\"", "no wrong answer"]);
    says(same.shuffled_from(&["Europe"]).prompts(&model, 2, 1, 0), &["no wrong answer"]);
}

#[test]
fn neighbouring_seeds_draw_other_random_heads_and_one_prompt_has_no_interval() {
    let model = tiny_world();
    let task = tasks(&model, 4).remove(0);
    let found = function_vectors(&model, std::slice::from_ref(&task)).unwrap();
    let drawn = |seed| {
        let grid = found.added(&model, &task, &[(1, 5), (1, 6)], (2, seed)).unwrap().zero_shot;
        let interval = grid.interval.unwrap();
        [interval.low, interval.high].map(|bound| bound[[0, 2].as_slice()])
    };
    let (zero, one) = (drawn(0), drawn(1));
    assert!(zero.iter().all(|value| !one.contains(value)), "{zero:?} {one:?}");
    let alone = FewShot::new("capital", &pairs()["capital"]).prompts(&model, 2, 1, 0).unwrap();
    let effect = function_vectors(&model, &[alone]).unwrap().effect;
    let interval = effect.interval.unwrap();
    assert!(interval.low.iter().chain(&interval.high).all(|bound| bound.is_nan()));
}

#[test]
fn what_shows_no_task_is_said() {
    let model = tiny_world();
    let pairs = [("Japan", "Tokyo"), ("Italy", "Rome"), ("Egypt", "Cairo")];
    let task = FewShot::new("capital", &pairs);
    says(task.prompts(&model, 3, 4, 0), &["3 pairs", "to 2"]);
    says(task.prompts(&model, 1, 4, 0), &["\"capital\"", "expected"]);
    let glued = task.clone().written(":", " ");
    says(glued.prompts(&model, 2, 1, 0), &["the answer joins", "end `between` with a space"]);
    says(function_vectors(&model, &[]), &["no tasks"]);
    let made = task.prompts(&model, 2, 2, 0).unwrap();
    says(function_vectors(&model, &[made.clone(), made.clone()]), &["two tasks", "capital"]);
    let found = function_vectors(&model, std::slice::from_ref(&made)).unwrap();
    says(found.vector("plural", &[(0, 0)]), &["\"plural\"", "capital"]);
    says(found.vector("capital", &[(4, 0)]), &["L4H0", "4 layers of 8"]);
    says(found.vector("capital", &[]), &["no heads"]);
    says(found.added(&model, &made, &[(1, 5)], (1, 0)), &["1 draws"]);
}

#[test]
fn a_few_heads_carry_which_fact_of_a_country_is_asked_for() {
    let model = tiny_world();
    let tasks = tasks(&model, 32);
    let found = function_vectors(&model, &tasks).unwrap();
    let heads = found.heads(6).unwrap();
    // Four layers of eight heads: those of the second are the induction heads.
    assert!(heads.iter().all(|(layer, _)| *layer == 1), "{found:?}");
    for (task, other) in [(&tasks[0], "vector of continent"), (&tasks[1], "vector of capital")] {
        let added = found.added(&model, task, &heads, (20, 1)).unwrap().zero_shot;
        let p = |series: &str| added.get(&["L1", series]).unwrap();
        // Alone, "Japan :" asks for either.
        assert!((0.25..0.75).contains(&p("no vector")), "{:?}", added.values);
        assert!(p("function vector") > p("no vector") + 0.2, "{:?}", added.values);
        assert!(p(other) < p("no vector") - 0.2, "{:?}", added.values);
        assert!(p("random heads") < p("function vector") - 0.15, "{:?}", added.values);
    }
}
