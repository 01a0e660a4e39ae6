//! What a figure draws, in pixels and before any format: plotly JSON and SVG are two ways of
//! writing one scene, and so look alike.

use ndarray::Array2;

use super::colors::{Rgb, Scale};

/// A rectangle in pixels, measured from the scene's upper left corner.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Frame {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) w: f64,
    pub(super) h: f64,
}

/// One chart: panels that share a title, a colour bar and a legend.
#[derive(Debug, Clone, Default)]
pub(super) struct Scene {
    pub(super) title: Vec<String>,
    /// Small print under the title: how many were averaged, what a band means.
    pub(super) notes: Vec<String>,
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) panels: Vec<Panel>,
    pub(super) bar: Option<ColorBar>,
    pub(super) legend: Option<Legend>,
    /// Panels zoom together with those of other linked scenes on the page.
    pub(super) linked: bool,
    /// True if pointing at one x shows every series there.
    pub(super) unified: bool,
    /// The figure in one line, with its numbers.
    pub(super) summary: String,
}

/// What the colours mean.
#[derive(Debug, Clone)]
pub(super) struct ColorBar {
    pub(super) scale: Scale,
    pub(super) frame: Frame,
    pub(super) title: Vec<String>,
    pub(super) ticks: Vec<(f64, String)>,
    /// Another chart's bar stands for this one too.
    pub(super) hidden: bool,
}

/// Name, colour and dash pattern of a series: 0 is solid.
pub(super) type Entry = (String, Rgb, usize);

/// Names and colours of series, from a corner downwards.
#[derive(Debug, Clone)]
pub(super) struct Legend {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) entries: Vec<Entry>,
    /// How many series the list leaves out.
    pub(super) left_out: usize,
}

/// One pair of axes and what is drawn between them.
#[derive(Debug, Clone)]
pub(super) struct Panel {
    pub(super) frame: Frame,
    pub(super) title: String,
    pub(super) x: Ruler,
    pub(super) y: Ruler,
    pub(super) background: Rgb,
    /// Axes that do not follow those of the scene's first panel when it is zoomed: x, y.
    pub(super) free: (bool, bool),
    pub(super) marks: Vec<Mark>,
}

/// One axis of a panel: x from left to right, y from the bottom upwards.
#[derive(Debug, Clone, Default)]
pub(super) struct Ruler {
    pub(super) title: String,
    pub(super) from: f64,
    pub(super) to: f64,
    /// Ticks that are drawn. Those of a labelled axis may be thinned.
    pub(super) ticks: Vec<(f64, String)>,
    /// Label of every index; empty for an axis of numbers.
    pub(super) labels: Vec<String>,
    /// Rotation of the tick labels in degrees: 0, -45 or -90.
    pub(super) angle: f64,
    /// Font size of the tick labels; 0 draws none.
    pub(super) size: f64,
    /// Where the axis title's middle line stands, from the frame outwards.
    pub(super) title_at: f64,
    /// Draw a line across the panel at each tick, and a darker one at zero.
    pub(super) lines: bool,
    /// Draw the axis itself.
    pub(super) line: bool,
}

/// Something drawn in a panel.
#[derive(Debug, Clone)]
pub(super) enum Mark {
    Cells(Box<Cells>),
    Line(Line),
    Bars(Bars),
    Points(Points),
}

/// A matrix of coloured cells, rows along y; NaN where there is none.
#[derive(Debug, Clone)]
pub(super) struct Cells {
    pub(super) values: Array2<f64>,
    pub(super) name: String,
    pub(super) x_name: String,
    pub(super) y_name: String,
    pub(super) unit: String,
    /// Axes are layer and head, whose labels joined name a head: `L2H3`.
    pub(super) heads: bool,
    /// Rows write and columns read: `L0H1 → L1H2`.
    pub(super) edges: bool,
    pub(super) text: Option<Array2<String>>,
    pub(super) code: Option<Array2<String>>,
    /// Full name of each cell: site and token.
    pub(super) sites: Option<Array2<String>>,
    /// What else a hover says, in lines.
    pub(super) hover: Option<Array2<String>>,
    /// Decimals that values are stored with; 4 significant digits if none.
    pub(super) decimals: Option<u32>,
}

