//! One place, several charts: a dropdown of statistics, a slider over layers or checkpoints.

use anyhow::{Result, ensure};
use serde_json::{Map, Value, json};

use super::colors::{INK, SOFT, rgb};
use super::layout::{LABEL_SIZE, NAME_SIZE};
use super::plotly_json;
use super::scene::Page;
use super::text::plotly as shown;
use super::{Content, Figure, Kind, panels, scatter, text};
use crate::grid::Grid;
use crate::hook::site::Axis;

/// Height of the strip that holds the dropdown or the slider.
const STRIP: f64 = 40.0;
const SLIDER_STRIP: f64 = 84.0;
/// Most charts in one place: each is stored whole.
const MAX_CHOICES: usize = 64;

/// Charts of which one is seen at a time.
#[derive(Clone)]
pub(super) struct Choices {
    pub(super) options: Vec<(String, Figure)>,
    /// Which is seen first.
    pub(super) first: usize,
    /// What a slider counts; a dropdown if there is none.
    pub(super) slider: Option<String>,
    pub(super) title: Option<String>,
}

impl Figure {
    /// Several charts in one place, and a dropdown that chooses: statistics of one lens, metrics of the
    /// same heads. Each is stored whole. Where nothing can be clicked the first is seen.
    ///
    /// ```
    /// use thalweg::{Axis, Figure, Grid, heatmap, ndarray::array};
    /// let prob = Grid::from_array(array![[0.1, 0.8], [0.0, 0.3]], &[Axis::Layer, Axis::Pos], "probability")?;
    /// let rank = Grid::from_array(array![[7.0, 0.0], [9.0, 2.0]], &[Axis::Layer, Axis::Pos], "rank")?;
    /// let both = Figure::menu(&[("probability", heatmap(&prob)?), ("rank", heatmap(&rank)?)])?;
    /// assert!(both.bundle()?.plotly.contains("updatemenus"));
    /// # anyhow::Ok(())
    /// ```
    pub fn menu(options: &[(&str, Figure)]) -> Result<Figure> {
        let owned = options.iter().map(|(name, figure)| (name.to_string(), figure.clone()));
        Figure::choices(owned.collect(), 0, None)
    }

    /// A slider over one axis of a heatmap, lines, bars or a scatter: layers of a projection, steps of a
    /// training run. Axes and colours keep one range throughout; the last index is seen first.
    ///
    /// ```
    /// use thalweg::{Axis, Grid, heatmap, ndarray::Array3};
    /// let run = Grid::from_array(Array3::zeros((5, 4, 8)), &[Axis::Step, Axis::Layer, Axis::Head], "score")?;
    /// assert!(heatmap(&run)?.slider(Axis::Step)?.bundle()?.plotly.contains("sliders"));
    /// # anyhow::Ok(())
    /// ```
    pub fn slider(self, axis: Axis) -> Result<Figure> {
        let Content::Chart(chart) = &self.content else {
            anyhow::bail!("a slider runs over an axis of one chart; this is {self:?}")
        };
        let (grid, style) = (&chart.grid, &chart.style);
        let place = grid.place(axis)?;
        let least = if matches!(chart.kind, Kind::Lines | Kind::Bars) { 1 } else { 2 };
        ensure!(
            grid.axes.len() > least && (chart.kind != Kind::Scatter || place + 1 < grid.axes.len()),
            "without axis {axis} too little is left to draw; axes are {}",
            grid.axes_text()
        );
        let mut fixed = style.clone();
        match chart.kind {
            Kind::Heatmap | Kind::Attention => {
                let scale = panels::range(grid, style, chart.kind == Kind::Attention);
                fixed.scale = Some(scale);
            }
            Kind::Lines | Kind::Bars => fixed.range = Some(super::lines::whole_range(grid, style)),
            Kind::Scatter => fixed.extent = Some(scatter::whole_extent(grid, style)),
            _ => anyhow::bail!(
                "a slider runs over heatmaps, lines, bars and scatters; this is {self:?}"
            ),
        }
        let labels = text::names(&grid.axes[place], 14);
        let option = |(i, name): (usize, &String)| -> Result<(String, Figure)> {
            let mut chart = chart.clone();
            chart.grid = grid.select(axis, i as i64)?;
            chart.style = fixed.clone();
            chart.style.groups = style.groups.as_ref().map(|groups| groups.part(grid, place, i));
            Ok((name.clone(), Figure { content: Content::Chart(chart), forced: self.forced }))
        };
        let options = labels.iter().enumerate().map(option).collect::<Result<Vec<_>>>()?;
        let last = options.len().saturating_sub(1);
        Figure::choices(options, last, Some(text::axis_name(axis).to_string()))
    }

