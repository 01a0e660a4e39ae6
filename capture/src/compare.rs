//! What a server shows beside what the same model computes here, layer by layer.

use anyhow::{Result, ensure};
use thalweg::tch::{Kind, Tensor};
use thalweg::{Model, Plan, Point, Remote, Site, Tokens};

/// How far a server's states lie from the local ones after a number of blocks.
#[derive(Debug, Clone)]
pub struct State {
    /// The embedding, or the stream after a block.
    pub site: Site,
    /// The largest difference at a token, as a share of the length of the local state there.
    pub worst: f64,
    /// The median over tokens.
    pub median: f64,
}

/// Every state that the server shows, over all tokens of `prompts`.
pub fn compare(remote: &Remote, model: &Model, prompts: &Tokens) -> Result<Vec<State>> {
    let (layers, width) = (model.config().n_layers, model.config().d_model);
    ensure!(
        (layers, width) == (remote.n_layers(), remote.d_model()),
        "the model here has {layers} layers of width {width}, {remote} has {} of width {}",
        remote.n_layers(),
        remote.d_model()
    );
    let sites = remote.states().iter().map(|state| match state {
        0 => Site::Embed,
        k => Point::ResidPost.at(k - 1),
    });
    let sites: Vec<Site> = sites.collect();
    let mut shares: Vec<Vec<f64>> = vec![Vec::new(); sites.len()];
    let plan = Plan::new().cache(sites.clone());
    let served = remote.run(prompts, &plan)?;
    for row in 0..prompts.batch() {
        let (here, there) = (model.run(&prompts.row(row)?, &plan)?.cache, served.row(row)?);
        for (site, shares) in sites.iter().zip(&mut shares) {
            shares.extend(share(&here.get(*site)?, &there.get(*site)?)?);
        }
    }
    let states = sites.into_iter().zip(shares).map(|(site, mut shares)| {
        shares.sort_by(f64::total_cmp);
        let worst = shares.last().copied().unwrap_or(f64::NAN);
        State { site, worst, median: shares.get(shares.len() / 2).copied().unwrap_or(f64::NAN) }
    });
    Ok(states.collect())
}

/// The difference at each token over the length of the local state, `[Pos]`.
fn share(here: &Tensor, there: &Tensor) -> Result<Vec<f64>> {
    let (here, there) = (here.to_kind(Kind::Double), there.to_device(here.device()));
    let length = |x: &Tensor| x.norm_scalaropt_dim(2.0, [-1i64].as_slice(), false);
    let share: Tensor = length(&(there.to_kind(Kind::Double) - &here)) / length(&here);
    Ok(Vec::<f64>::try_from(share.flatten(0, -1))?)
}

impl State {
    /// Whether rounding in `kind` explains the differences.
    pub fn within(&self, kind: Kind) -> bool {
        let (median, worst) = limits(kind);
        self.median <= median && self.worst <= worst
    }
}

/// The largest median and the largest difference at all that the rounding of a server's kind explains.
///
/// Seen on 4 layers: 5 and 40 times the last place in f32, 1.3 and 10 times in bf16, where sums are kept wider; more
/// layers add theirs up. A layer too early or too late differs by tenths at most tokens, another prompt by more.
pub fn limits(kind: Kind) -> (f64, f64) {
    match kind {
        Kind::Float => (16.0 * f64::from(f32::EPSILON), 160.0 * f64::from(f32::EPSILON)),
        Kind::Half => (8.0 / 1024.0, 40.0 / 1024.0),
        _ => (8.0 / 128.0, 40.0 / 128.0),
    }
}

/// Prompts of differing lengths up to `longest` that need no tokenizer: ids that wander over the vocabulary, some
/// prompts with a common beginning.
pub fn wandering(d_vocab: usize, longest: usize) -> Result<Tokens> {
    let longest = longest.clamp(1, 200);
    let id = |start: usize, at: usize| ((start * 7919 + at * at * 31 + at * 13) % d_vocab) as i64;
    let mut rows = Vec::new();
    for (start, len) in
        [1, 2, longest / 5, longest / 2, longest - 1, longest].into_iter().enumerate()
    {
        let row: Vec<i64> = (0..len.max(1)).map(|at| id(start, at)).collect();
        let mut branch = row.clone(); // the same but for its last third
        let from = branch.len() * 2 / 3;
        branch[from..].iter_mut().for_each(|id| *id = (*id + 1) % d_vocab as i64);
        rows.extend([row, branch]);
    }
    Tokens::from_ids(&rows)
}
