//! A page as plotly JSON: `{data, layout, config}`.
//!
//! Layout, configuration and the traces that the plotly crate models come from it. Its typed layout
//! ends at eight axes and one colour axis, so axes, colour axes, legends and annotations are structs
//! of ours, merged into what it serialises.

use std::collections::BTreeMap;

use anyhow::Result;
use plotly::common::{Anchor, Font, Reference, Title};
use plotly::layout::{HoverMode, Margin};
use plotly::{Configuration, Layout};
use serde::Serialize;
use serde_json::{Map, Value};

use super::colors::{INK, SOFT, rgb};
use super::layout::{LABEL_SIZE, NAME_SIZE, NOTE_SIZE, TITLE_GAP, TITLE_LINE, TITLE_SIZE};
use super::plotly_axis::{TextFont, axis};
use super::plotly_traces::{self, Place};
use super::scene::{ColorBar, Frame, Legend, Page, Panel, Scene};
use super::text::plotly as shown;

/// Fonts of every figure, here and in the SVG.
pub(super) const FONTS: &str = "Helvetica Neue, Helvetica, Arial, DejaVu Sans, sans-serif";

/// Buttons that would hide the title of a narrow figure, and one that sends its data elsewhere.
const UNWANTED: [&str; 6] =
    ["sendChartToCloud", "select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d"];

/// What the typed layout lacks: entries by name, such as `xaxis9` or `coloraxis2`.
#[derive(Serialize, Default)]
struct Extras {
    annotations: Vec<Annotation>,
    #[serde(flatten)]
    named: BTreeMap<String, Value>,
}

#[derive(Serialize)]
struct Annotation {
    text: String,
    x: f64,
    y: f64,
    xref: &'static str,
    yref: &'static str,
    xanchor: &'static str,
    yanchor: &'static str,
    align: &'static str,
    showarrow: bool,
    font: TextFont,
}

#[derive(Serialize)]
struct ColorAxis {
    colorscale: Vec<(f64, String)>,
    cmin: f64,
    cmax: f64,
    showscale: bool,
    colorbar: Bar,
}

#[derive(Serialize)]
struct Bar {
    title: BarTitle,
    x: f64,
    y: f64,
    xanchor: &'static str,
    yanchor: &'static str,
    xpad: f64,
    ypad: f64,
    len: f64,
    lenmode: &'static str,
    thickness: f64,
    outlinewidth: f64,
    tickvals: Vec<f64>,
    ticktext: Vec<String>,
    tickfont: TextFont,
}

#[derive(Serialize)]
struct BarTitle {
    text: String,
    side: &'static str,
    font: TextFont,
}

#[derive(Serialize)]
struct LegendBox {
    x: f64,
    y: f64,
    xanchor: &'static str,
    yanchor: &'static str,
    font: TextFont,
    bgcolor: &'static str,
    tracegroupgap: f64,
}

/// The page in pixels, and the next number of each kind of thing.
struct Writer<'a> {
    page: &'a Page,
    extras: Extras,
    data: Vec<Value>,
    axes: usize,
    /// Number of the first axes of linked scenes.
    linked: Option<usize>,
}

/// `{data, layout, config}` of a page.
pub(super) fn json(page: &Page) -> Result<Value> {
    let mut writer =
        Writer { page, extras: Extras::default(), data: Vec::new(), axes: 0, linked: None };
    for (number, (x, y, scene)) in page.scenes.iter().enumerate() {
        writer.scene(number + 1, (*x, *y), scene)?;
    }
    for (x, y, text) in &page.headings {
        writer.note(text, (*x, y + 10.0), TITLE_SIZE + 1.0, "left");
    }
    let mut layout = serde_json::to_value(base_layout(page))?;
    if let (Value::Object(layout), Value::Object(extras)) =
        (&mut layout, serde_json::to_value(&writer.extras)?)
    {
        layout.extend(extras);
    }
    let mut config = serde_json::to_value(
        Configuration::new().typeset_math(false).display_logo(false).responsive(false),
    )?;
    config["modeBarButtonsToRemove"] = serde_json::to_value(UNWANTED)?;
    let mut whole = Map::new();
    whole.insert("data".into(), Value::Array(writer.data));
    whole.insert("layout".into(), layout);
    whole.insert("config".into(), config);
    Ok(Value::Object(whole))
}

