//! A date as Python's `strftime` writes it.

use anyhow::{Result, ensure};
use minijinja::{Error, ErrorKind};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] =
    ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// A day of the Gregorian calendar, at midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Date {
    pub(super) year: u32,
    /// From 1.
    pub(super) month: u32,
    /// From 1.
    pub(super) day: u32,
}

impl Date {
    pub(super) fn check(self) -> Result<()> {
        let Date { year, month, day } = self;
        ensure!(
            (1..=9999).contains(&year)
                && (1..=12).contains(&month)
                && (1..=days(year, month)).contains(&day),
            "date({year}, {month}, {day}): expected a year, a month of 1 to 12 and a day it has"
        );
        Ok(())
    }

    /// `%d %b %Y` and the like; a sign that is not known is an error.
    pub(super) fn format(self, format: &str) -> Result<String, Error> {
        let mut out = String::new();
        let mut signs = format.chars();
        while let Some(c) = signs.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let sign = signs.next();
            let (sign, padded) = match sign {
                Some('-') => (signs.next(), false),
                other => (other, true),
            };
            out.push_str(&self.sign(sign, padded)?);
        }
        Ok(out)
    }

    fn sign(self, sign: Option<char>, padded: bool) -> Result<String, Error> {
        let Date { year, month, day } = self;
        let name = MONTHS[month as usize - 1];
        let weekday = DAYS[self.weekday()];
        let two = |n: u32| if padded { format!("{n:02}") } else { n.to_string() };
        Ok(match sign {
            Some('d') => two(day),
            Some('m') => two(month),
            Some('y') => two(year % 100),
            Some('Y') => year.to_string(),
            Some('B') => name.to_owned(),
            Some('b' | 'h') => name[..3].to_owned(),
            Some('A') => weekday.to_owned(),
            Some('a') => weekday[..3].to_owned(),
            Some('j') if padded => format!("{:03}", self.day_of_year()),
            Some('j') => self.day_of_year().to_string(),
            Some('F') => format!("{year}-{month:02}-{day:02}"),
            Some('H' | 'M' | 'S') => two(0),
            Some('I') => "12".to_owned(),
            Some('p') => "AM".to_owned(),
            Some('%') => "%".to_owned(),
            other => {
                let sign = other.map(String::from).unwrap_or_default();
                let what = format!("strftime_now: %{sign} is not known here");
                return Err(Error::new(ErrorKind::InvalidOperation, what));
            }
        })
    }

    fn day_of_year(self) -> u32 {
        (1..self.month).map(|month| days(self.year, month)).sum::<u32>() + self.day
    }

    /// 0 is Monday: the first of January of year 1 was one.
    fn weekday(self) -> usize {
        let before = self.year - 1;
        let days = before * 365 + before / 4 - before / 100 + before / 400 + self.day_of_year() - 1;
        days as usize % 7
    }
}

fn days(year: u32, month: u32) -> u32 {
    let leap = year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}
