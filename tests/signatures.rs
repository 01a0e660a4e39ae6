//! The signatures that notebooks, scripts and other packages compile against.

use std::path::Path;

use thalweg::anyhow::Result;
use thalweg::ndarray::ArrayD;
use thalweg::tch::{Device, Kind, Tensor};
use thalweg::{
    Answers, Attention, Axis, Cache, Config, Figure, Generated, Grid, GridAxis, Intervention,
    Metric, Model, Plan, Point, Position, Run, Sampling, Site, Sites, Sweep, Tokens, bars, heatmap,
    lines, logit_lens, patching,
};

use crate::support::model;

/// A user's function on a tensor.
type Function = fn(&Tensor) -> Result<Tensor>;

#[test]
fn the_signatures_that_count_are_as_the_design_says() {
    let _: fn(&'static str) -> Result<Model> = Model::load;
    let _: fn(&'static Path) -> Result<Model> = Model::load;
    let _: fn(&'static Path, Device, Kind) -> Result<Model> = Model::load_on;
    let _: fn(&Model, &Tokens, &Plan) -> Result<Run> = Model::run;
    let _: fn(&Model, &Tokens) -> Result<Tensor> = Model::logits;
    let _: fn(&Model, &str) -> Result<Tokens> = Model::tokens;
    let _: fn(&Model, &[&'static str]) -> Result<Tokens> = Model::batch::<&str>;
    let _: fn(&Model, &str) -> Result<i64> = Model::token;
    let _: fn(&Model) -> &Config = Model::config;
    let _: fn(&Model, &Tokens) -> Result<Tensor> = Model::loss;
    let _: fn(&Model, u64) -> Result<Model> = Model::shuffled;
    let _: fn(&Model, &'static str) -> Result<()> = Model::save;
    let _: fn(&[Vec<i64>]) -> Result<Tokens> = Tokens::from_ids;
    let _: fn(Plan, Point) -> Plan = Plan::cache;
    let _: fn(Plan, Site) -> Plan = Plan::cache;
    let _: fn(Plan, Vec<Site>) -> Plan = Plan::cache;
    let _: fn(Plan, Sites) -> Plan = Plan::cache;
    let _: fn(Plan, Point, Intervention) -> Plan = Plan::intervene;
    let _: fn(Plan, [Site; 2], Intervention) -> Plan = Plan::intervene;
    let _: fn(Plan, Attention) -> Plan = Plan::attention;
    let _: fn(Plan, Metric) -> Plan = Plan::gradients;
    let _: fn(Plan) -> Plan = Plan::differentiable;
    let _: fn(&Cache, Site) -> Result<Tensor> = Cache::get;
    let _: fn(&Cache, Point) -> Result<Tensor> = Cache::stack;
    let _: fn(&Cache, &'static str) -> Result<()> = Cache::save;
    let _: fn(&'static str) -> Result<Cache> = Cache::open;
    let _: fn(i64, Vec<i64>) -> Metric = Metric::logit_diff;
    let _: fn(&'static [i64], &'static [Vec<i64>]) -> Metric = Metric::logit_diff;
    let _: fn(&str, Function) -> Metric = Metric::custom;
    let _: fn(&str, Function) -> Intervention = Intervention::custom;
    let _: fn(&Tensor, f64) -> Intervention = Intervention::add;
    let _: fn(&Cache, &[usize]) -> Intervention = Intervention::resample;
    let _: fn(Point, usize) -> Site = Point::at;
    let _: fn(&Grid) -> Result<Figure> = heatmap;
    let _: fn(&Grid) -> Result<Figure> = lines;
    let _: fn(&Grid) -> Result<Figure> = bars;
    let _: fn(Figure, &str) -> Figure = Figure::title;
    let _: fn(&[Figure]) -> Figure = Figure::row;
    let _: fn(&[Figure]) -> Figure = Figure::column;
    let _: fn(&Figure, &'static str) -> Result<()> = Figure::save;
    let _: fn(&Model, &Cache, i64) -> Result<Grid> = logit_lens;
    type OfPair = fn(&Model, &Tokens, &Tokens, Point, &[Axis], &Metric) -> Result<Grid>;
    let _: OfPair = patching;
    let _: fn(&Model, &Tokens, &[Plan], &Metric) -> Result<Sweep> = Model::sweep;
    let _: fn(&Model, &Tokens, usize, &Plan) -> Result<Generated> = Model::generate;
    let _: fn(&Model, &Tokens, Sampling, &Plan) -> Result<Generated> = Model::generate;
}

#[test]
fn a_grid_shows_its_values_axes_and_unit() {
    fn parts(grid: Grid) -> (ArrayD<f64>, Vec<GridAxis>, String) {
        (grid.values, grid.axes, grid.unit)
    }
    let grid = Grid::from_array(ArrayD::zeros(vec![2]), &[Axis::Pos], "nats").unwrap();
    assert_eq!(parts(grid).2, "nats");
}

#[test]
fn what_a_notebook_keeps_can_be_cloned_sent_to_a_thread_and_printed() {
    fn kept<T: Clone + Send + std::fmt::Debug + 'static>() {}
    kept::<Model>();
    kept::<Tokens>();
    kept::<Plan>();
    kept::<Intervention>();
    kept::<Metric>();
    kept::<Answers>();
    kept::<Position>();
    kept::<Run>();
    kept::<Sweep>();
    kept::<Generated>();
    kept::<Sampling>();
    kept::<Cache>();
    kept::<Grid>();
    kept::<Figure>();
    kept::<Config>();
    kept::<thalweg::Estimates>();
    kept::<thalweg::Comparison>();
    kept::<thalweg::AblationStudy>();
    kept::<thalweg::Component>();
    kept::<thalweg::Correlate>();
    kept::<thalweg::KnockOut>();
    kept::<thalweg::Correlations>();
    kept::<thalweg::Integrated>();
    kept::<thalweg::Edges>();
}

#[test]
fn a_clone_runs_in_another_thread_and_gives_the_same_logits() {
    let model = model();
    let tokens = Tokens::from_ids(&[vec![3, 1, 4, 1, 5]]).unwrap();
    let here = model.logits(&tokens).unwrap();
    let (clone, same) = (model.clone(), tokens.clone());
    let there = std::thread::spawn(move || clone.logits(&same).unwrap()).join().unwrap();
    assert!(crate::support::same(&here, &there));
}

#[test]
fn debug_is_one_line_without_a_single_weight() {
    let model = model();
    let tokens = Tokens::from_ids(&[vec![3, 1, 4], vec![1]]).unwrap();
    let label = "two\nlines";
    let plan = Plan::new()
        .cache(Sites::everything())
        .intervene(Point::Z, Intervention::custom(label, |x| Ok(x.shallow_clone())).head(0))
        .gradients(Metric::custom(label, |x| Ok(x.select(1, 0))));
    let run = model.run(&tokens, &plan).unwrap();
    let grid = Grid::from_array(ArrayD::zeros(vec![2]), &[Axis::Pos], "nats").unwrap();
    let lines = [
        format!("{model:?}"),
        format!("{tokens:?}"),
        format!("{plan:?}"),
        format!("{run:?}"),
        format!("{:?}", run.cache),
        format!("{grid:?}"),
        format!("{:?}", Metric::kl(&run.logits.select(1, -1))),
        format!("{:?}", Intervention::patch(&run.cache)),
        format!("{:?}", lines(&grid).unwrap()),
    ];
    for line in lines {
        assert!(!line.contains('\n') && !line.is_empty() && line.len() < 2000, "{line}");
    }
    assert_eq!(
        format!("{model:?}"),
        "Model parts: Llama, 2 layers, d_model 12, 4 heads of 6 (2 key/value), d_mlp 20, vocab 23, context 32, Double on Cpu"
    );
}

/// What a cell types, with nothing but the prelude.
mod cell {
    use thalweg::anyhow::Result;
    use thalweg::prelude::*;

    #[test]
    fn the_first_cells_of_a_notebook_need_the_prelude_alone() -> Result<()> {
        let model = Model::load(concat!(env!("CARGO_MANIFEST_DIR"), "/data/golden/gqa-llama3"))?;
        let tokens = model.tokens("the cat sat on the mat")?;
        let plan = Plan::new().cache(Point::ResidPost).cache(Point::Pattern);
        let run = model.run(&tokens, &plan)?;
        let figure = heatmap(&logit_lens(&model, &run.cache, model.token("cat")?)?)?;
        assert!(format!("{figure:?}").contains("Layer"), "{figure:?}");
        Ok(())
    }
}
