//! Bytes, seconds and counts as people write them.

/// `1.2 TB`: three digits at most, powers of a thousand.
///
/// ```
/// use thalweg_capture::plan::bytes;
/// assert_eq!([bytes(270_336.0), bytes(2.7e14)], ["270 kB", "270 TB"]);
/// ```
pub fn bytes(n: f64) -> String {
    scaled(n, &["B", "kB", "MB", "GB", "TB", "PB", "EB"])
}

/// `4.1 k`: of tokens a second and the like.
pub fn count(n: f64) -> String {
    scaled(n, &["", "k", "M", "G", "T"]).trim_end().to_owned()
}

fn scaled(mut n: f64, units: &[&str]) -> String {
    let mut unit = 0;
    // 999.5 would be written as 1000.
    while n >= 999.5 && unit + 1 < units.len() {
        n /= 1000.0;
        unit += 1;
    }
    format!("{} {}", digits(n), units[unit])
}

/// Three digits at most: `270`, `27.0`, `2.70` as `270`, `27`, `2.7`.
fn digits(n: f64) -> String {
    if n >= 10.0 { format!("{n:.0}") } else { format!("{n:.1}") }
}

/// `45 s`, `12 min`, `3.4 h`, `2.1 days`.
///
/// ```
/// use thalweg_capture::plan::seconds;
/// assert_eq!([seconds(45.0), seconds(90.0 * 60.0)], ["45 s", "1.5 h"]);
/// ```
pub fn seconds(n: f64) -> String {
    let units = [("days", 86400.0), ("h", 3600.0), ("min", 60.0)];
    let (name, unit) = units.into_iter().find(|(_, unit)| n >= *unit).unwrap_or(("s", 1.0));
    if n < 0.95 {
        return "under 1 s".to_owned();
    }
    if n / unit >= 36524.0 {
        return format!("{} centuries", digits(n / unit / 36524.0));
    }
    format!("{} {name}", digits(n / unit))
}
