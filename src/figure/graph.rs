//! Circuits as graphs: components in rows from the embedding up to the logits, links between them.

use anyhow::{Result, ensure};

use super::drawing::What;
use super::{Figure, text};
use crate::grid::Grid;
use crate::hook::site::Axis;

/// Most links kept, the heaviest.
const MAX_LINKS: usize = 300;

/// Something in a graph, at a place.
#[derive(Debug, Clone, PartialEq)]
pub struct GraphNode {
    /// Its name, written into it.
    pub name: String,
    /// Its row, counted from the bottom; rows without nodes take no room.
    pub row: usize,
    /// Its order within the row, from the left: a head, a position. `usize::MAX` stands right of every
    /// row, out of the way of links that pass.
    pub column: usize,
}

/// A link upwards from one node to another.
#[derive(Debug, Clone, PartialEq)]
pub struct GraphLink {
    /// Index of the node it leaves.
    pub from: usize,
    /// Index of the node it enters, in a higher row.
    pub to: usize,
    /// Its weight: blue above zero, red below, the wider the larger.
    pub weight: f64,
    /// What of the node it enters: `q`, `k`, `v`; may be empty.
    pub port: String,
}

/// A graph ready to be drawn: links heaviest first.
#[derive(Debug, Clone)]
pub(super) struct Graph {
    pub(super) name: String,
    pub(super) unit: String,
    pub(super) nodes: Vec<GraphNode>,
    pub(super) links: Vec<GraphLink>,
    /// Nodes that belong together: key/value heads and the heads that use them.
    pub(super) ties: Vec<(usize, usize)>,
    /// How many links the graph left out.
    pub(super) left_out: usize,
    pub(super) grid: Option<Grid>,
}

/// A graph of links between things in rows: layers by positions, layers by components. The heaviest 300
/// links are kept; a slider says how many are seen, where scripts run. `weights` names their unit.
///
/// ```
/// use thalweg::{GraphLink, GraphNode, graph};
/// let node = |name: &str, row| GraphNode { name: name.into(), row, column: 0 };
/// let link = GraphLink { from: 0, to: 1, weight: 0.7, port: String::new() };
/// let figure = graph(&[node("L0@3", 0), node("L1@3", 1)], &[link], "attention")?;
/// assert!(figure.bundle()?.svg.contains("L0@3 → L1@3: 0.7 attention"));
/// # thalweg::anyhow::Ok(())
/// ```
pub fn graph(nodes: &[GraphNode], links: &[GraphLink], weights: &str) -> Result<Figure> {
    for (i, link) in links.iter().enumerate() {
        let (from, to) = (nodes.get(link.from), nodes.get(link.to));
        let (Some(from), Some(to)) = (from, to) else {
            anyhow::bail!("link {i} joins nodes {} and {} of {}", link.from, link.to, nodes.len())
        };
        ensure!(
            from.row < to.row,
            "link {i} from {:?} to {:?} does not run upwards: rows {} and {}",
            from.name,
            to.name,
            from.row,
            to.row
        );
        ensure!(link.weight.is_finite(), "link {i} has weight {}", link.weight);
    }
    ensure!(!links.is_empty(), "nothing to draw: no link was given");
    let mut links = links.to_vec();
    links.sort_by(|a, b| b.weight.abs().total_cmp(&a.weight.abs()));
    let left_out = links.len().saturating_sub(MAX_LINKS);
    links.truncate(MAX_LINKS);
    let graph = Graph {
        name: String::new(),
        unit: weights.to_string(),
        nodes: nodes.to_vec(),
        links,
        ties: Vec::new(),
        left_out,
        grid: None,
    };
    Ok(Figure::drawing(What::Graph(Box::new(graph))))
}