/// What plotly's typed layout holds.
fn base_layout(page: &Page) -> Layout {
    let unified = !page.scenes.is_empty() && page.scenes.iter().all(|(_, _, scene)| scene.unified);
    let mut layout = Layout::new()
        .auto_size(false)
        .width(page.width.ceil() as usize)
        .height(page.height.ceil() as usize)
        .margin(Margin::new().left(0).right(0).top(0).bottom(0).auto_expand(false))
        .font(Font::new().family(FONTS).size(12).color(rgb(INK)))
        .paper_background_color("white")
        .plot_background_color("white")
        .hover_mode(if unified { HoverMode::XUnified } else { HoverMode::Closest })
        .show_legend(page.scenes.iter().any(|(_, _, scene)| scene.legend.is_some()));
    // The title of a single scene is the layout's if it fits one line; several lines would be
    // raised beyond the edge, and several scenes have theirs as annotations.
    if let Some(line) = own_title(page) {
        let title = Title::with_text(shown(line))
            .font(Font::new().size(TITLE_SIZE as usize).color(rgb(INK)))
            .x_ref(Reference::Container)
            .y_ref(Reference::Container)
            .x_anchor(Anchor::Left)
            .y_anchor(Anchor::Top)
            .x(12.0 / page.width)
            .y(1.0 - 10.0 / page.height);
        layout = layout.title(title);
    }
    layout
}

/// The title that is the layout's own.
fn own_title(page: &Page) -> Option<&str> {
    match (&page.scenes[..], &page.headings[..]) {
        ([(_, 0.0, scene)], []) if scene.title.len() == 1 => Some(&scene.title[0]),
        _ => None,
    }
}

