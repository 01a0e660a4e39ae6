//! One axis in plotly's terms.

use std::collections::BTreeMap;

use serde::Serialize;

use super::colors::{FAINT, INK, SOFT, rgb};
use super::layout::{LABEL_SIZE, NAME_SIZE};
use super::scene::Ruler;
use super::text::plotly as shown;

#[derive(Serialize, Clone)]
pub(super) struct TextFont {
    pub(super) size: f64,
    pub(super) color: String,
}

/// One axis. Labelled axes are numeric, with the label as the tick's text and as the alias of the
/// number, so that a hover names every index while only some ticks are drawn.
#[derive(Serialize)]
pub(super) struct Axis {
    domain: [f64; 2],
    anchor: String,
    range: [f64; 2],
    title: AxisTitle,
    showticklabels: bool,
    tickfont: TextFont,
    tickangle: f64,
    ticks: &'static str,
    #[serde(flatten)]
    labelled: Option<Ticks>,
    showgrid: bool,
    gridcolor: String,
    zeroline: bool,
    zerolinecolor: String,
    showline: bool,
    linecolor: String,
    exponentformat: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    matches: Option<String>,
}

#[derive(Serialize)]
struct AxisTitle {
    text: String,
    font: TextFont,
    standoff: f64,
}

#[derive(Serialize)]
struct Ticks {
    tickmode: &'static str,
    tickvals: Vec<f64>,
    ticktext: Vec<String>,
    labelalias: BTreeMap<String, String>,
}

/// The axis of a ruler, over a share of the page.
pub(super) fn axis(
    ruler: &Ruler,
    domain: [f64; 2],
    anchor: String,
    matches: Option<String>,
) -> Axis {
    let labelled = !ruler.labels.is_empty();
    let labelled = labelled.then(|| Ticks {
        tickmode: "array",
        tickvals: ruler.ticks.iter().map(|(at, _)| *at).collect(),
        ticktext: ruler.ticks.iter().map(|(_, label)| shown(label)).collect(),
        labelalias: ruler
            .labels
            .iter()
            .enumerate()
            .map(|(i, label)| (i.to_string(), shown(label)))
            .collect(),
    });
    let size = if ruler.size > 0.0 { ruler.size } else { LABEL_SIZE };
    Axis {
        domain,
        anchor,
        range: [ruler.from, ruler.to],
        title: AxisTitle {
            text: shown(&ruler.title),
            font: TextFont { size: NAME_SIZE, color: rgb(INK) },
            standoff: 8.0,
        },
        showticklabels: ruler.size > 0.0,
        tickfont: TextFont { size, color: rgb(INK) },
        tickangle: ruler.angle,
        ticks: "",
        labelled,
        showgrid: ruler.lines,
        gridcolor: rgb(FAINT),
        zeroline: ruler.lines,
        zerolinecolor: rgb(SOFT),
        showline: ruler.line,
        linecolor: rgb(SOFT),
        exponentformat: "none",
        matches,
    }
}
