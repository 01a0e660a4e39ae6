//! Marks as plotly traces. Bars, lines and points are the plotly crate's; its heatmap has neither
//! `coloraxis` nor `texttemplate` nor custom data in two dimensions, so ours implements its `Trace`.

use anyhow::Result;
use plotly::common::{
    DashType, ErrorData, ErrorType, Fill, Font, HoverInfo, Line as Stroke, Marker, Mode,
    Orientation, Position,
};
use plotly::{Bar, Scatter, Trace};
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::colors::{INK, faded, rgb};
use super::heatmap::cell_text;
use super::plotly_binary;
use super::scene::{Bars, Cells, Line, Mark, Panel, Points, Scene};
use super::text::plotly as shown;

/// Points above which plotly draws with WebGL.
const MANY_POINTS: usize = 1_000;

/// Where a trace belongs: number of its axes, names of its colour axis and legend.
pub(super) struct Place<'a> {
    pub(super) axis: String,
    pub(super) colors: &'a str,
    pub(super) legend: &'a str,
}

impl Place<'_> {
    fn x(&self) -> String {
        format!("x{}", self.axis)
    }

    fn y(&self) -> String {
        format!("y{}", self.axis)
    }
}

/// A number as short as it can be written; NaN is `null`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Number(f64);

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            value if !value.is_finite() => serializer.serialize_none(),
            value if value.fract() == 0.0 && value.abs() < 1e15 => {
                serializer.serialize_i64(value as i64)
            }
            value => serializer.serialize_f64(value),
        }
    }
}

/// Four significant digits: more than a colour or a line can show, and a third of the bytes.
fn significant(value: f64) -> Number {
    if value == 0.0 || !value.is_finite() {
        return Number(value);
    }
    let places = 3 - value.abs().log10().floor() as i32;
    // Powers of ten up to 10^22 are exact, so the quotient is the double nearest to the decimal
    // and prints with four digits.
    match places {
        0..=22 => Number((value * 10f64.powi(places)).round() / 10f64.powi(places)),
        -22..0 => Number((value / 10f64.powi(-places)).round() * 10f64.powi(-places)),
        _ => Number(value),
    }
}

fn rounded(value: f64, decimals: Option<u32>) -> Number {
    let Some(decimals) = decimals else { return significant(value) };
    let unit = 10f64.powi(decimals as i32);
    Number((value * unit).round() / unit)
}

fn numbers(values: &[f64]) -> Vec<Number> {
    values.iter().map(|value| significant(*value)).collect()
}

/// A heatmap with everything the figure needs of plotly's.
#[derive(Debug, Clone, Serialize)]
struct HeatTrace {
    r#type: &'static str,
    name: String,
    xaxis: String,
    yaxis: String,
    coloraxis: String,
    x: Vec<usize>,
    y: Vec<usize>,
    z: Vec<Vec<Number>>,
    xgap: u8,
    ygap: u8,
    hoverongaps: bool,
    hovertemplate: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<Vec<Vec<String>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    texttemplate: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    textfont: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    customdata: Option<Vec<Vec<Vec<String>>>>,
}

