//! Figures that are no charts: coloured text, the attention viewer, a graph. Each writes its own SVG
//! and its own HTML.

use anyhow::Result;

use super::graph::Graph;
use super::scene::Picture;
use super::style::Style;
use super::{Content, Figure, examples, graph_svg, predictions, tokens, viewer};
use crate::grid::Grid;

/// One drawing and its settings.
#[derive(Clone)]
pub(super) struct Drawing {
    pub(super) what: What,
    pub(super) style: Style,
}

/// What is drawn.
#[derive(Clone)]
pub(super) enum What {
    Tokens(Grid),
    Predictions(Vec<predictions::Prediction>),
    Examples(Vec<examples::Example>),
    Attention(Grid),
    Graph(Box<Graph>),
}

impl Figure {
    /// A drawing, after every check that does not depend on later settings.
    pub(super) fn drawing(what: What) -> Figure {
        let drawing = Drawing { what, style: Style::default() };
        Figure { content: Content::Drawing(Box::new(drawing)), forced: false }
    }

    /// The unit of the activations in [`examples`](super::examples()). Figures of a grid have its unit.
    pub fn unit(self, unit: &str) -> Result<Figure> {
        match &self.content {
            Content::Drawing(drawing) if matches!(drawing.what, What::Examples(_)) => {
                Ok(self.styled(|style| style.unit = Some(unit.to_string())))
            }
            _ => anyhow::bail!("the unit of {self:?} is its grid's: set it there"),
        }
    }
}

impl Drawing {
    pub(super) fn picture(&self) -> Picture {
        match &self.what {
            What::Tokens(grid) => tokens::sheet(grid, &self.style).picture(),
            What::Predictions(all) => predictions::sheet(all, &self.style).picture(),
            What::Examples(all) => examples::sheet(all, &self.style).picture(),
            What::Attention(grid) => viewer::picture(self, grid),
            What::Graph(graph) => graph_svg::picture(graph, &self.style),
        }
    }

    pub(super) fn summary(&self) -> String {
        match &self.what {
            What::Tokens(grid) => tokens::sheet(grid, &self.style).summary,
            What::Predictions(all) => predictions::sheet(all, &self.style).summary,
            What::Examples(all) => examples::sheet(all, &self.style).summary,
            What::Attention(grid) => viewer::summary(grid, &self.style),
            What::Graph(graph) => graph_svg::summary(graph, &self.style),
        }
    }

    /// Numbers that are drawn.
    pub(super) fn cells(&self) -> usize {
        match &self.what {
            What::Tokens(grid) | What::Attention(grid) => grid.values.len(),
            What::Predictions(all) => all.iter().map(|one| 1 + one.top.len()).sum(),
            What::Examples(all) => all.iter().map(|one| one.values.len()).sum(),
            What::Graph(graph) => graph.links.len(),
        }
    }

    pub(super) fn grids(&self) -> Vec<&Grid> {
        match &self.what {
            What::Tokens(grid) | What::Attention(grid) => vec![grid],
            What::Graph(graph) => graph.grid.iter().collect(),
            What::Predictions(_) | What::Examples(_) => Vec::new(),
        }
    }
}
