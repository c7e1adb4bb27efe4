//! Moments: what the operator typed, to an instant that nobody can misread.

use crate::error::{Error, ErrorKind, Result};
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use jiff::{Timestamp, Unit};
use std::fmt;
use std::str::FromStr;

/// An instant in whole microseconds, which is what Postgres stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TargetTime(Timestamp);

impl TargetTime {
    /// The instant of this many microseconds since 1970, UTC; `None` outside the years -9999 to 9999.
    pub fn from_unix_micros(micros: i64) -> Option<Self> {
        Timestamp::from_microsecond(micros).ok().map(Self)
    }

    /// The instant of this many microseconds since 2000, UTC: a `TimestampTz` of Postgres.
    pub fn from_postgres(micros: i64) -> Option<Self> {
        const EPOCH_2000: i64 = 946_684_800_000_000;
        micros.checked_add(EPOCH_2000).and_then(Self::from_unix_micros)
    }

    /// An instant as our manifests write it (RFC 3339).
    pub fn from_manifest(text: &str) -> Result<Self> {
        text.parse::<Timestamp>().map(Self).map_err(|error| {
            Error::new(ErrorKind::Corrupt, format!("a backup's manifest has the time {text:?}"))
                .because(error.to_string())
        })
    }

    /// This instant, to the microsecond before it.
    pub fn from_timestamp(timestamp: Timestamp) -> Option<Self> {
        Self::from_unix_micros(timestamp.as_microsecond())
    }

    /// The instant itself.
    pub fn timestamp(self) -> Timestamp {
        self.0
    }

    /// As it stands in `recovery_target_time`: with a numeric offset, so that no setting of the server changes its meaning.
    pub fn for_postgres(self) -> String {
        self.0.strftime("%Y-%m-%d %H:%M:%S.%6f+00").to_string()
    }
}

impl fmt::Display for TargetTime {
    /// `2026-11-23 17:01:59.25 UTC`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} UTC", self.0.strftime("%Y-%m-%d %H:%M:%S%.f"))
    }
}

impl serde::Serialize for TargetTime {
    /// RFC 3339, UTC.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl FromStr for TargetTime {
    type Err = Error;

    /// A date and a time, then a zone: `Z`, `UTC`, a numeric offset (`+02`, `+0530`, `-03:30`), or a full name
    /// (`Europe/Berlin`). Without a zone, with an abbreviation, or twice in the night when clocks go back, it is refused:
    /// a restore to the wrong hour looks exactly like one to the right hour.
    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        let (clock, zone) = split_zone(text);
        let clock: DateTime = clock.trim_end().parse().map_err(|error: jiff::Error| {
            Error::new(ErrorKind::Config, format!("no moment: {text:?}"))
                .because(error.to_string())
                .hint("write it like '2026-11-23 17:01:59+01' or '2026-11-23 17:01:59 Europe/Berlin'")
        })?;
        let zone = parse_zone(zone).ok_or_else(|| unclear_zone(text, zone, clock))?;
        let timestamp = instant(text, clock, &zone)?;
        // Towards the past: what came within the same microsecond but later is not asked for.
        let micros = timestamp.as_nanosecond().div_euclid(1000);
        i64::try_from(micros)
            .ok()
            .and_then(Self::from_unix_micros)
            .ok_or_else(|| Error::new(ErrorKind::Config, format!("{text:?} is out of range")))
    }
}

/// The clock's part and the zone's.
fn split_zone(text: &str) -> (&str, &str) {
    // The date has hyphens too: look for the zone only behind it.
    let behind_date = text.char_indices().nth(10).map_or(text.len(), |(at, _)| at);
    let starts_zone = |(at, c): (usize, char)| {
        let zone =
            (c.is_ascii_alphabetic() && !(at == behind_date && c.eq_ignore_ascii_case(&'t'))) || c == '+' || c == '-';
        zone.then_some(at)
    };
    match text.char_indices().filter(|(at, _)| *at >= behind_date).find_map(starts_zone) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    }
}

fn parse_zone(zone: &str) -> Option<TimeZone> {
    match zone {
        "" => None,
        "Z" | "z" => Some(TimeZone::UTC),
        _ if zone.eq_ignore_ascii_case("utc") || zone.eq_ignore_ascii_case("gmt") => Some(TimeZone::UTC),
        _ if zone.contains('/') => TimeZone::get(zone).ok(),
        _ => parse_offset(zone).map(TimeZone::fixed),
    }
}

