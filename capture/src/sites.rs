//! Sites as a command line names them.

use anyhow::{Result, bail};
use thalweg::{Point, Site, Sites};

/// Sites from their names, separated by commas: `blocks.3.hook_resid_post`, that point in every
/// layer (`hook_resid_post` or `blocks.*.hook_resid_post`), in some (`blocks.{4..7}.hook_resid_post`,
/// the last one included), `hook_embed`.
///
/// ```
/// use thalweg::Point;
/// use thalweg_capture::parse_sites;
/// let sites = parse_sites("hook_embed,blocks.{1..2}.attn.hook_z")?.resolve(4);
/// assert_eq!(sites[1..], [Point::Z.at(1), Point::Z.at(2)]);
/// assert_eq!(parse_sites("hook_resid_post")?.resolve(4).len(), 4);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn parse_sites(text: &str) -> Result<Sites> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    Ok(names.map(one).collect::<Result<Vec<Sites>>>()?.into())
}

fn one(name: &str) -> Result<Sites> {
    let point = |name: &str| Point::ALL.into_iter().find(|point| point.name() == name);
    if let Some(point) = point(name.strip_prefix("blocks.*.").unwrap_or(name)) {
        return Ok(point.into());
    }
    let range = name.strip_prefix("blocks.{").and_then(|rest| rest.split_once("}."));
    if let Some((range, name)) = range {
        let ends =
            range.split_once("..").and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        return match (ends, point(name)) {
            (Some((first, last)), Some(point)) if first <= last => {
                let layers: std::ops::RangeInclusive<usize> = first..=last;
                Ok(layers.map(|layer| point.at(layer)).collect::<Vec<_>>().into())
            }
            _ => bail!(
                "no sites blocks.{{{range}}}.{name}: expected such as blocks.{{4..7}}.hook_resid_post"
            ),
        };
    }
    Ok(name.parse::<Site>()?.into())
}
