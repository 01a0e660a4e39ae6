//! Where an activation lives: one table gives each place its name, its axes and its meaning.
//!
//! Names, shapes and values are those of TransformerLens' `HookedTransformer` (3.5.1), so that a
//! name means here what it means there. The order of [`Point::ALL`] is the order of execution.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail};

/// What an axis of an activation, or of a [`Grid`](crate::Grid), means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Axis {
    /// Blocks of the model, 0 first.
    Layer,
    /// Blocks of a second model, where layers are compared with layers.
    OtherLayer,
    /// Prompts of one call.
    Batch,
    /// Token positions.
    Pos,
    /// Positions that attend.
    Query,
    /// Positions that are attended to.
    Key,
    /// Query heads.
    Head,
    /// Key/value heads; under grouped-query attention fewer than query heads.
    KvHead,
    /// The residual stream's dimensions.
    DModel,
    /// A head's dimensions.
    DHead,
    /// Neurons of the MLP.
    DMlp,
    /// Token ids.
    Vocab,
    /// The single entry of a norm's scale.
    Scale,
    /// Parts that add up to a whole: embedding, heads, MLPs, biases.
    Component,
    /// Interventions of a sweep, one plan each.
    Plan,
    /// What an edge begins at: a component that writes to the residual stream.
    Writer,
    /// What an edge ends at: a place at which a component reads the stream.
    Reader,
    /// Principal components, most variance first.
    Pc,
    /// Features: latents of a dictionary, directions, columns of any other matrix.
    Feature,
    /// Groups that a clustering found.
    Cluster,
    /// Places in an order, the best first: the k-th most likely token, the k-th singular value.
    Rank,
    /// Waves on a circle of numbers, by how often they go up and down in a turn.
    Frequency,
    /// How many of an ordered list are taken: heads left out, tokens taken away.
    Count,
    /// Values of something that is varied: a strength, a circuit's size, a training step.
    Step,
    /// Things listed side by side that have no other name: metrics, prompts, series.
    Series,
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A place inside every block, in execution order. `Point::Pattern.at(5)` is that place in block 5.
///
/// `QInput`, `KInput`, `VInput`, `MlpIn` and `HeadResult` are computed only when a plan names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Point {
    /// The residual stream entering the block.
    ResidPre,
    /// What each query head reads: a copy of the stream per head, before the norm.
    QInput,
    /// What each key head reads, before the norm.
    KInput,
    /// What each value head reads, before the norm.
    VInput,
    /// Denominator of the first norm: `sqrt(mean(x²) + eps)`.
    Ln1Scale,
    /// `x / scale`, before the norm's weight.
    Ln1Normalized,
    /// Queries before RoPE.
    Q,
    /// Keys before RoPE.
    K,
    /// Values.
    V,
    /// Queries after RoPE.
    RotQ,
    /// Keys after RoPE.
    RotK,
    /// `q · k / sqrt(d_head)` after the causal mask: -inf where a query may not look.
    Scores,
    /// Softmax of the scores over keys.
    Pattern,
    /// Values mixed by the pattern, per query head.
    Z,
    /// What each head writes to the stream: `z W_O`, without the bias.
    HeadResult,
    /// What attention writes to the stream.
    AttnOut,
    /// The residual stream between attention and MLP.
    ResidMid,
    /// What the MLP reads: a copy of the stream, before the norm.
    MlpIn,
    /// Denominator of the second norm.
    Ln2Scale,
    /// `x / scale` of the second norm, before its weight.
    Ln2Normalized,
    /// Gate before SiLU.
    MlpPre,
    /// The linear branch ("up").
    MlpPreLinear,
    /// `silu(gate) * up`: the neurons' activations.
    MlpPost,
    /// What the MLP writes to the stream.
    MlpOut,
    /// The residual stream leaving the block.
    ResidPost,
}

use Axis::*;
const STREAM: &[Axis] = &[Batch, Pos, DModel];
const SCALE: &[Axis] = &[Batch, Pos, Scale];
const QUERY_HEADS: &[Axis] = &[Batch, Pos, Head, DHead];
const KV_HEADS: &[Axis] = &[Batch, Pos, KvHead, DHead];
const ATTENTION: &[Axis] = &[Batch, Head, Query, Key];
const NEURONS: &[Axis] = &[Batch, Pos, DMlp];
const PER_HEAD: &[Axis] = &[Batch, Pos, Head, DModel];
const PER_KV_HEAD: &[Axis] = &[Batch, Pos, KvHead, DModel];

/// One row a point, in execution order: the point, its TransformerLens name, its axes.
const TABLE: &[(Point, &str, &[Axis])] = &[
    (Point::ResidPre, "hook_resid_pre", STREAM),
    (Point::QInput, "hook_q_input", PER_HEAD),
    (Point::KInput, "hook_k_input", PER_KV_HEAD),
    (Point::VInput, "hook_v_input", PER_KV_HEAD),
    (Point::Ln1Scale, "ln1.hook_scale", SCALE),
    (Point::Ln1Normalized, "ln1.hook_normalized", STREAM),
    (Point::Q, "attn.hook_q", QUERY_HEADS),
    (Point::K, "attn.hook_k", KV_HEADS),
    (Point::V, "attn.hook_v", KV_HEADS),
    (Point::RotQ, "attn.hook_rot_q", QUERY_HEADS),
    (Point::RotK, "attn.hook_rot_k", KV_HEADS),
    (Point::Scores, "attn.hook_attn_scores", ATTENTION),
    (Point::Pattern, "attn.hook_pattern", ATTENTION),
    (Point::Z, "attn.hook_z", QUERY_HEADS),
    (Point::HeadResult, "attn.hook_result", PER_HEAD),
    (Point::AttnOut, "hook_attn_out", STREAM),
    (Point::ResidMid, "hook_resid_mid", STREAM),
    (Point::MlpIn, "hook_mlp_in", STREAM),
    (Point::Ln2Scale, "ln2.hook_scale", SCALE),
    (Point::Ln2Normalized, "ln2.hook_normalized", STREAM),
    (Point::MlpPre, "mlp.hook_pre", NEURONS),
    (Point::MlpPreLinear, "mlp.hook_pre_linear", NEURONS),
    (Point::MlpPost, "mlp.hook_post", NEURONS),
    (Point::MlpOut, "hook_mlp_out", STREAM),
    (Point::ResidPost, "hook_resid_post", STREAM),
];

