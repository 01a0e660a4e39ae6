//! A notebook's interrupt ends every long call with an error, and the next call works.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use thalweg::anyhow::Result;
use thalweg::model::AdamW;
use thalweg::tch::{Kind, Tensor, no_grad_guard};
use thalweg::{
    Intervention, Metric, Model, Plan, Point, Progress, Statistics, SweepOptions, check_interrupt,
    integrated_gradients, statistics,
};

use crate::support::change::{others, tokens};
use crate::support::child::{case, child, written};
use crate::support::{config, model, model_of, says, scratch};

/// A new test in a child whose `THALWEG_INTERRUPT` names the file that `body` is given; the file
/// does not exist.
fn interruptible(test: &str, body: impl Fn(&Path)) {
    match case() {
        Some(file) => body(Path::new(&file)),
        None => {
            let file = scratch(&test.replace("::", "-")).join("interrupt");
            let variables = [("THALWEG_INTERRUPT", file.as_path())];
            drop(written(child(test, file.to_str().unwrap(), &variables)));
        }
    }
}

fn ask(file: &Path) {
    std::fs::write(file, "").unwrap();
}

fn take_back(file: &Path) {
    std::fs::remove_file(file).unwrap();
}

/// A plan that asks for an interrupt in block 0 of its `n`th pass.
fn asking(file: &Path, n: usize) -> Plan {
    let (file, passes) = (PathBuf::from(file), Arc::new(AtomicUsize::new(0)));
    let change = Intervention::custom("interrupts", move |x| {
        if passes.fetch_add(1, Ordering::Relaxed) + 1 == n {
            ask(&file);
        }
        Ok(x.copy())
    });
    Plan::new().intervene(Point::MlpOut.at(0), change)
}

/// Whether grad mode is on in this thread.
fn grad_mode() -> bool {
    let x = Tensor::from_slice(&[1.0]).set_requires_grad(true);
    (x * 2.0).requires_grad()
}

#[test]
fn a_pass_stops_at_its_next_block_and_leaves_grad_mode_alone() {
    let test = "interrupt::a_pass_stops_at_its_next_block_and_leaves_grad_mode_alone";
    interruptible(test, |file| {
        let (model, tokens) = (model(), tokens());
        let before = model.logits(&tokens).unwrap();
        let stream = model.embed(&tokens).unwrap();
        let middle = "interrupted at block 1 of 2; variables are kept";
        assert_eq!(says(model.run(&tokens, &asking(file, 1)), &[]), middle);
        assert!(grad_mode());
        says(model.logits(&tokens), &["interrupted at block 0 of 2; variables are kept"]);
        says(model.block(1, &stream, &tokens), &["interrupted; variables are kept"]);
        says(model.unembed(&stream), &["interrupted; variables are kept"]);
        says(check_interrupt(), &["interrupted; variables are kept"]);
        let metric = Metric::logit(3);
        let gradients = Plan::new().cache(Point::Z).gradients(metric.clone());
        let quiet = no_grad_guard();
        says(model.run(&tokens, &gradients), &["interrupted at block 0"]);
        says(integrated_gradients(&model, &tokens, &metric, &others()), &["interrupted"]);
        assert!(!grad_mode());
        drop(quiet);
        says(model.run(&tokens, &gradients), &["interrupted at block 0"]);
        assert!(grad_mode());
        take_back(file);
        check_interrupt().unwrap();
        assert!(model.logits(&tokens).unwrap().equal(&before));
        model.run(&tokens, &gradients).unwrap();
    });
}

#[test]
fn a_sweep_says_after_how_many_plans_it_stopped() {
    let test = "interrupt::a_sweep_says_after_how_many_plans_it_stopped";
    interruptible(test, |file| {
        let (model, tokens, metric) = (model(), tokens(), Metric::logit(1));
        // Plans that run alone.
        let plans = vec![asking(file, 3); 5];
        let expected = "sweep: interrupted after 2 of 5 plans; variables are kept";
        assert_eq!(says(model.sweep(&tokens, &plans, &metric), &[]), expected);
        take_back(file);
        // Batches: the next one stops.
        let plan = |head: i64| {
            let place = Intervention::zero().head(head % 4).pos(head / 4 % 3);
            Plan::new().intervene(Point::Z.at(0), place)
        };
        let plans: Vec<Plan> = (0..96).map(plan).collect();
        let mut first = 0;
        let watcher = |progress: Progress| {
            if progress.done > 0 && first == 0 {
                first = progress.done;
                ask(file);
            }
            true
        };
        let options = SweepOptions::new().cap(100_000).watch(watcher);
        let error = says(model.sweep_with(&tokens, &plans, &metric, options), &["of 96 plans"]);
        assert!(first < 96, "one batch took all");
        let expected = format!("sweep: interrupted after {first} of 96 plans; variables are kept");
        assert_eq!(error, expected);
        take_back(file);
        assert_eq!(model.sweep(&tokens, &plans, &metric).unwrap().done, 96);
    });
}

#[test]
fn a_generation_says_after_how_many_tokens_it_stopped() {
    let test = "interrupt::a_generation_says_after_how_many_tokens_it_stopped";
    interruptible(test, |file| {
        let (model, tokens) = (model(), tokens());
        let written = model.generate(&tokens, 6, &asking(file, 3));
        let expected = "generate: interrupted after 2 of 6 tokens; variables are kept";
        assert_eq!(says(written, &[]), expected);
        take_back(file);
        assert_eq!(model.generate(&tokens, 6, &Plan::new()).unwrap().new[0].len(), 6);
    });
}

#[test]
fn statistics_loads_and_training_stop_too() {
    let test = "interrupt::statistics_loads_and_training_stop_too";
    interruptible(test, |file| {
        let (model, tokens) = (model_of(config(), Kind::Float, 1), tokens());
        let dir = scratch("interrupt-model");
        model.save(&dir).unwrap();
        let count = |list: &mut [Statistics]| -> Result<()> {
            let batches = (0..3).map(|i| if i == 1 { Ok(others()) } else { Ok(self::tokens()) });
            statistics(&model, batches.inspect(|_| ()), &Plan::new(), list)
        };
        let trained = model.trainable();
        let loss = || {
            let run = trained.run(&tokens, &Plan::new().differentiable()).unwrap();
            run.logits.square().mean(Kind::Float)
        };
        let mut optimizer = AdamW::new(trained.parameters());
        let (before, last) = (trained.parameters()[0].copy(), loss());
        ask(file);
        let dir_name = dir.file_name().unwrap().to_str().unwrap();
        says(Model::load(&dir), &[dir_name, "interrupted: load: 0 of 0 MB", "variables are kept"]);
        says(count(&mut [Statistics::at(Point::Z.at(0))]), &["batch 0: interrupted at block 0"]);
        says(optimizer.step(&last, 0.1), &["interrupted before training step 1"]);
        assert!(trained.parameters()[0].equal(&before));
        take_back(file);
        Model::load(&dir).unwrap();
        count(&mut [Statistics::at(Point::Z.at(0))]).unwrap();
        optimizer.step(&last, 0.1).unwrap();
    });
}