impl Writer<'_> {
    fn scene(&mut self, number: usize, (left, top): (f64, f64), scene: &Scene) -> Result<()> {
        let colors = format!("coloraxis{}", suffix(number));
        let legend = format!("legend{}", suffix(number));
        let mut y = top + 10.0;
        if own_title(self.page).is_none() {
            for line in &scene.title {
                self.note(line, (left + 12.0, y), TITLE_SIZE, "left");
                y += TITLE_SIZE * 1.3;
            }
        } else {
            y += scene.title.len() as f64 * TITLE_SIZE * 1.3;
        }
        for line in &scene.notes {
            self.note(line, (left + 12.0, y), NOTE_SIZE, "left");
            y += NOTE_SIZE * 1.4;
        }
        if let Some(bar) = &scene.bar {
            let axis = serde_json::to_value(self.color_axis(bar))?;
            self.extras.named.insert(colors.clone(), axis);
        }
        if let Some(listed) = &scene.legend {
            self.extras.named.insert(legend.clone(), serde_json::to_value(self.legend(listed))?);
        }
        let first = match self.linked {
            Some(first) if scene.linked => first,
            _ => self.axes + 1,
        };
        if scene.linked {
            self.linked = Some(first);
        }
        for panel in &scene.panels {
            self.axes += 1;
            let own = self.axes;
            self.panel(panel, own, first)?;
            let place = Place { axis: suffix(own), colors: &colors, legend: &legend };
            self.data.extend(plotly_traces::of(panel, scene, &place)?);
        }
        Ok(())
    }

    /// Axes and title of a panel. Panels of a scene zoom together: each follows the first.
    fn panel(&mut self, panel: &Panel, own: usize, first: usize) -> Result<()> {
        let frame = panel.frame;
        let (width, height) = (self.page.width, self.page.height);
        let across = [frame.x / width, (frame.x + frame.w) / width];
        let up = [1.0 - (frame.y + frame.h) / height, 1.0 - frame.y / height];
        let (free_x, free_y) = panel.free;
        for (letter, other, ruler, domain, free) in
            [('x', 'y', &panel.x, across, free_x), ('y', 'x', &panel.y, up, free_y)]
        {
            let matches = (own != first && !free).then(|| format!("{letter}{}", suffix(first)));
            let anchor = format!("{other}{}", suffix(own));
            let axis = axis(ruler, domain, anchor, matches);
            self.extras
                .named
                .insert(format!("{letter}axis{}", suffix(own)), serde_json::to_value(axis)?);
        }
        if panel.background != [255, 255, 255] {
            self.background(frame, panel.background);
        }
        if !panel.title.is_empty() {
            self.annotate(
                &panel.title,
                (frame.x + 0.5 * frame.w, frame.y - 2.0),
                NAME_SIZE,
                "center",
                "bottom",
            );
        }
        Ok(())
    }

    /// A filled rectangle behind a panel: plotly has one background for all of a figure's panels.
    fn background(&mut self, frame: Frame, color: super::colors::Rgb) {
        let (width, height) = (self.page.width, self.page.height);
        let shape = serde_json::json!({
            "type": "rect", "xref": "paper", "yref": "paper", "layer": "below",
            "x0": frame.x / width, "x1": (frame.x + frame.w) / width,
            "y0": 1.0 - (frame.y + frame.h) / height, "y1": 1.0 - frame.y / height,
            "fillcolor": rgb(color), "line": {"width": 0},
        });
        let shapes =
            self.extras.named.entry("shapes".into()).or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(shapes) = shapes {
            shapes.push(shape);
        }
    }

    fn note(&mut self, text: &str, at: (f64, f64), size: f64, align: &'static str) {
        self.annotate(text, at, size, align, "top");
    }

    fn annotate(
        &mut self,
        text: &str,
        at: (f64, f64),
        size: f64,
        align: &'static str,
        edge: &'static str,
    ) {
        let color = if size < NAME_SIZE { SOFT } else { INK };
        self.extras.annotations.push(Annotation {
            text: shown(text),
            x: at.0 / self.page.width,
            y: 1.0 - at.1 / self.page.height,
            xref: "paper",
            yref: "paper",
            xanchor: align,
            yanchor: edge,
            align,
            showarrow: false,
            font: TextFont { size, color: rgb(color) },
        });
    }

    fn color_axis(&self, bar: &ColorBar) -> ColorAxis {
        let stops = &bar.scale.stops;
        let at = |i: usize| i as f64 / (stops.len() - 1) as f64;
        // plotly takes the title's height from the bar's.
        let above = TITLE_GAP + TITLE_LINE * bar.title.len() as f64;
        let title = bar.title.iter().map(|line| shown(line)).collect::<Vec<_>>().join("<br>");
        ColorAxis {
            colorscale: stops.iter().enumerate().map(|(i, color)| (at(i), rgb(*color))).collect(),
            cmin: bar.scale.low,
            cmax: bar.scale.high,
            showscale: !bar.hidden,
            colorbar: Bar {
                title: BarTitle {
                    text: title,
                    side: "top",
                    font: TextFont { size: NAME_SIZE, color: rgb(INK) },
                },
                x: bar.frame.x / self.page.width,
                y: 1.0 - (bar.frame.y - above) / self.page.height,
                xanchor: "left",
                yanchor: "top",
                xpad: 0.0,
                ypad: 0.0,
                len: bar.frame.h + above,
                lenmode: "pixels",
                thickness: bar.frame.w,
                outlinewidth: 0.0,
                tickvals: bar.ticks.iter().map(|(value, _)| *value).collect(),
                ticktext: bar.ticks.iter().map(|(_, label)| label.clone()).collect(),
                tickfont: TextFont { size: LABEL_SIZE, color: rgb(INK) },
            },
        }
    }

    fn legend(&self, legend: &Legend) -> LegendBox {
        LegendBox {
            x: legend.x / self.page.width,
            y: 1.0 - legend.y / self.page.height,
            xanchor: "left",
            yanchor: "top",
            font: TextFont { size: LABEL_SIZE, color: rgb(INK) },
            bgcolor: "rgba(255,255,255,0)",
            tracegroupgap: 0.0,
        }
    }
}

/// plotly writes the first `xaxis`, `coloraxis` or `legend` without a number.
fn suffix(number: usize) -> String {
    if number == 1 { String::new() } else { number.to_string() }
}
