//! What is shown of a value: the same thing in several formats.

/// One thing in several formats, of which a front end shows the best that it knows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content {
    parts: Vec<(String, String)>,
}

impl Content {
    /// Plain text.
    pub fn text(text: impl Into<String>) -> Self {
        Content::default().with("text/plain", text)
    }

    /// The same with one more format, or with another value for one it has. JSON formats
    /// (`application/json`, `..+json`) take JSON text.
    pub fn with(mut self, mime: &str, data: impl Into<String>) -> Self {
        self.parts.retain(|(own, _)| own != mime);
        self.parts.push((mime.to_owned(), data.into()));
        self
    }

    /// What a format holds.
    pub fn get(&self, mime: &str) -> Option<&str> {
        self.parts.iter().find(|(own, _)| own == mime).map(|(_, data)| data.as_str())
    }

    /// Formats and what they hold.
    pub fn parts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parts.iter().map(|(mime, data)| (mime.as_str(), data.as_str()))
    }

    /// The text that stands for it where nothing else can be shown.
    pub(super) fn plain(&self) -> &str {
        self.get("text/plain").unwrap_or_default()
    }

    /// Whether there is more to it than text.
    pub(super) fn is_rich(&self) -> bool {
        self.parts.iter().any(|(mime, _)| mime != "text/plain")
    }
}

/// What can be shown with [`display`](crate::display). A type of your own needs this one method:
///
/// ```
/// use thalweg::{Content, Show, display};
/// struct Share(f64);
/// impl Show for Share {
///     fn content(&self) -> Content {
///         let text = format!("{:.0} %", 100.0 * self.0);
///         Content::text(&text).with("text/html", format!("<meter value={}></meter> {text}", self.0))
///     }
/// }
/// display(&Share(0.25));
/// assert_eq!(Share(0.25).content().get("text/plain"), Some("25 %"));
/// ```
pub trait Show {
    /// The value in each format it has.
    fn content(&self) -> Content;
}

/// HTML, shown as it stands: escape what is not yours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Html(pub String);

/// Markdown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Markdown(pub String);

impl Html {
    /// Shows it as the value of a cell.
    pub fn evcxr_display(&self) {
        super::show_value(self);
    }
}

impl Markdown {
    /// Shows it as the value of a cell.
    pub fn evcxr_display(&self) {
        super::show_value(self);
    }
}

impl Show for Html {
    fn content(&self) -> Content {
        Content::text(&self.0).with("text/html", &self.0)
    }
}

impl Show for Markdown {
    fn content(&self) -> Content {
        Content::text(&self.0).with("text/markdown", &self.0)
    }
}

impl Show for Content {
    fn content(&self) -> Content {
        self.clone()
    }
}

impl<T: Show + ?Sized> Show for &T {
    fn content(&self) -> Content {
        (**self).content()
    }
}

macro_rules! as_display {
    ($($kind:ty)*) => {$(
        impl Show for $kind {
            fn content(&self) -> Content {
                Content::text(self.to_string())
            }
        }
    )*};
}

as_display!(str String bool char f32 f64 i8 i16 i32 i64 i128 isize u8 u16 u32 u64 u128 usize);

macro_rules! as_debug {
    ($([$($generic:tt)*] $kind:ty;)*) => {$(
        impl<$($generic)*> Show for $kind {
            fn content(&self) -> Content {
                Content::text(format!("{self:?}"))
            }
        }
    )*};
}

as_debug! {
    [T: std::fmt::Debug] [T];
    [T: std::fmt::Debug] Vec<T>;
    [T: std::fmt::Debug] Option<T>;
    [A: std::fmt::Debug, D: ndarray::Dimension] ndarray::Array<A, D>;
}

/// Text that HTML and SVG show as it is.
pub(crate) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // XML 1.0 forbids these outright, even escaped.
            c if c.is_control() && !"\n\t".contains(c) => safe.push('\u{fffd}'),
            '\u{fffe}' | '\u{ffff}' => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}
