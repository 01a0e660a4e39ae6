//! Circuits by leaving out edges one after the other.
//!
//! Conmy et al. 2023, "Towards Automated Circuit Discovery for Mechanistic Interpretability" (ACDC),
//! <https://arxiv.org/abs/2304.14997>: from the logits backwards, each edge is cut in turn and stays cut
//! unless that takes the run further from the whole model's than a threshold.

use anyhow::{Result, ensure};

use super::circuit::Circuit;
use super::edge_patching::EdgePatching;
use crate::hook::metric::Metric;
use crate::show::progress;

impl EdgePatching {
    /// The circuit that ACDC leaves: from the logits backwards, an edge is cut for good if that
    /// moves the circuit away from the whole model by less than `threshold`, in the metric's unit:
    /// how far a circuit is away is `|m(C) - m(full)|`, the mean over prompts. With
    /// `Metric::kl(&logits)` of the whole model it is the paper's KL divergence. Edges that dangle are
    /// left out. One run an edge: exact, and as slow as that.
    ///
    /// ```no_run
    /// use thalweg::{EdgePatching, Metric, Model};
    /// let model = Model::load("data/models/tiny-world")?;
    /// let clean = model.tokens("When Mary and John went to the store , John gave a drink to")?;
    /// let corrupt = model.tokens("When Mary and John went to the store , Mary gave a drink to")?;
    /// let whole = model.logits(&clean)?.select(1, -1);
    /// let pair = EdgePatching::new(&model, &clean, &corrupt)?;
    /// let circuit = pair.acdc(&Metric::kl(&whole), 0.01)?; // nats
    /// assert!(circuit.len() < 1055);
    /// # thalweg::anyhow::Ok(())
    /// ```
    pub fn acdc(&self, metric: &Metric, threshold: f64) -> Result<Circuit> {
        ensure!(
            !threshold.is_nan(),
            "ACDC: the threshold is NaN, expected a number or an infinity"
        );
        let mut circuit = Circuit::full(self.model.config());
        let whole = self.values(&circuit, metric)?;
        let distance = |circuit: &Circuit| -> Result<f64> {
            let own = self.values(circuit, metric)?;
            let apart = own.iter().zip(&whole).map(|(own, whole)| (own - whole).abs());
            Ok(apart.sum::<f64>() / own.len() as f64)
        };
        let mut edges = circuit.edges();
        let place = |(from, to): &(_, _)| (circuit.graph.reader(*to), circuit.graph.writer(*from));
        edges.sort_by_key(|edge| std::cmp::Reverse(place(edge)));
        let mut now = 0.0;
        for edge in progress(edges, "ACDC").unit("edges") {
            let less = circuit.clone().without(&[edge])?;
            // An edge whose reader leads nowhere any more changes nothing: no run is needed.
            let apart = match less.pruned() == circuit.pruned() {
                true => now,
                false => distance(&less)?,
            };
            if apart - now < threshold {
                (circuit, now) = (less, apart);
            }
        }
        Ok(circuit.pruned())
    }
}
