//! The one error of the house: what kind of trouble, what failed on what, and what to do.
//!
//! An error is printed once, as one line, by the program that gives up on it. Whoever adds knowledge on the way up adds it
//! with [`Error::context`]; whoever knows the cure adds it with [`Error::hint`]. No secret is ever put into either.

use std::error::Error as StdError;
use std::fmt;

/// The result of everything in the house that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of trouble it is: the part of an error that decides retries and exit status (see [`crate::exit`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Proven not to be there: the store said "no such key", or the local file does not exist.
    NotFound,
    /// Not there, while later objects of the same chain are: a hole, never the end of the archive.
    Gap,
    /// It belongs to something else: another cluster, another name, another size.
    Mismatch,
    /// The name is taken by other content. Nothing was overwritten.
    Duplicate,
    /// The bytes are not what they claim to be.
    Corrupt,
    /// A setting, an argument, or the set-up of the storage is wrong; asking again changes nothing.
    Config,
    /// The storage or the server refused: credentials, permissions, privileges.
    Denied,
    /// Out of reach, too slow, or throttled; asking again may help.
    Unavailable,
    /// A local file could not be read or written.
    LocalIo,
    /// The peer said something its protocol does not allow.
    Protocol,
    /// Archiving is held in this data directory until the operator releases it.
    Held,
    /// Stopped by the operator.
    Interrupted,
    /// A mistake of ours.
    Bug,
}

/// An error: kind, message, hint, and what caused it.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// A new error. The message says what failed, and on what ("cannot read pg_wal/0000…A3").
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), hint: None, source: None }))
    }

    /// A local file that could not be read or written: `doing` is "read", "create", "sync" and so on.
    pub fn local(doing: &str, path: &std::path::Path, cause: std::io::Error) -> Self {
        let kind = if cause.kind() == std::io::ErrorKind::NotFound { ErrorKind::NotFound } else { ErrorKind::LocalIo };
        Self::new(kind, format!("cannot {doing} {}", path.display())).because(cause)
    }

    /// Adds the cause, printed after the message.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Adds what to do about it. A later hint replaces an earlier one.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Puts what was being done in front of the message.
    #[must_use]
    pub fn context(mut self, doing: impl fmt::Display) -> Self {
        self.0.message = format!("{doing}: {}", self.0.message);
        self
    }

    /// The same error under another kind.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// What kind of trouble it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What to do about it, where somebody knew.
    pub fn advice(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
}

impl fmt::Display for Error {
    /// One line: message, causes, and the hint behind a semicolon. Control characters, line breaks among them, become spaces.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = self.0.message.clone();
        let mut cause = self.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !line.contains(&text) {
                line.push_str(": ");
                line.push_str(&text);
            }
            cause = error.source();
        }
        if let Some(hint) = &self.0.hint {
            line.push_str("; ");
            line.push_str(hint);
        }
        f.write_str(&one_line(&line))
    }
}

/// Text from outside may carry line breaks and terminal escapes; a log line may not.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_whatever_the_parts_hold() {
        let cause = std::io::Error::other("first\nsecond\u{1b}[31m");
        let error = Error::new(ErrorKind::LocalIo, "cannot read x").because(cause).context("archiving").hint("look");
        assert_eq!(error.to_string(), "archiving: cannot read x: first second [31m; look");
        assert_eq!(error.kind(), ErrorKind::LocalIo);
    }
}
