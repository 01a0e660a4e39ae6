//! Several scenes on one page.

use super::layout::TITLE_SIZE;
use super::scene::{Page, Picture, Scene};
use super::text;

/// Pixels between neighbours.
const GAP: f64 = 28.0;
/// Pixels that a row may take: what notebooks show without a scroll bar.
const WIDEST: f64 = 1000.0;

impl Page {
    /// A page with one scene.
    pub(super) fn of(scene: Scene) -> Page {
        Page {
            width: scene.width,
            height: scene.height,
            scenes: vec![(0.0, 0.0, scene)],
            ..Page::default()
        }
    }

    /// A page with one drawing.
    pub(super) fn of_picture(picture: Picture) -> Page {
        let (width, height) = (picture.width, picture.height);
        Page { width, height, pictures: vec![(0.0, 0.0, picture)], ..Page::default() }
    }

    /// The same page with room above it.
    pub(super) fn lowered(mut self, by: f64) -> Page {
        self.height += by;
        let scenes = self.scenes.into_iter();
        self.scenes = scenes.map(|(x, y, scene)| (x, y + by, scene.moved(0.0, by))).collect();
        self
    }

    /// Pages side by side; one that would go beyond the widest row begins another one.
    pub(super) fn row(pages: impl Iterator<Item = Page>, title: &str) -> Page {
        let (mut right, mut top, mut bottom) = (0.0, 0.0, 0.0f64);
        Page::joined(pages, title, |page| {
            if right > 0.0 && right + page.width > WIDEST {
                (right, top) = (0.0, bottom + GAP * 0.5);
            }
            let corner = (right, top);
            right += page.width + GAP;
            bottom = bottom.max(top + page.height);
            corner
        })
    }

    /// Pages under one another.
    pub(super) fn column(pages: impl Iterator<Item = Page>, title: &str) -> Page {
        let mut next = 0.0;
        Page::joined(pages, title, |page| {
            let top = next;
            next += page.height + GAP * 0.5;
            (0.0, top)
        })
    }

    /// `place` gives each page's corner, one after the other.
    fn joined(
        pages: impl Iterator<Item = Page>,
        title: &str,
        mut place: impl FnMut(&Page) -> (f64, f64),
    ) -> Page {
        let mut whole = Page::default();
        let mut told = Vec::new();
        let top = if title.is_empty() { 0.0 } else { TITLE_SIZE * 2.2 };
        for page in pages {
            let (dx, dy) = place(&page);
            let dy = dy + top;
            told.push(page.summary());
            whole.width = whole.width.max(dx + page.width);
            whole.height = whole.height.max(dy + page.height);
            for (x, y, scene) in page.scenes {
                whole.scenes.push((x + dx, y + dy, scene.moved(dx, dy)));
            }
            let pictures = page.pictures.into_iter();
            whole.pictures.extend(pictures.map(|(x, y, picture)| (x + dx, y + dy, picture)));
            let remarks = page.remarks.into_iter();
            whole.remarks.extend(remarks.map(|(x, y, text)| (x + dx, y + dy, text)));
            whole
                .headings
                .extend(page.headings.into_iter().map(|(x, y, text)| (x + dx, y + dy, text)));
        }
        if !title.is_empty() {
            whole.headings.insert(0, (12.0, 0.0, text::visible_words(title)));
            told.insert(0, text::visible_words(title));
        }
        (whole.width, whole.height) = (whole.width.max(200.0), whole.height.max(40.0));
        whole.told = Some(told.join("; "));
        whole
    }

    /// The figure in words, one scene after the other.
    pub(super) fn summary(&self) -> String {
        if let Some(told) = &self.told {
            return told.clone();
        }
        let scenes = self.scenes.iter().map(|(_, _, scene)| scene.summary.as_str());
        let pictures = self.pictures.iter().map(|(_, _, picture)| picture.summary.as_str());
        scenes.chain(pictures).collect::<Vec<_>>().join("; ")
    }
}