/// The graph of a circuit: a grid `[Writer, Reader]` of edge scores, as edge attribution and path
/// patching return it. Components are named `embed`, `L0H3`, `L0 mlp`, what they read `L1H3 q`, `L1G0 k`,
/// `L1 mlp`, `logits`. Links of score zero and cells that do not exist are not drawn.
///
/// ```
/// use thalweg::{Axis, Grid, circuit, ndarray::array};
/// let grid = Grid::from_array(array![[0.4, 0.0], [0.0, -1.5]], &[Axis::Writer, Axis::Reader], "nats")?;
/// let grid = grid.relabel(Axis::Writer, &["embed", "L0H1"])?.relabel(Axis::Reader, &["L0H1 q", "logits"])?;
/// assert!(circuit(&grid)?.bundle()?.svg.contains("L0H1 → logits: -1.5 nats"));
/// # anyhow::Ok(())
/// ```
pub fn circuit(grid: &Grid) -> Result<Figure> {
    grid.check()?;
    super::finite(grid)?;
    let grid = grid.transpose(&[Axis::Writer, Axis::Reader])?;
    let (writers, readers) = (grid.labels(Axis::Writer)?, grid.labels(Axis::Reader)?);
    let shared = shared_keys(writers, readers);
    let mut nodes: Vec<GraphNode> = Vec::new();
    let mut index = |label: &str| -> Result<usize> {
        let node = node(label, shared)?;
        let known = nodes.iter().position(|other| other.name == node.name);
        Ok(known.unwrap_or_else(|| {
            nodes.push(node);
            nodes.len() - 1
        }))
    };
    let mut links = Vec::new();
    for (at, weight) in grid.present().filter(|(_, weight)| *weight != 0.0) {
        let (from, to) = (&writers[at[0]], &readers[at[1]]);
        let port = to.rsplit_once(' ').map_or("", |(_, port)| port);
        let port = if port == "mlp" { "" } else { port };
        links.push(GraphLink {
            from: index(from)?,
            to: index(to)?,
            weight,
            port: port.to_string(),
        });
    }
    let ties = ties(&nodes, writers, shared);
    let figure = graph(&nodes, &links, &grid.unit)?;
    let (name, grid) = (grid.name.clone(), grid.clone());
    Ok(figure.with_graph(|graph| {
        graph.name = name.clone();
        graph.ties = ties.clone();
        graph.grid = Some(grid.clone());
    }))
}

impl Figure {
    fn with_graph(mut self, change: impl Fn(&mut Graph)) -> Figure {
        if let super::Content::Drawing(drawing) = &mut self.content
            && let What::Graph(graph) = &mut drawing.what
        {
            change(graph);
        }
        self
    }
}

/// Largest number that a label may hold.
const LARGEST: usize = 1 << 20;

fn number(text: &str) -> Option<usize> {
    text.parse().ok().filter(|number| *number <= LARGEST)
}

/// Layer and number of `L3H2` or `L3G1`.
fn numbered(name: &str, letter: char) -> Option<(usize, usize)> {
    let (layer, own) = name.strip_prefix('L')?.split_once(letter)?;
    Some((number(layer)?, number(own)?))
}

/// Heads that share a key/value head; 1 if each has its own.
fn shared_keys(writers: &[String], readers: &[String]) -> usize {
    let base = |label: &String| label.split(' ').next().unwrap_or_default().to_string();
    let most = |labels: &[String], letter| {
        labels.iter().filter_map(|label| numbered(&base(label), letter)).map(|(_, n)| n + 1).max()
    };
    let heads = most(writers, 'H').max(most(readers, 'H')).unwrap_or(1);
    let groups = most(readers, 'G').unwrap_or(heads);
    (heads / groups.max(1)).max(1)
}

/// The node that a label stands for. Within a layer: key/value heads, heads, MLP.
fn node(label: &str, shared: usize) -> Result<GraphNode> {
    let name = match label.rsplit_once(' ') {
        Some((name, "q" | "k" | "v")) => name,
        _ => label,
    };
    let at = |name: &str, row, column| GraphNode { name: name.to_string(), row, column };
    if let Some((layer, head)) = numbered(name, 'H') {
        return Ok(at(name, 3 * layer + 2, head));
    }
    if let Some((layer, group)) = numbered(name, 'G') {
        return Ok(match shared {
            1 => at(&format!("L{layer}H{group}"), 3 * layer + 2, group),
            _ => at(name, 3 * layer + 1, group),
        });
    }
    let mlp = name.strip_suffix(" mlp").and_then(|layer| number(layer.strip_prefix('L')?));
    match (name, mlp) {
        ("embed", _) => Ok(at(name, 0, 0)),
        ("logits", _) => Ok(at(name, usize::MAX, 0)),
        (_, Some(layer)) => Ok(at(name, 3 * layer + 3, usize::MAX)),
        _ => anyhow::bail!(
            "{:?} is no component of a circuit: expected embed, L0H3, L0 mlp, L1H3 q, L1G0 k, L1G0 v or logits",
            text::visible(label)
        ),
    }
}

/// Key/value heads with the heads that use them, of those that are drawn.
fn ties(nodes: &[GraphNode], writers: &[String], shared: usize) -> Vec<(usize, usize)> {
    let mut ties = Vec::new();
    for (g, (layer, group)) in
        nodes.iter().enumerate().filter_map(|(i, node)| Some((i, numbered(&node.name, 'G')?)))
    {
        for head in group * shared..(group + 1) * shared {
            let name = format!("L{layer}H{head}");
            let found = nodes.iter().position(|node| node.name == name);
            if let Some(h) = found.filter(|_| writers.contains(&name)) {
                ties.push((g, h));
            }
        }
    }
    ties
}
