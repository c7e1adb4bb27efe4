//! One line of the answer.

use crate::error::Error;

/// How bad it is. The greatest decides for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Looked at, and right.
    Ok,
    /// Not looked at, because it was not wanted or means nothing here. Counts for nothing.
    Skipped,
    /// It could not be looked at.
    Unknown,
    /// It should be seen to.
    Warning,
    /// WAL may be lost, or nothing could be restored.
    Critical,
}

impl Severity {
    /// As it stands in front of a line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Skipped => "SKIPPED",
            Self::Unknown => "UNKNOWN",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
        }
    }
}

/// What was found out about one thing.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// What it is about: a stable name.
    pub subject: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What was found: one line, no secrets.
    pub text: String,
    /// What to do about it.
    pub advice: Option<String>,
}

impl Finding {
    fn new(subject: &'static str, severity: Severity, text: impl Into<String>) -> Self {
        Self { subject, severity, text: one_line(&text.into()), advice: None }
    }

    pub(super) fn ok(subject: &'static str, text: impl Into<String>) -> Self {
        Self::new(subject, Severity::Ok, text)
    }

    pub(super) fn skipped(subject: &'static str, text: impl Into<String>) -> Self {
        Self::new(subject, Severity::Skipped, text)
    }

    pub(super) fn unknown(subject: &'static str, text: impl Into<String>) -> Self {
        Self::new(subject, Severity::Unknown, text)
    }

    pub(super) fn warning(subject: &'static str, text: impl Into<String>) -> Self {
        Self::new(subject, Severity::Warning, text)
    }

    pub(super) fn critical(subject: &'static str, text: impl Into<String>) -> Self {
        Self::new(subject, Severity::Critical, text)
    }

    pub(super) fn of(subject: &'static str, severity: Severity, text: impl Into<String>) -> Self {
        Self::new(subject, severity, text)
    }

    /// An error, its hint as the advice.
    pub(super) fn of_error(subject: &'static str, severity: Severity, error: &Error) -> Self {
        let line = error.to_string();
        let hint = error.advice().map(one_line);
        let text = hint.as_deref().and_then(|hint| line.strip_suffix(hint)?.strip_suffix("; ")).unwrap_or(&line);
        Self { advice: hint.clone(), ..Self::new(subject, severity, text) }
    }

    /// Says what to do.
    #[must_use]
    pub(super) fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(one_line(&advice.into()));
        self
    }

    /// Says what to do, unless that is said already.
    #[must_use]
    pub(super) fn advise_else(self, advice: &str) -> Self {
        if self.advice.is_some() { self } else { self.advise(advice) }
    }
}

/// Text from outside may carry line breaks and terminal escapes.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn an_error_is_cut_before_its_hint() {
        let error = Error::new(ErrorKind::Denied, "no").because(std::io::Error::other("a\nb")).hint("do\tthis");
        let finding = Finding::of_error("x", Severity::Critical, &error);
        assert_eq!((finding.text.as_str(), finding.advice.as_deref()), ("no: a b", Some("do this")));
        let bare = Finding::of_error("x", Severity::Critical, &Error::new(ErrorKind::Denied, "no"));
        assert_eq!((bare.text.as_str(), bare.advice), ("no", None));
    }

    #[test]
    fn the_worst_decides() {
        let mut all = [Severity::Warning, Severity::Ok, Severity::Critical, Severity::Unknown, Severity::Skipped];
        all.sort();
        assert_eq!(all.map(Severity::word), ["OK", "SKIPPED", "UNKNOWN", "WARNING", "CRITICAL"]);
    }
}
