//! A graph as SVG, and as HTML with a slider for how many links are seen.

use std::fmt::Write as _;

use super::colors::{FAINT, INK, NEGATIVE, POSITIVE, SOFT, hex};
use super::graph::Graph;
use super::layout::{NOTE_SIZE, TITLE_SIZE};
use super::plotly_json::FONTS;
use super::scene::Picture;
use super::style::Style;
use super::svg::{PLAIN, Pen, Svg, px};
use super::text;
use crate::grid::number;
use crate::show::escape;

/// Links seen at first.
const SEEN: usize = 40;
const WIDTH: f64 = 860.0;
/// From row to row, and from node to node at most.
const ROW: f64 = 74.0;
const COLUMN: f64 = 96.0;
const NODE_HEIGHT: f64 = 22.0;

/// Shows as many links as the slider says, and the nodes that they join.
const SCRIPT: &str = r#"(function () {
  var root = document.currentScript.parentElement, box = root.querySelector("label");
  var input = box.querySelector("input"), told = box.querySelector("span");
  var parts = [].slice.call(root.querySelectorAll("[data-rank]"));
  function set() {
    var seen = +input.value;
    parts.forEach(function (part) { part.style.display = +part.dataset.rank < seen ? "" : "none"; });
    var last = root.querySelector("path[data-rank='" + (seen - 1) + "']");
    told.textContent = seen + " of " + input.max + " links, weight " + (last ? last.dataset.weight : "") + " or more";
  }
  input.addEventListener("input", set);
  box.style.display = "";
  set();
})();"#;

/// Where each node stands, and how heavy its heaviest link is by rank.
struct Placed {
    x: f64,
    y: f64,
    rank: usize,
}

pub(super) fn summary(graph: &Graph, style: &Style) -> String {
    let title = title(graph, style);
    let heaviest = graph
        .links
        .first()
        .map_or(String::new(), |link| format!(": heaviest {}", named(graph, link)));
    let nodes = graph.nodes.len();
    format!(
        "graph: {title} [{nodes} nodes, {} links] in {}{heaviest}",
        graph.links.len(),
        graph.unit
    )
}

fn title(graph: &Graph, style: &Style) -> String {
    text::visible_words(style.title.as_deref().unwrap_or(&graph.name))
}

/// `L0H1 → L1H2 q: 0.4 nats`.
fn named(graph: &Graph, link: &super::graph::GraphLink) -> String {
    let [from, to] = [link.from, link.to].map(|i| text::visible_words(&graph.nodes[i].name));
    let port = if link.port.is_empty() { String::new() } else { format!(" {}", link.port) };
    format!("{from} → {to}{port}: {} {}", number(link.weight), graph.unit)
}

pub(super) fn picture(graph: &Graph, style: &Style) -> Picture {
    let title = title(graph, style);
    let seen = graph.links.len().min(SEEN);
    let mut notes = style.notes_of(graph.grid.as_ref());
    if graph.left_out > 0 {
        notes.push(format!("the {} lightest links are left out", graph.left_out));
    }
    let summary = summary(graph, style);
    let top =
        14.0 + 20.0 * f64::from(u8::from(!title.is_empty())) + 16.0 * (notes.len() + 1) as f64;
    let (nodes, height) = places(graph, top, seen);
    let mut svg = Svg::default();
    svg.text(&title, 12.0, 19.0, Pen { size: TITLE_SIZE, ..PLAIN });
    let told = format!("the {seen} heaviest of {} links, which run upwards", graph.links.len());
    for (i, note) in notes.iter().chain([&told]).enumerate() {
        let y = top - 16.0 * (notes.len() - i) as f64 - 6.0;
        svg.text(note, 12.0, y, Pen { size: NOTE_SIZE, color: SOFT, ..PLAIN });
    }
    draw(&mut svg, graph, &nodes, seen, false);
    let html = html(graph, &title, &notes, &summary, seen);
    Picture { width: WIDTH, height, svg: svg.0, html, summary }
}

/// Nodes that one of the first links joins, each row spread over the width.
fn places(graph: &Graph, top: f64, seen: usize) -> (Vec<Option<Placed>>, f64) {
    let rank = |i: usize| {
        let links = graph.links[..seen].iter();
        links.enumerate().find(|(_, link)| link.from == i || link.to == i).map(|(rank, _)| rank)
    };
    let ranks: Vec<Option<usize>> = (0..graph.nodes.len()).map(rank).collect();
    let mut rows: Vec<usize> =
        (0..ranks.len()).filter(|i| ranks[*i].is_some()).map(|i| graph.nodes[i].row).collect();
    rows.sort_unstable();
    rows.dedup();
    let height = top + rows.len() as f64 * ROW;
    let mut placed: Vec<Option<Placed>> = (0..ranks.len()).map(|_| None).collect();
    let drawn = |aside: bool, row: usize| {
        let mut mine: Vec<usize> = (0..ranks.len())
            .filter(|i| ranks[*i].is_some() && graph.nodes[*i].row == row)
            .filter(|i| (graph.nodes[*i].column == usize::MAX) == aside)
            .collect();
        mine.sort_by_key(|i| graph.nodes[*i].column);
        mine
    };
    let beside = rows.iter().any(|row| !drawn(true, *row).is_empty());
    let room = if beside { WIDTH - COLUMN } else { WIDTH };
    let widest = rows.iter().map(|row| drawn(false, *row).len()).max().unwrap_or(1).max(1);
    let right = 0.5 * (room + (room / widest as f64).min(COLUMN) * widest as f64) + 0.5 * COLUMN;
    for (level, row) in rows.iter().enumerate() {
        let y = height - (level as f64 + 0.5) * ROW;
        let mine = drawn(false, *row);
        let step = (room / mine.len().max(1) as f64).min(COLUMN);
        let left = 0.5 * (room - step * mine.len() as f64);
        let xs = (0..mine.len()).map(|k| left + (k as f64 + 0.5) * step);
        let aside = drawn(true, *row).into_iter().map(|i| (i, right));
        for (i, x) in mine.iter().copied().zip(xs).chain(aside) {
            placed[i] = Some(Placed { x, y, rank: ranks[i].unwrap_or(0) });
        }
    }
    (placed, height)
}