impl Point {
    /// Every point, in execution order.
    pub const ALL: [Point; 25] = {
        let mut all = [Point::ResidPre; 25];
        let mut i = 0;
        while i < 25 {
            all[i] = TABLE[i].0;
            i += 1;
        }
        all
    };

    /// This place in block `layer`: `Point::Pattern.at(5)` is `blocks.5.attn.hook_pattern`.
    pub fn at(self, layer: usize) -> Site {
        Site::Block(layer, self)
    }

    /// Meaning of each axis, outermost first.
    ///
    /// ```
    /// use thalweg::{Axis, Point};
    /// assert_eq!(Point::Z.axes(), [Axis::Batch, Axis::Pos, Axis::Head, Axis::DHead]);
    /// ```
    pub fn axes(self) -> &'static [Axis] {
        TABLE[self as usize].2
    }

    /// The TransformerLens name inside a block, such as `attn.hook_pattern`.
    pub fn name(self) -> &'static str {
        TABLE[self as usize].1
    }

    /// True for the points that are computed only when a plan names them.
    pub fn only_when_named(self) -> bool {
        use Point::*;
        matches!(self, QInput | KInput | VInput | MlpIn | HeadResult)
    }
}

/// A place in the whole forward pass.
///
/// `Display` writes TransformerLens' name and `FromStr` reads it back; a name that does not exist
/// is an error that offers the nearest one.
///
/// ```
/// use thalweg::{Point, Site};
/// let site: Site = "blocks.5.attn.hook_pattern".parse().unwrap();
/// assert_eq!(site, Point::Pattern.at(5));
/// assert_eq!(site.to_string(), "blocks.5.attn.hook_pattern");
/// let error = "blocks.5.attn.hook_patern".parse::<Site>().unwrap_err().to_string();
/// assert!(error.contains("did you mean blocks.5.attn.hook_pattern?"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Site {
    /// Token embeddings.
    Embed,
    /// A point of a block.
    Block(usize, Point),
    /// Denominator of the final norm.
    FinalScale,
    /// `x / scale` of the final norm, before its weight.
    FinalNormalized,
    /// The model's output.
    Logits,
}

const OUTSIDE: &[(Site, &str, &[Axis])] = &[
    (Site::Embed, "hook_embed", STREAM),
    (Site::FinalScale, "ln_final.hook_scale", SCALE),
    (Site::FinalNormalized, "ln_final.hook_normalized", STREAM),
    (Site::Logits, "unembed.hook_out", &[Batch, Pos, Vocab]),
];

impl Site {
    /// Meaning of each axis, outermost first.
    pub fn axes(self) -> &'static [Axis] {
        match self {
            Site::Block(_, point) => point.axes(),
            other => OUTSIDE.iter().find(|row| row.0 == other).map_or(STREAM, |row| row.2),
        }
    }

    /// The block this site lies in, if it lies in one.
    pub fn layer(self) -> Option<usize> {
        match self {
            Site::Block(layer, _) => Some(layer),
            _ => None,
        }
    }

    /// The point of the block, if the site lies in one.
    pub fn point(self) -> Option<Point> {
        match self {
            Site::Block(_, point) => Some(point),
            _ => None,
        }
    }

    /// Every site of a model with `n_layers` blocks, in execution order.
    pub fn all(n_layers: usize) -> Vec<Site> {
        let blocks = (0..n_layers).flat_map(|layer| Point::ALL.map(|point| point.at(layer)));
        std::iter::once(Site::Embed)
            .chain(blocks)
            .chain([Site::FinalScale, Site::FinalNormalized, Site::Logits])
            .collect()
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Site::Block(layer, point) => write!(f, "blocks.{layer}.{}", point.name()),
            other => {
                let row = OUTSIDE.iter().find(|row| row.0 == *other);
                f.write_str(row.map_or("", |row| row.1))
            }
        }
    }
}

impl FromStr for Site {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(row) = OUTSIDE.iter().find(|row| row.1 == text) {
            return Ok(row.0);
        }
        // A wrong name is compared within its own block, so that the offer keeps the layer.
        let layer = text
            .strip_prefix("blocks.")
            .and_then(|rest| rest.split('.').next())
            .and_then(|number| number.parse::<usize>().ok());
        let in_block = Point::ALL.map(|point| point.at(layer.unwrap_or(0)));
        let known = in_block.into_iter().chain(OUTSIDE.iter().map(|row| row.0));
        let nearest = known.map(|site| (distance(text, &site.to_string()), site)).min();
        match nearest {
            Some((0, site)) if layer.is_some() => Ok(site),
            Some((_, site)) => bail!("no site {text:?}: did you mean {site}?"),
            None => bail!("no site {text:?}"),
        }
    }
}

/// Edit distance (Levenshtein), for "did you mean".
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