/// `±HH`, `±HHMM`, `±HH:MM`, `±HH:MM:SS`.
fn parse_offset(text: &str) -> Option<Offset> {
    let sign = match text.bytes().next()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let digits = text.get(1..)?;
    let parts: Vec<&str> = match digits.len() {
        1 | 2 => vec![digits],
        4 if !digits.contains(':') => vec![digits.get(..2)?, digits.get(2..)?],
        _ => digits.split(':').collect(),
    };
    let mut seconds = 0_i32;
    for (part, worth) in parts.iter().zip([3600, 60, 1]) {
        if part.is_empty() || part.len() > 2 || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        seconds += part.parse::<i32>().ok().filter(|n| worth == 3600 || *n < 60)? * worth;
    }
    (parts.len() <= 3).then(|| Offset::from_seconds(sign * seconds).ok()).flatten()
}

fn unclear_zone(text: &str, zone: &str, clock: DateTime) -> Error {
    let what = if zone.is_empty() {
        format!("{text:?} does not say in which time zone")
    } else {
        format!("{text:?} names no time zone that is clear: {zone:?}")
    };
    Error::new(ErrorKind::Config, what).hint(format!(
        "add a numeric offset or a full name: '{0}+00', '{0} Europe/Berlin'",
        clock.strftime("%Y-%m-%d %H:%M:%S%.f")
    ))
}

fn instant(text: &str, clock: DateTime, zone: &TimeZone) -> Result<Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(clock);
    let hint = match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { .. } => None,
        AmbiguousOffset::Gap { .. } => Some("clocks skip this time; give a numeric offset".to_owned()),
        AmbiguousOffset::Fold { before, after } => {
            Some(format!("clocks show this time twice: write {before} or {after} instead of the zone's name"))
        }
    };
    match hint {
        Some(hint) => Err(Error::new(ErrorKind::Config, format!("{text:?} is not one moment")).hint(hint)),
        None => ambiguous.unambiguous().map_err(|error| {
            Error::new(ErrorKind::Config, format!("{text:?} is out of range")).because(error.to_string())
        }),
    }
}

/// Now, in whole seconds, for comments in files.
pub fn now() -> String {
    let now = Timestamp::now();
    now.round(Unit::Second).unwrap_or(now).to_string()
}

/// Now, as Postgres' manifest writes the time of a file.
pub fn now_for_postgres() -> String {
    Timestamp::now().strftime("%Y-%m-%d %H:%M:%S GMT").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_that_are_clear() {
        for (text, wanted) in [
            ("2026-11-23 17:01:59Z", "2026-11-23 17:01:59.000000+00"),
            ("2026-11-23T17:01:59Z", "2026-11-23 17:01:59.000000+00"),
            ("2026-11-23 17:01:59 UTC", "2026-11-23 17:01:59.000000+00"),
            ("2026-11-23 17:01:59.1234567+00", "2026-11-23 17:01:59.123456+00"),
            ("2026-11-23 17:01:59+01", "2026-11-23 16:01:59.000000+00"),
            ("2026-11-23 17:01:59 +05:30", "2026-11-23 11:31:59.000000+00"),
            ("2026-11-23 17:01:59-0330", "2026-11-23 20:31:59.000000+00"),
            ("2026-07-01 12:00:00 Europe/Berlin", "2026-07-01 10:00:00.000000+00"),
            ("2026-11-23 17:01Z", "2026-11-23 17:01:00.000000+00"),
            (" 2026-11-23T17:01:59+01:00 ", "2026-11-23 16:01:59.000000+00"),
        ] {
            assert_eq!(text.parse::<TargetTime>().map(TargetTime::for_postgres).unwrap(), wanted, "{text}");
        }
    }

    #[test]
    fn moments_that_are_not() {
        for text in [
            "",
            "yesterday",
            "2026-11-23",
            "2026-11-23 17:01:59",
            "2026-11-23 17:01:59 CET",
            "2026-11-23 17:01:59 Europe/Atlantis",
            "2026-10-25 02:30:00 Europe/Berlin",
            "2026-03-29 02:30:00 Europe/Berlin",
            "2026-11-23 17:01:59+1x",
            "2026-11-23 17:01:59+01:00:00:00",
            "2026-13-23 17:01:59Z",
        ] {
            let error = text.parse::<TargetTime>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{text}");
            assert!(error.advice().is_some(), "{text}: {error}");
        }
        let error = "2026-10-25 02:30:00 Europe/Berlin".parse::<TargetTime>().unwrap_err();
        assert!(error.to_string().contains("+02") && error.to_string().contains("+01"), "{error}");
    }

    #[test]
    fn epochs() {
        assert_eq!(TargetTime::from_postgres(0).unwrap().to_string(), "2000-01-01 00:00:00 UTC");
        assert_eq!(TargetTime::from_manifest("2026-11-23T17:01:59Z").unwrap().to_string(), "2026-11-23 17:01:59 UTC");
        assert_eq!(TargetTime::from_postgres(i64::MAX), None);
    }
}