/// A series along labelled or numeric x; NaN breaks the line.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) color: Rgb,
    pub(super) x: Vec<f64>,
    pub(super) y: Vec<f64>,
    pub(super) band: Option<(Vec<f64>, Vec<f64>)>,
    pub(super) unit: String,
    pub(super) dots: bool,
    /// Dash pattern, 0 solid: colours repeat when there are many series.
    pub(super) dash: usize,
    /// A guide to the eye: neither in the legend nor pointed at.
    pub(super) quiet: bool,
    /// Bars of the same name stand for it in the legend.
    pub(super) unlisted: bool,
}

/// Bars of one series; NaN draws none.
#[derive(Debug, Clone)]
pub(super) struct Bars {
    pub(super) name: String,
    pub(super) colors: Vec<Rgb>,
    pub(super) x: Vec<f64>,
    pub(super) y: Vec<f64>,
    pub(super) width: f64,
    pub(super) bounds: Option<(Vec<f64>, Vec<f64>)>,
    pub(super) unit: String,
    /// Index of each bar's label: with several series, bars stand beside their tick.
    pub(super) labels: Vec<String>,
    /// Opacity, 1 for solid.
    pub(super) alpha: f64,
    /// Bars lie: `x` counts along the vertical axis.
    pub(super) across: bool,
    /// Left out of the legend.
    pub(super) quiet: bool,
}

/// Points of one group.
#[derive(Debug, Clone)]
pub(super) struct Points {
    pub(super) name: String,
    pub(super) color: Rgb,
    pub(super) x: Vec<f64>,
    pub(super) y: Vec<f64>,
    pub(super) labels: Vec<String>,
    /// What is written beside the points, if anything.
    pub(super) written: Option<Vec<String>>,
    pub(super) x_name: String,
    pub(super) y_name: String,
    /// Text around each point: before, itself, after.
    pub(super) contexts: Option<Vec<[String; 3]>>,
}

impl Panel {
    /// Pixel of an x value.
    pub(super) fn px(&self, x: f64) -> f64 {
        self.frame.x + (x - self.x.from) / (self.x.to - self.x.from) * self.frame.w
    }

    /// Pixel of a y value.
    pub(super) fn py(&self, y: f64) -> f64 {
        self.frame.y + self.frame.h - (y - self.y.from) / (self.y.to - self.y.from) * self.frame.h
    }
}

impl Scene {
    /// Moves everything by some pixels.
    pub(super) fn moved(mut self, dx: f64, dy: f64) -> Scene {
        let shift = |frame: &mut Frame| {
            frame.x += dx;
            frame.y += dy;
        };
        self.panels.iter_mut().for_each(|panel| shift(&mut panel.frame));
        if let Some(bar) = &mut self.bar {
            shift(&mut bar.frame);
        }
        if let Some(legend) = &mut self.legend {
            legend.x += dx;
            legend.y += dy;
        }
        self
    }
}

/// Scenes at their places: what one notebook output shows.
#[derive(Debug, Clone, Default)]
pub(super) struct Page {
    pub(super) width: f64,
    pub(super) height: f64,
    /// Each scene with its upper left corner; its frames count from the page's corner.
    pub(super) scenes: Vec<(f64, f64, Scene)>,
    /// Each drawing with its upper left corner.
    pub(super) pictures: Vec<(f64, f64, Picture)>,
    /// Titles of rows and columns, each with its upper left corner.
    pub(super) headings: Vec<(f64, f64, String)>,
    /// Small print that only the SVG has: what cannot be chosen there.
    pub(super) remarks: Vec<(f64, f64, String)>,
    /// The page in one line, where it is more than its scenes.
    pub(super) told: Option<String>,
}

/// A drawing that is no chart, written once for the SVG and once for HTML.
#[derive(Debug, Clone, Default)]
pub(super) struct Picture {
    pub(super) width: f64,
    pub(super) height: f64,
    /// SVG elements, measured from the picture's corner.
    pub(super) svg: String,
    /// HTML that needs neither the network nor plotly.js; the SVG stands in where it is empty.
    pub(super) html: String,
    /// The picture in one line, with its numbers.
    pub(super) summary: String,
}