impl Trace for HeatTrace {
    fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The traces of a panel.
pub(super) fn of(panel: &Panel, scene: &Scene, place: &Place) -> Result<Vec<Value>> {
    let mut traces = Vec::new();
    for mark in &panel.marks {
        let drawn: Vec<Box<dyn Trace>> = match mark {
            Mark::Cells(cells) => vec![heat(cells, panel, place)],
            Mark::Line(line) => lines(line, place),
            Mark::Bars(bars) => vec![bar(bars, place)],
            Mark::Points(points) => vec![scatter(points, place)],
        };
        for trace in drawn {
            let mut json = serde_json::to_value(&trace)?;
            plotly_binary::shorten(&mut json);
            if scene.legend.is_some() {
                json["legend"] = Value::String(place.legend.to_string());
            }
            traces.push(json);
        }
    }
    Ok(traces)
}

/// One cell's strings beside its value: its full name, the full text if it was cut, the code.
fn custom(cells: &Cells) -> Option<(Vec<Vec<Vec<String>>>, String)> {
    let cut = cells.text.as_ref().filter(|text| text.iter().any(|t| cell_text(t) != *t));
    let sources: Vec<_> = [cells.sites.as_ref(), cut, cells.hover.as_ref(), cells.code.as_ref()]
        .into_iter()
        .flatten()
        .collect();
    if sources.is_empty() {
        return None;
    }
    let (rows, columns) = cells.values.dim();
    let lines = |text: &String| text.split('\n').map(shown).collect::<Vec<_>>().join("<br>");
    let cell = |y, x| sources.iter().map(|source| lines(&source[(y, x)])).collect::<Vec<_>>();
    let data = (0..rows).map(|y| (0..columns).map(|x| cell(y, x)).collect()).collect();
    let lines = (0..sources.len()).map(|i| format!("<br>%{{customdata[{i}]}}")).collect();
    Some((data, lines))
}

fn heat(cells: &Cells, panel: &Panel, place: &Place) -> Box<dyn Trace> {
    let (rows, columns) = cells.values.dim();
    let z = cells.values.rows().into_iter().map(|row| {
        // What is missing at the end of a row (the causal triangle) need not be stored.
        let length = row.iter().rposition(|value| !value.is_nan()).map_or(1, |last| last + 1);
        row.iter().take(length).map(|value| rounded(*value, cells.decimals)).collect()
    });
    let gap = |pixels: f64, count: usize| u8::from(pixels / count as f64 >= 7.0);
    let name = if cells.name.is_empty() {
        String::new()
    } else {
        format!("<b>{}</b><br>", shown(&cells.name))
    };
    let where_ = match (cells.heads, cells.edges) {
        (true, _) => "<b>%{y}%{x}</b><br>".to_string(),
        (_, true) => "<b>%{y} → %{x}</b><br>".to_string(),
        _ => [(&cells.y_name, "y"), (&cells.x_name, "x")]
            .iter()
            .filter(|(name, _)| !name.is_empty())
            .map(|(name, letter)| format!("{} <b>%{{{letter}}}</b><br>", shown(name)))
            .collect(),
    };
    let (customdata, extra) = custom(cells).unzip();
    let extra = extra.unwrap_or_default();
    let text = cells.text.as_ref().map(|text| {
        text.rows()
            .into_iter()
            .map(|row| row.iter().map(|t| shown(&cell_text(t))).collect())
            .collect()
    });
    Box::new(HeatTrace {
        r#type: "heatmap",
        name: shown(&cells.name),
        xaxis: place.x(),
        yaxis: place.y(),
        coloraxis: place.colors.to_string(),
        x: (0..columns).collect(),
        y: (0..rows).collect(),
        z: z.collect(),
        xgap: gap(panel.frame.w, columns),
        ygap: gap(panel.frame.h, rows),
        hoverongaps: false,
        hovertemplate: format!(
            "{name}{where_}%{{z:.4~g}} {}{extra}<extra></extra>",
            shown(&cells.unit)
        ),
        texttemplate: text.is_some().then_some("%{text}"),
        textfont: text.is_some().then(|| serde_json::json!({"size": 11})),
        text,
        customdata,
    })
}

/// A line, and before it the two edges of its band.
fn lines(line: &Line, place: &Place) -> Vec<Box<dyn Trace>> {
    let x = numbers(&line.x);
    let mut traces: Vec<Box<dyn Trace>> = Vec::new();
    if let Some((low, high)) = &line.band {
        for (edge, fill) in [(low, None), (high, Some(Fill::ToNextY))] {
            let mut band = Scatter::new(x.clone(), numbers(edge))
                .mode(Mode::Lines)
                .line(Stroke::new().width(0.0).color(rgb(line.color)))
                .hover_info(HoverInfo::Skip)
                .legend_group(line.name.clone())
                .show_legend(false)
                .x_axis(place.x())
                .y_axis(place.y());
            if let Some(fill) = fill {
                band = band.fill(fill).fill_color(faded(line.color, 0.18));
            }
            traces.push(band);
        }
    }
    let mode = if line.dots { Mode::LinesMarkers } else { Mode::Lines };
    let dash = [DashType::Solid, DashType::Dash, DashType::Dot][line.dash.min(2)].clone();
    let trace = Scatter::new(x, numbers(&line.y)).mode(mode);
    if line.quiet {
        let stroke = Stroke::new().width(1.2).color(rgb(line.color)).dash(dash);
        let trace = trace.line(stroke).hover_info(HoverInfo::Skip).show_legend(false);
        if line.y.iter().any(|y| y.is_finite()) {
            traces.push(trace.x_axis(place.x()).y_axis(place.y()));
        }
        return traces;
    }
    let trace = trace
        .name(shown(&line.name))
        .legend_group(line.name.clone())
        .line(Stroke::new().width(2.0).color(rgb(line.color)).dash(dash))
        .marker(Marker::new().size(5).color(rgb(line.color)))
        .hover_template(format!(
            "%{{y:.4~g}} {}<extra>{}</extra>",
            shown(&line.unit),
            shown(&line.name)
        ))
        .connect_gaps(false)
        .x_axis(place.x())
        .y_axis(place.y());
    traces.push(if line.unlisted { trace.show_legend(false) } else { trace });
    traces
}

fn bar(bars: &Bars, place: &Place) -> Box<dyn Trace> {
    let labels = bars.labels.iter().map(|label| shown(label)).collect();
    let group =
        if bars.name.is_empty() { String::new() } else { format!("{}<br>", shown(&bars.name)) };
    let (x, y) = match bars.across {
        true => (numbers(&bars.y), numbers(&bars.x)),
        false => (numbers(&bars.x), numbers(&bars.y)),
    };
    let value = if bars.across { "x" } else { "y" };
    let mut trace = Bar::new(x, y)
        .name(shown(&bars.name))
        .legend_group(bars.name.clone())
        .width(bars.width)
        .offset(-0.5 * bars.width)
        .marker(Marker::new().color_array(bars.colors.iter().map(|color| rgb(*color)).collect()))
        .hover_text_array(labels)
        .hover_template(format!(
            "<b>%{{hovertext}}</b><br>{group}%{{{value}:.4~g}} {}<extra></extra>",
            shown(&bars.unit)
        ))
        .x_axis(place.x())
        .y_axis(place.y());
    if bars.across {
        trace = trace.orientation(Orientation::Horizontal);
    }
    if bars.quiet {
        trace = trace.show_legend(false);
    }
    if bars.alpha < 1.0 {
        trace = trace.opacity(bars.alpha);
    }
    if let Some((low, high)) = &bars.bounds {
        let to = |ends: &[f64], sign: f64| -> Vec<f64> {
            let each = bars.y.iter().zip(ends);
            each.map(
                |(y, end)| if (end - y).is_nan() { 0.0 } else { significant(sign * (end - y)).0 },
            )
            .collect()
        };
        let whiskers = ErrorData::new(ErrorType::Data)
            .array(to(high, 1.0))
            .array_minus(to(low, -1.0))
            .symmetric(false)
            .thickness(1.2)
            .width(3)
            .color(rgb(INK));
        trace = trace.error_y(whiskers);
    }
    trace
}

fn scatter(points: &Points, place: &Place) -> Box<dyn Trace> {
    let group =
        if points.name.is_empty() { String::new() } else { format!("{}<br>", shown(&points.name)) };
    let names = [&points.x_name, &points.y_name].map(|name| shown(name));
    let context = if points.contexts.is_some() { "%{customdata}<br>" } else { "" };
    let hover = format!(
        "<b>%{{hovertext}}</b><br>{group}{context}{} %{{x:.4~g}}<br>{} %{{y:.4~g}}<extra></extra>",
        names[0], names[1]
    );
    let mut trace = Scatter::new(numbers(&points.x), numbers(&points.y))
        .web_gl_mode(points.x.len() > MANY_POINTS)
        .mode(if points.written.is_some() { Mode::MarkersText } else { Mode::Markers })
        .name(shown(&points.name))
        .marker(Marker::new().size(7).opacity(0.8).color(rgb(points.color)))
        .hover_text_array(points.labels.iter().map(|label| shown(label)).collect())
        .hover_template(hover)
        .x_axis(place.x())
        .y_axis(place.y());
    if let Some(contexts) = &points.contexts {
        let told = |[before, own, after]: &[String; 3]| {
            format!("{}<b>{}</b>{}", shown(before), shown(own), shown(after))
        };
        trace = trace.custom_data(contexts.iter().map(told).collect());
    }
    if let Some(written) = &points.written {
        let labels = written.iter().map(|label| shown(label)).collect();
        trace = trace
            .text_array(labels)
            .text_position(Position::TopCenter)
            .text_font(Font::new().size(10));
    }
    trace
}
