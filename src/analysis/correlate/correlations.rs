//! What a correlation of grids gives: coefficients, intervals, and p values for so many cells.

use std::fmt;

use crate::grid::Grid;
use crate::show::{Content, Show, show_value};

/// Correlations of the cells of two grids over their common samples. All grids have the same axes: the
/// cells of the first, then those of the second.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct Correlations {
    /// The coefficients, with their 95 % bootstrap interval; a cell that is constant is missing.
    pub r: Grid,
    /// Two-sided p values of each cell by shuffles, 0..1: the share of orders in which the coefficient
    /// is as large.
    pub p: Grid,
    /// The control: each cell's coefficient in the mean over the shuffles, with the range of 95 % of
    /// them. What lies within it is what chance gives.
    pub shuffled: Grid,
    /// Of the p values, those of Benjamini and Hochberg.
    pub p_bh: Grid,
    /// Of the p values, those of Benjamini and Yekutieli.
    pub p_by: Grid,
    /// The chance that the largest coefficient of any cell is as large: the share of orders (Westfall
    /// and Young 1993). Knows how the cells depend on each other; holds the rate of any false find.
    pub p_max_t: Grid,
    /// Student's p values, which take all samples as independent: far too small where tokens of a prompt
    /// go together. Absent for distance correlation, which has none.
    pub p_student: Option<Grid>,
    /// Number of samples: tokens, or prompts.
    pub n: usize,
    /// Number of prompts that the intervals draw from: `n` where samples are independent.
    pub clusters: usize,
}

impl Correlations {
    /// Shows the table of coefficients in a notebook.
    pub fn evcxr_display(&self) {
        show_value(self);
    }

    /// The coefficients whose largest-of-all p value is below `level`, all others marked as missing.
    pub fn significant(&self, level: f64) -> Grid {
        let mut r = self.r.clone();
        let mut missing = self.p_max_t.values.mapv(|p| p.is_nan() || p >= level);
        if let Some(constant) = &self.r.missing {
            missing.zip_mut_with(constant, |gone, constant| *gone |= constant);
        }
        r.missing = Some(missing);
        r
    }
}

impl Show for Correlations {
    fn content(&self) -> Content {
        Content::text(format!("{self:?}")).with("text/html", self.r.to_html())
    }
}

/// One line: coefficient, cells and samples, how many cells are beyond chance, the strongest of all.
impl fmt::Debug for Correlations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cells = self.r.present().count();
        let of = match self.clusters == self.n {
            true => format!("{} samples", self.n),
            false => format!("{} samples of {} prompts", self.n, self.clusters),
        };
        write!(f, "{} of {cells} cells over {of}", self.r.unit)?;
        let found = self.p_max_t.existing().filter(|p| *p < 0.05).count();
        write!(f, "; {found} with p < 0.05 (max-T)")?;
        if let Some(best) = self.r.ranked().first() {
            write!(f, "; strongest {:.3}", best.value)?;
            if !best.index.is_empty() {
                write!(f, " at {}", self.r.cell_name(&best.index))?;
            }
        }
        Ok(())
    }
}
