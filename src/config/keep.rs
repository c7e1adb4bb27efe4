//! The table `[keep]`: which backups stay, and how much of the past.

use super::values::{self, Value};
use std::time::Duration;
use toml::de::{DeTable, DeValue};

const DAY: u64 = 24 * 60 * 60;

/// How much of the past is kept. A backup stays if any of these wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keep {
    /// The newest backups, this many whatever their age; at least one.
    pub last: u32,
    /// The newest backup of each of the last days that have one, this many days (UTC).
    pub daily: u32,
    /// The same by weeks, which begin on Monday (ISO 8601, UTC).
    pub weekly: u32,
    /// Every moment of this span, back from now, stays restorable.
    pub window: Duration,
    /// Backups that stay for ever, by id or label.
    pub permanent: Vec<String>,
}

impl Default for Keep {
    fn default() -> Self {
        Self { last: 1, daily: 7, weekly: 4, window: Duration::from_secs(30 * DAY), permanent: Vec::new() }
    }
}

impl Keep {
    /// Takes the keys of the table; what it does not name keeps its default. An error names the key, and where it stands as a
    /// position in the text.
    pub(super) fn parse(table: &DeTable<'_>) -> Result<Self, (std::ops::Range<usize>, String)> {
        let mut keep = Self::default();
        for (key, value) in table {
            let name: &str = key.get_ref();
            keep.set(name, value.get_ref()).map_err(|why| (key.span(), format!("keep.{name}: {why}")))?;
        }
        Ok(keep)
    }

    fn set(&mut self, name: &str, value: &DeValue<'_>) -> Value<()> {
        match name {
            "last" => self.last = count(value, 1)?,
            "daily" => self.daily = count(value, 0)?,
            "weekly" => self.weekly = count(value, 0)?,
            "window" => self.window = window(value)?,
            "permanent" => self.permanent = words(value)?,
            _ => return Err("there is no such setting; the table has last, daily, weekly, window, permanent".into()),
        }
        Ok(())
    }
}

fn count(value: &DeValue<'_>, least: u32) -> Value<u32> {
    let number = value.as_integer().filter(|number| number.radix() == 10);
    number
        .and_then(|number| number.as_str().parse::<u32>().ok())
        .filter(|number| (least..=10_000).contains(number))
        .ok_or_else(|| format!("it must be a whole number from {least} to 10000"))
}

/// A text like `30d`, because a bare number would be taken for days by one and for seconds by another.
fn window(value: &DeValue<'_>) -> Value<Duration> {
    let text = value.as_str().filter(|text| text.ends_with(|last: char| last.is_ascii_alphabetic()));
    let span = values::duration(text.ok_or("it must be a text with a unit, like \"30d\"")?.trim())?;
    if span > Duration::from_secs(100 * 366 * DAY) {
        return Err("it must not be longer than a hundred years".into());
    }
    Ok(span)
}

fn words(value: &DeValue<'_>) -> Value<Vec<String>> {
    let wrong = "it must be a list of texts: ids or labels of backups";
    let items = value.as_array().ok_or(wrong)?;
    items.iter().map(|item| item.get_ref().as_str().map(str::to_owned).ok_or_else(|| wrong.to_owned())).collect()
}