    /// A dropdown that shows the values, or their logarithms to base 10: norms that differ by powers of
    /// ten. Values that are not positive have no logarithm and are left out.
    pub fn with_log(self) -> Result<Figure> {
        let Content::Chart(chart) = &self.content else {
            anyhow::bail!("logarithms are taken of the values of one chart; this is {self:?}")
        };
        let mut log = chart.clone();
        log.grid = log10(&chart.grid)?;
        log.style.range = None;
        log.style.title =
            Some(chart.style.title.clone().unwrap_or_else(|| chart.grid.name.clone()));
        let log = Figure { content: Content::Chart(log), forced: self.forced };
        Figure::menu(&[("linear", self), ("logarithm", log)])
    }

    fn choices(
        options: Vec<(String, Figure)>,
        first: usize,
        slider: Option<String>,
    ) -> Result<Figure> {
        ensure!(!options.is_empty(), "nothing to choose from: no figure was given");
        let found = options.len();
        ensure!(
            found <= MAX_CHOICES,
            "{found} figures in one place: {MAX_CHOICES} at most, select fewer"
        );
        let shape = |figure: &Figure| match &figure.content {
            Content::Chart(_) => {
                Some(figure.page().scenes.iter().map(|(.., s)| s.panels.len()).sum::<usize>())
            }
            _ => None,
        };
        let panels = shape(&options[0].1);
        for (name, figure) in &options {
            ensure!(
                panels.is_some() && shape(figure) == panels,
                "figures in one place must be single charts of equally many panels; {name:?} is {figure:?}"
            );
        }
        let forced = options.iter().any(|(_, figure)| figure.forced);
        let choices = Choices { options, first, slider, title: None };
        Ok(Figure { content: Content::Choices(Box::new(choices)), forced })
    }
}

fn log10(grid: &Grid) -> Result<Grid> {
    ensure!(
        grid.existing().any(|value| value > 0.0),
        "no value of {grid:?} is positive: there is no logarithm to draw"
    );
    let positive = grid.clone().missing_where(|value| value <= 0.0);
    let unit = format!("log10 {}", grid.unit);
    let mut log = positive.map(|value| if value > 0.0 { value.log10() } else { 0.0 }).unit(&unit);
    log.zero_one = None;
    Ok(log)
}

impl Choices {
    /// The page of each option, all of one size, below the strip.
    fn pages(&self) -> Vec<Page> {
        let strip = if self.slider.is_some() { 0.0 } else { STRIP };
        let below = if self.slider.is_some() { SLIDER_STRIP } else { 0.0 };
        let titled = |figure: &Figure| match &self.title {
            Some(title) => figure.clone().title(title),
            None => figure.clone(),
        };
        let mut pages: Vec<Page> =
            self.options.iter().map(|(_, figure)| titled(figure).page().lowered(strip)).collect();
        let most = |read: fn(&Page) -> f64| pages.iter().map(read).fold(0.0, f64::max);
        let (width, height) = (most(|page| page.width), most(|page| page.height) + below);
        pages.iter_mut().for_each(|page| (page.width, page.height) = (width.max(420.0), height));
        pages
    }

    /// The option that is seen first, and what the others are.
    pub(super) fn page(&self) -> Page {
        let mut page = self.pages().swap_remove(self.first);
        let names: Vec<&str> = self.options.iter().map(|(name, _)| name.as_str()).collect();
        let seen = text::visible_words(names[self.first]);
        let note = match &self.slider {
            Some(axis) => format!("{axis} {seen}, the last of {}", names.len()),
            None => {
                let others = names.iter().enumerate().filter(|(i, _)| *i != self.first);
                let others: Vec<&str> = others.map(|(_, name)| *name).collect();
                format!("{seen} (not shown: {})", text::visible_words(&others.join(", ")))
            }
        };
        let y = if self.slider.is_some() { page.height - SLIDER_STRIP + 18.0 } else { 12.0 };
        page.told = Some(self.summary());
        page.remarks.push((12.0, y, text::cut(&note, 110)));
        page
    }

