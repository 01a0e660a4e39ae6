//! Several sites at once, as a plan takes them.

use std::fmt;

use super::site::{Point, Site};

/// One or many sites, as [`Plan`](crate::Plan) takes them: a [`Site`], a [`Point`] (that point in
/// every layer), or a list of either.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sites(Vec<Pick>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pick {
    One(Site),
    EveryLayer(Point),
    Everything,
}

impl Sites {
    /// Every site of the model but those that are computed only when named.
    pub fn everything() -> Self {
        Sites(vec![Pick::Everything])
    }

    /// The sites meant in a model with `n_layers` blocks, in the order given.
    pub fn resolve(&self, n_layers: usize) -> Vec<Site> {
        let mut sites = Vec::new();
        for pick in &self.0 {
            match *pick {
                Pick::One(site) => sites.push(site),
                Pick::EveryLayer(point) => sites.extend((0..n_layers).map(|l| point.at(l))),
                Pick::Everything => sites.extend(
                    Site::all(n_layers)
                        .into_iter()
                        .filter(|site| !site.point().is_some_and(Point::only_when_named)),
                ),
            }
        }
        sites
    }

    /// True if no site is named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Sites {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |pick: &Pick| match pick {
            Pick::One(site) => site.to_string(),
            Pick::EveryLayer(point) => format!("blocks.*.{}", point.name()),
            Pick::Everything => "everything".to_owned(),
        };
        f.write_str(&self.0.iter().map(name).collect::<Vec<_>>().join(", "))
    }
}

impl From<Site> for Sites {
    fn from(site: Site) -> Self {
        Sites(vec![Pick::One(site)])
    }
}

impl From<Point> for Sites {
    fn from(point: Point) -> Self {
        Sites(vec![Pick::EveryLayer(point)])
    }
}

impl<T: Into<Sites>> From<Vec<T>> for Sites {
    fn from(list: Vec<T>) -> Self {
        Sites(list.into_iter().flat_map(|item| item.into().0).collect())
    }
}

impl<T: Into<Sites> + Clone> From<&[T]> for Sites {
    fn from(list: &[T]) -> Self {
        list.to_vec().into()
    }
}

impl<T: Into<Sites>, const N: usize> From<[T; N]> for Sites {
    fn from(list: [T; N]) -> Self {
        Vec::from(list).into()
    }
}