/// Links, then nodes over them. With `all`, those not seen at first are there but hidden.
fn draw(svg: &mut Svg, graph: &Graph, nodes: &[Option<Placed>], seen: usize, all: bool) {
    let hidden = |rank: usize| match (all, rank < seen) {
        (false, _) => String::new(),
        (true, true) => format!(" data-rank=\"{rank}\""),
        (true, false) => format!(" data-rank=\"{rank}\" style=\"display:none\""),
    };
    let wanted = |rank: usize| all || rank < seen;
    for (from, to) in &graph.ties {
        if let (Some(a), Some(b)) = (&nodes[*from], &nodes[*to]) {
            let rank = a.rank.max(b.rank);
            if wanted(rank) {
                let _ = write!(
                    svg.0,
                    "<path d=\"M{} {}L{} {}\" stroke=\"{}\" stroke-dasharray=\"2 3\" fill=\"none\"{}/>",
                    px(a.x),
                    px(a.y),
                    px(b.x),
                    px(b.y),
                    hex(SOFT),
                    hidden(rank)
                );
            }
        }
    }
    let heaviest = graph.links.first().map_or(1.0, |link| link.weight.abs()).max(f64::MIN_POSITIVE);
    for (rank, link) in graph.links.iter().enumerate().filter(|(rank, _)| wanted(*rank)) {
        let (Some(a), Some(b)) = (&nodes[link.from], &nodes[link.to]) else { continue };
        let color = if link.weight < 0.0 { NEGATIVE } else { POSITIVE };
        let (x, y) = (a.x, a.y - 0.5 * NODE_HEIGHT);
        let (to_x, to_y) = (b.x + port(&link.port), b.y + 0.5 * NODE_HEIGHT);
        let bend = 0.5 * (y - to_y).max(30.0);
        let [x, y, to_x, to_y, low, high] = [x, y, to_x, to_y, y - bend, to_y + bend].map(px);
        let _ = write!(
            svg.0,
            "<path d=\"M{x} {y}C{x} {low} {to_x} {high} {to_x} {to_y}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\" \
             stroke-opacity=\".7\" data-weight=\"{}\"{}><title>{}</title></path>",
            hex(color),
            px(0.8 + 5.2 * link.weight.abs() / heaviest),
            number(link.weight.abs()),
            hidden(rank),
            escape(&named(graph, link))
        );
    }
    for (node, placed) in graph.nodes.iter().zip(nodes) {
        let Some(place) = placed.as_ref().filter(|place| wanted(place.rank)) else { continue };
        let name = text::cut(&text::visible_words(&node.name), 12);
        let wide = text::width(&name, 11.0).max(28.0) + 14.0;
        let _ = write!(
            svg.0,
            "<g{}><rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{NODE_HEIGHT}\" rx=\"5\" fill=\"#fff\" stroke=\"{}\"/>",
            hidden(place.rank),
            px(place.x - 0.5 * wide),
            px(place.y - 0.5 * NODE_HEIGHT),
            px(wide),
            hex(SOFT)
        );
        svg.text(&name, place.x, place.y, Pen { anchor: "middle", color: INK, ..PLAIN });
        svg.0 += "</g>";
    }
}

/// Where a link enters a node: queries left, keys in the middle, values right.
fn port(name: &str) -> f64 {
    match name {
        "q" => -13.0,
        "v" => 13.0,
        _ => 0.0,
    }
}

fn html(graph: &Graph, title: &str, notes: &[String], summary: &str, seen: usize) -> String {
    let (nodes, height) = places(graph, 6.0, graph.links.len());
    let mut svg = Svg::default();
    draw(&mut svg, graph, &nodes, seen, true);
    let notes: String = notes.iter().map(|note| escape(note) + "<br>").collect();
    let (summary, total) = (escape(summary), graph.links.len());
    let told = match graph.links.iter().any(|link| !link.port.is_empty()) {
        true => {
            "links run upwards; into the left of a head as query, its middle as key, its right as value"
        }
        false => "links run upwards",
    };
    format!(
        "<div class=\"thalweg-graph\" role=\"figure\" aria-label=\"{summary}\" style=\"background:#fff;color:{};padding:10px 12px;\
         max-width:{WIDTH}px;box-sizing:border-box;font-family:{FONTS}\"><div style=\"font-size:{TITLE_SIZE}px\">{}</div>\
         <div style=\"font-size:{NOTE_SIZE}px;color:{}\">{notes}{told}</div>\
         <label style=\"display:none;font-size:12px\"><input type=\"range\" min=\"1\" max=\"{total}\" value=\"{seen}\" \
         style=\"width:260px;vertical-align:middle\"> <span></span></label>\
         <svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{}\" viewBox=\"0 0 {WIDTH} {}\" \
         font-family=\"{FONTS}\" style=\"max-width:100%;height:auto;border-top:1px solid {}\">{}</svg><script>{SCRIPT}</script></div>",
        hex(INK),
        escape(title),
        hex(SOFT),
        height.ceil(),
        height.ceil(),
        hex(FAINT),
        svg.0
    )
}