    pub(super) fn summary(&self) -> String {
        let names: Vec<&str> = self.options.iter().map(|(name, _)| name.as_str()).collect();
        let how =
            self.slider.as_deref().map_or("menu".to_string(), |axis| format!("slider over {axis}"));
        let ends = match &names[..] {
            [first, .., last] if names.len() > 8 => format!("{first} to {last}"),
            _ => names.join(", "),
        };
        format!("{how} ({}): {:?}", text::visible_words(&ends), self.options[self.first].1)
    }

    /// Every option's traces, of which those of one can be seen, and what changes with the choice.
    pub(super) fn json(&self) -> Result<Value> {
        let pages = self.pages();
        let mut parts = pages.iter().map(plotly_json::json).collect::<Result<Vec<_>>>()?;
        let patches = patches(&parts);
        let counts: Vec<usize> =
            parts.iter().map(|part| part["data"].as_array().map_or(0, Vec::len)).collect();
        let total: usize = counts.iter().sum();
        let mut from = 0;
        let mut steps = Vec::new();
        for (((name, _), count), patch) in self.options.iter().zip(&counts).zip(patches) {
            let mask: Vec<bool> = (0..total).map(|i| (from..from + count).contains(&i)).collect();
            from += count;
            let label = shown(&text::cut(&text::visible_words(name), 40));
            steps.push(
                json!({ "label": label, "method": "update", "args": [{ "visible": mask }, patch] }),
            );
        }
        let mut data = Vec::new();
        for (i, part) in parts.iter_mut().enumerate() {
            for mut trace in part["data"].as_array_mut().map(std::mem::take).unwrap_or_default() {
                trace["visible"] = Value::Bool(i == self.first);
                data.push(trace);
            }
        }
        let mut whole = parts.swap_remove(self.first);
        whole["data"] = Value::Array(data);
        let (width, height) = (pages[0].width, pages[0].height);
        let (key, control) = match &self.slider {
            Some(axis) => ("sliders", self.slider_json(axis, steps, (width, height))),
            None => ("updatemenus", self.menu_json(steps, (width, height))),
        };
        whole["layout"][key] = Value::Array(vec![control]);
        Ok(whole)
    }

    fn menu_json(&self, steps: Vec<Value>, (width, height): (f64, f64)) -> Value {
        json!({
            "type": "dropdown", "active": self.first, "buttons": steps, "showactive": true,
            "x": 12.0 / width, "y": 1.0 - 6.0 / height, "xanchor": "left", "yanchor": "top",
            "pad": { "t": 0, "r": 0, "b": 0, "l": 0 }, "bgcolor": "white", "bordercolor": rgb(SOFT),
            "font": { "size": LABEL_SIZE, "color": rgb(INK) },
        })
    }

    fn slider_json(&self, axis: &str, steps: Vec<Value>, (width, height): (f64, f64)) -> Value {
        json!({
            "active": self.first, "steps": steps,
            "x": 30.0 / width, "len": 1.0 - 60.0 / width, "lenmode": "fraction",
            "y": (SLIDER_STRIP - 2.0) / height, "xanchor": "left", "yanchor": "top",
            "pad": { "t": 0, "r": 0, "b": 0, "l": 0 },
            "currentvalue": { "prefix": format!("{axis} "), "font": { "size": NAME_SIZE, "color": rgb(INK) } },
            "font": { "size": LABEL_SIZE, "color": rgb(INK) }, "ticklen": 4,
        })
    }
}

/// For each part, the entries of its layout that another part lacks or has otherwise.
fn patches(parts: &[Value]) -> Vec<Value> {
    let empty = Map::new();
    let layouts: Vec<_> =
        parts.iter().map(|part| part["layout"].as_object().unwrap_or(&empty)).collect();
    let mut keys: Vec<&String> = layouts.iter().flat_map(|layout| layout.keys()).collect();
    keys.sort();
    keys.dedup();
    keys.retain(|key| layouts.iter().any(|layout| layout.get(*key) != layouts[0].get(*key)));
    let patch = |layout: &&Map<String, Value>| {
        let entry =
            |key: &&String| ((*key).clone(), layout.get(*key).cloned().unwrap_or(Value::Null));
        Value::Object(keys.iter().map(entry).collect())
    };
    layouts.iter().map(patch).collect()
}
