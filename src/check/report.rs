//! All findings, and the line that a monitoring system reads.

use super::{Finding, Severity};
use crate::error::Error;
use crate::pg::SystemIdentifier;

/// A number worth a graph.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Measure {
    /// Its name: stable.
    pub name: &'static str,
    /// Its value.
    pub value: f64,
    /// `s` for seconds, `B` for bytes, nothing for a count.
    pub unit: &'static str,
    /// From when on it is a warning, and critical.
    pub thresholds: Option<(f64, f64)>,
}

/// What `walhalla check` found out.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Where the repository is; no secrets.
    pub storage: String,
    /// Which cluster was looked at.
    pub system: Option<SystemIdentifier>,
    /// The findings, in the order of the story.
    pub findings: Vec<Finding>,
    /// Numbers.
    pub measures: Vec<Measure>,
}

impl Report {
    pub(super) fn new(storage: &str) -> Self {
        Self { storage: storage.to_owned(), ..Self::default() }
    }

    /// The report of a check that could not begin.
    pub fn cannot(error: &Error) -> Self {
        let finding = Finding::of_error("settings", Severity::Unknown, error);
        Self { findings: vec![finding], ..Self::default() }
    }

    pub(super) fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    pub(super) fn insert(&mut self, place: usize, finding: Finding) {
        self.findings.insert(place.min(self.findings.len()), finding);
    }

    pub(super) fn len(&self) -> usize {
        self.findings.len()
    }

    pub(super) fn measure(&mut self, name: &'static str, value: f64, unit: &'static str) {
        self.measures.push(Measure { name, value, unit, thresholds: None });
    }

    pub(super) fn measure_against(&mut self, name: &'static str, value: f64, unit: &'static str, limits: (f64, f64)) {
        self.measures.push(Measure { name, value, unit, thresholds: Some(limits) });
    }

    pub(super) fn is_critical(&self, subjects: &[&str]) -> bool {
        self.findings.iter().any(|it| it.severity == Severity::Critical && subjects.contains(&it.subject))
    }

    /// The worst of all: never [`Severity::Skipped`].
    pub fn severity(&self) -> Severity {
        let worst = self.findings.iter().map(|finding| finding.severity).max();
        worst.filter(|worst| *worst != Severity::Skipped).unwrap_or(Severity::Ok)
    }

    /// What stands in the one line: the worst finding, and how many others there are like it; else how many are right.
    pub fn summary(&self) -> String {
        let worst = self.severity();
        let alike: Vec<&Finding> = self.findings.iter().filter(|finding| finding.severity == worst).collect();
        match (worst, alike.as_slice()) {
            (Severity::Ok, alike) => format!("{} checks, all well", alike.len()),
            (_, [first]) => format!("{}: {}", first.subject, first.text),
            (_, [first, rest @ ..]) => format!("{}: {} (and {} more)", first.subject, first.text, rest.len()),
            (_, []) => String::new(),
        }
    }

    /// The line that a monitoring system reads, with performance data.
    pub fn closing_line(&self) -> String {
        let data: Vec<String> = self.measures.iter().map(performance).collect();
        let separator = if data.is_empty() { "" } else { " | " };
        let summary = self.summary().replace('|', "¦");
        format!("WALHALLA {} - {summary}{separator}{}", self.severity().word(), data.join(" "))
    }
}

/// As the Nagios plugins' guidelines have it: `'label'=value[UOM];[warn];[crit];[min];[max]`.
fn performance(measure: &Measure) -> String {
    let Measure { name, value, unit, thresholds } = measure;
    let value = rounded(*value);
    match thresholds {
        Some((warning, critical)) => format!("{name}={value}{unit};{};{}", rounded(*warning), rounded(*critical)),
        None => format!("{name}={value}{unit}"),
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn the_closing_line() {
        let mut report = Report::new("s3://b");
        report.add(Finding::ok("server", "there"));
        report.add(Finding::skipped("arrival", "not wanted"));
        assert_eq!(report.closing_line(), "WALHALLA OK - 1 checks, all well");
        report.measure("lag", 12.0, "B");
        report.measure_against("backlog", 3.25, "", (64.0, 512.0));
        report.add(Finding::unknown("clock", "who knows"));
        assert_eq!(report.closing_line(), "WALHALLA UNKNOWN - clock: who knows | lag=12B backlog=3.25;64;512");
        report.add(Finding::critical("archive_mode", "a | b"));
        report.add(Finding::critical("backups", "none"));
        assert!(report.closing_line().starts_with("WALHALLA CRITICAL - archive_mode: a ¦ b (and 1 more) | "));
    }

    #[test]
    fn a_check_that_cannot_begin_is_unknown() {
        let report = Report::cannot(&Error::new(ErrorKind::Config, "no storage").hint("name one"));
        assert_eq!(report.severity(), Severity::Unknown);
        assert_eq!(report.findings[0].advice.as_deref(), Some("name one"));
    }
}
