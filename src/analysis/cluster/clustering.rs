//! Which item is in which group.

use std::fmt;

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

use super::items::Items;
use crate::grid::Grid;
use crate::hook::site::Axis;
use crate::show::{Content, Show, escape, show_value};

/// Items in groups, the largest group first.
pub struct Clustering {
    /// The group of each item, 0 first; -1 for noise, which belongs to none.
    pub groups: Vec<i64>,
    /// One label an item.
    pub labels: Vec<String>,
    /// How many items each group has: `[Cluster]`. Its notes say how the groups were found.
    pub sizes: Grid,
    /// Mean of each group's items, `[Cluster, Feature]`, f64.
    pub centers: Tensor,
    /// Summed squared distances of the items to the mean of their group, noise left out.
    pub inertia: f64,
}

impl Clone for Clustering {
    fn clone(&self) -> Self {
        Clustering {
            groups: self.groups.clone(),
            labels: self.labels.clone(),
            sizes: self.sizes.clone(),
            centers: self.centers.shallow_clone(),
            ..*self
        }
    }
}

impl Clustering {
    /// Groups of items as given: the names of groups are replaced by their places by size, those of
    /// equal size in the order of their first items. -1 is noise.
    pub fn new(items: impl Into<Items>, groups: &[i64]) -> Result<Self> {
        let items = items.into();
        let x = items.checked("clustering")?;
        let (n, found) = (items.len(), groups.len());
        ensure!(n == found, "clustering: {found} groups given for {n} items");
        let groups = by_size(groups);
        let k = groups.iter().max().map_or(0, |last| last + 1);
        let (sizes, centers) = means(&x, &groups, k);
        let kept: Vec<i64> = (0..n as i64).filter(|i| groups[*i as usize] >= 0).collect();
        let own: Vec<i64> = groups.iter().copied().filter(|group| *group >= 0).collect();
        let inertia = if kept.is_empty() {
            0.0
        } else {
            let near = centers.index_select(0, &Tensor::from_slice(&own).to_device(x.device()));
            let at = Tensor::from_slice(&kept).to_device(x.device());
            (x.index_select(0, &at) - near).square().sum(None).double_value(&[])
        };
        let names: Vec<String> = (0..k).map(|i| format!("group {i}")).collect();
        let sizes = Grid::from_tensor(&sizes, &[(Axis::Cluster, names)], "items")?
            .of_runs(items.origins.iter().cloned())
            .name(&format!("groups of {}", items.name))
            .note("noise", &groups.iter().filter(|group| **group < 0).count().to_string());
        Ok(Clustering { groups, labels: items.labels, sizes, centers, inertia })
    }

    /// A fact on how the groups were found.
    pub(super) fn note(mut self, key: &str, value: &str) -> Self {
        self.sizes = self.sizes.note(key, value);
        self
    }

    /// Number of groups.
    pub fn k(&self) -> usize {
        self.sizes.shape()[0]
    }

    /// Number of items in no group.
    pub fn noise(&self) -> usize {
        self.groups.iter().filter(|group| **group < 0).count()
    }

    /// Labels of the items of a group, in their order; none for a group that is not there.
    pub fn members(&self, group: usize) -> Vec<&str> {
        let own = self.groups.iter().zip(&self.labels).filter(|(own, _)| **own == group as i64);
        own.map(|(_, label)| label.as_str()).collect()
    }

    /// The name of each item's group, "noise" for none, as `Figure::color_by` takes them.
    pub fn names(&self) -> Vec<String> {
        let name = |group: &i64| match group {
            -1 => "noise".to_owned(),
            group => format!("group {group}"),
        };
        self.groups.iter().map(name).collect()
    }

    /// Shows the groups in a notebook, a line for each with its first members.
    pub fn evcxr_display(&self) {
        show_value(self);
    }
}

/// One line: how many items in which groups.
impl fmt::Debug for Clustering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes: Vec<String> = self.sizes.values.iter().map(f64::to_string).collect();
        let (n, name, noise) = (self.groups.len(), &self.sizes.name, self.noise());
        write!(f, "{name}: {n} items in {} of {}", self.k(), sizes.join(", "))?;
        if noise > 0 { write!(f, ", {noise} in none") } else { Ok(()) }
    }
}

impl Show for Clustering {
    fn content(&self) -> Content {
        let most = 40;
        let line = |group: usize| {
            let members = self.members(group);
            let first: Vec<String> = members
                .iter()
                .take(most)
                .map(|label| format!("<code>{}</code>", escape(label)))
                .collect();
            let more = members.len().saturating_sub(most);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!(
                "<tr><th>group {group} ({})</th><td style=\"text-align:left\">{}{more}</td></tr>",
                members.len(),
                first.join(" ")
            )
        };
        let body: String = (0..self.k()).map(line).collect();
        let text = format!("{self:?}");
        let caption = escape(&text);
        let table =
            format!("<table class=\"thalweg-groups\"><caption>{caption}</caption>{body}</table>");
        Content::text(&text).with("text/html", table)
    }
}

/// The same groups, numbered from the largest; those of equal size by their first item.
fn by_size(groups: &[i64]) -> Vec<i64> {
    let mut found: Vec<(i64, usize, usize)> = Vec::new(); // name, items, first item
    for (item, group) in groups.iter().enumerate().filter(|(_, group)| **group >= 0) {
        match found.iter_mut().find(|(name, ..)| name == group) {
            Some((_, items, _)) => *items += 1,
            None => found.push((*group, 1, item)),
        }
    }
    found.sort_by_key(|(_, items, first)| (std::cmp::Reverse(*items), *first));
    let place =
        |group: &i64| found.iter().position(|(name, ..)| name == group).map_or(-1, |at| at as i64);
    groups.iter().map(place).collect()
}

/// Items and mean of each group: `[k]`, `[k, Feature]`.
pub(super) fn means(x: &Tensor, groups: &[i64], k: i64) -> (Tensor, Tensor) {
    let options = (Kind::Double, x.device());
    // Noise goes to one row more, which is cut off.
    let index: Vec<i64> = groups.iter().map(|group| if *group < 0 { k } else { *group }).collect();
    let index = Tensor::from_slice(&index).to_device(x.device());
    let ones = Tensor::ones([x.size()[0]], options);
    let sizes = Tensor::zeros([k + 1], options).index_add(0, &index, &ones).narrow(0, 0, k);
    let sums = Tensor::zeros([k + 1, x.size()[1]], options).index_add(0, &index, x).narrow(0, 0, k);
    let means = sums / sizes.clamp_min(1.0).unsqueeze(1);
    (sizes, means)
}
