//! Where each plan of a sweep begins to matter, and which plans go side by side.

use anyhow::Result;

use super::Asked;
use super::batch::Base;
use crate::hook::cache::Cache;
use crate::hook::edit::{Edit, Setting};
use crate::hook::plan::exists;
use crate::hook::program::Program;
use crate::hook::site::Site;

/// A plan that can share a batch.
#[derive(Debug)]
pub(super) struct Cell {
    /// Which plan.
    pub(super) index: usize,
    pub(super) edits: Vec<Edit>,
    /// The first block it touches; as many as there are: what comes after the blocks.
    pub(super) layer: usize,
    /// The first column it touches.
    pub(super) column: i64,
    /// Whether it looks at every position up to the end.
    pub(super) whole: bool,
}

/// Where a plan begins to matter.
#[derive(Debug)]
pub(super) enum Start {
    /// A user's function may look at everything, and what is frozen at another run's values changes
    /// it everywhere: the plan runs alone, whole.
    Alone,
    /// It changes nothing that the metric sees.
    Nowhere,
    At {
        layer: usize,
        column: i64,
        whole: bool,
    },
}

pub(super) fn start(program: &Program, setting: Setting, asked: &Asked) -> Result<Start> {
    if program.holds_values() || program.edits.iter().any(Edit::is_custom) {
        return Ok(Start::Alone);
    }
    let column = first_column(&program.edits, setting, None)?;
    if column > asked.last(setting.tokens.width() as i64) {
        return Ok(Start::Nowhere);
    }
    let layers = program.edits.iter().map(|edit| match edit.site {
        Site::Embed => 0,
        Site::Block(layer, _) => layer,
        _ => setting.config.n_layers,
    });
    let layer = layers.min().unwrap_or(setting.config.n_layers);
    let whole = program.edits.iter().any(Edit::sees_all_positions);
    Ok(Start::At { layer, column, whole })
}

/// The first column that edits name or, told what the unedited run holds at [`looked_at`], the first
/// that they change: another run's values are often the same up to where the prompts differ.
pub(super) fn first_column(
    edits: &[Edit],
    setting: Setting,
    unedited: Option<&Cache>,
) -> Result<i64> {
    let exists = exists(setting.tokens, setting.device);
    let mut first = i64::MAX;
    for edit in edits {
        let own = unedited.filter(|cache| looked_at(edit) && cache.contains(edit.site));
        let own = own.map(|cache| cache.get(edit.site)).transpose()?;
        first = first.min(edit.first_column(&exists, own.as_ref())?);
    }
    Ok(first)
}

/// Whether it is worth knowing what the unedited run holds at an edit's site.
pub(super) fn looked_at(edit: &Edit) -> bool {
    let computed = match edit.site {
        Site::Embed => true,
        Site::Block(_, point) => !point.only_when_named(),
        _ => false,
    };
    computed && edit.has_columns()
}

/// Plans that run side by side.
#[derive(Debug)]
pub(super) struct Batch {
    /// In the order of their layers.
    pub(super) cells: Vec<Cell>,
    /// The first of their columns.
    pub(super) column: i64,
    /// How many positions go on to the logits.
    pub(super) asked: i64,
}

/// What a pass through a block costs beside its rows' own work, counted in columns that a row's
/// attention looks from in vain: the weights come from memory whatever is done with them.
const PASS: i64 = 100;

/// Rows of one position that make a product efficient; more in a batch gain nothing.
const ENOUGH: i64 = 2048;

/// Plans with neighbouring first columns go together where a pass saved is worth the attention
/// computed in vain, which sees all rows from the first of these columns on; then each group is cut,
/// by layer, to what fits.
pub(super) fn batches(mut cells: Vec<Cell>, base: &Base) -> Vec<Batch> {
    let layers = base.n_layers() as i64;
    cells.sort_by_key(|cell| (cell.whole, std::cmp::Reverse(cell.column), cell.layer));
    let mut groups: Vec<Vec<Cell>> = Vec::new();
    let (mut work, mut column) = (0, 0); // of one more column of the last group, in rows times blocks
    for cell in cells {
        let blocks = layers - cell.layer as i64;
        let added = blocks * base.rows();
        let in_vain = work * (column - cell.column);
        column = cell.column;
        match groups.last_mut() {
            Some(group) if group[0].whole == cell.whole && in_vain <= PASS * blocks => {
                work += added;
                group.push(cell);
            }
            _ => {
                work = added;
                groups.push(vec![cell]);
            }
        }
    }
    groups.into_iter().flat_map(|group| cut(group, base)).collect()
}

/// Parts of a group of about equal size that each fit the memory.
fn cut(mut group: Vec<Cell>, base: &Base) -> Vec<Batch> {
    group.sort_by_key(|cell| cell.layer);
    let positions = |cells: &[Cell]| -> i64 {
        cells.iter().map(|cell| (base.width() - cell.column) * base.rows()).sum()
    };
    let whole = group[0].whole;
    let first = |cells: &[Cell]| cells.iter().map(|cell| cell.column).min().unwrap_or(0);
    let asked = |column| if whole { base.width() - column } else { base.asked_from(column) };
    let column = first(&group);
    let most = base.fitting(column, asked(column)).max(1);
    let parts = group.len().div_ceil(most).max((positions(&group) / ENOUGH) as usize);
    let size = group.len().div_ceil(parts.max(1));
    let mut rest = group.into_iter();
    let mut cut = Vec::new();
    loop {
        let cells: Vec<Cell> = rest.by_ref().take(size).collect();
        if cells.is_empty() {
            return cut;
        }
        let column = first(&cells);
        cut.push(Batch { cells, column, asked: asked(column) });
    }
}
