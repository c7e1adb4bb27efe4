//! What the server refused or warned of.

use crate::error::{Error, ErrorKind};
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::ErrorFields;
use std::fmt;

/// An error or notice of the server, field by field.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerError {
    /// `ERROR`, `FATAL`, `WARNING` …, never translated.
    pub severity: String,
    /// The five characters of its SQLSTATE.
    pub code: String,
    /// What it says, in the server's language.
    pub message: String,
    /// More about it.
    pub detail: Option<String>,
    /// The server's own advice.
    pub hint: Option<String>,
}

impl ServerError {
    /// Reads the fields of an ErrorResponse or NoticeResponse.
    pub(super) fn read(mut fields: ErrorFields<'_>) -> Result<Self, Error> {
        let mut error = Self::default();
        while let Some(field) = fields.next().map_err(super::framing::malformed)? {
            let value = String::from_utf8_lossy(field.value_bytes()).into_owned();
            match field.type_() {
                b'V' => error.severity = value,
                b'S' if error.severity.is_empty() => error.severity = value,
                b'C' => error.code = value,
                b'M' => error.message = value,
                b'D' => error.detail = Some(value),
                b'H' => error.hint = Some(value),
                _ => {}
            }
        }
        Ok(error)
    }

    /// Whether the server ends the connection with it.
    pub(super) fn is_fatal(&self) -> bool {
        matches!(self.severity.as_str(), "FATAL" | "PANIC")
    }

    /// As an error of the house. `user` is the role that was refused, for the hints.
    pub(super) fn into_error(self, user: &str) -> Error {
        let (kind, advice) = self.meaning(user);
        let hint = advice.or_else(|| self.hint.clone());
        let error = Error::new(kind, "the server refused").because(self);
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }

    fn meaning(&self, user: &str) -> (ErrorKind, Option<String>) {
        // Messages are in the server's language; in the few places where one SQLSTATE covers two troubles, English decides
        // which hint is better, and nothing else.
        match self.code.as_str() {
            "28000" => {
                let line = format!("host replication \"{user}\" <address>/32 scram-sha-256");
                let hint = format!(
                    "add a line like this to the server's pg_hba.conf and reload it: {line} (`local replication \"{user}\" \
                     peer` for a Unix socket)"
                );
                let no_role = self.message.contains("does not exist");
                let hint = if no_role { format!("create it: CREATE ROLE \"{user}\" LOGIN REPLICATION") } else { hint };
                (ErrorKind::Denied, Some(hint))
            }
            "28P01" => (ErrorKind::Denied, Some("check PGPASSWORD or the password file".to_owned())),
            "42501" => (
                ErrorKind::Denied,
                Some(format!("grant what it lacks, as a superuser: ALTER ROLE \"{user}\" REPLICATION")),
            ),
            code if code.starts_with("28") => (ErrorKind::Denied, None),
            "53300" => {
                let hint = "raise max_wal_senders (a base backup needs two), or end another replication connection; \
                            where the server is out of ordinary connections, raise max_connections";
                (ErrorKind::Unavailable, Some(hint.to_owned()))
            }
            "53400" => (ErrorKind::Unavailable, Some("raise max_replication_slots, or drop a slot".to_owned())),
            // Starting up, shutting down, recovering; out of memory or disk.
            code if code.starts_with("57P") || code.starts_with("53") || code.starts_with("08") => {
                (ErrorKind::Unavailable, None)
            }
            "3D000" => (ErrorKind::Config, Some("name an existing database with PGDATABASE or --dsn".to_owned())),
            "58P01" => (ErrorKind::NotFound, None),
            "XX001" | "XX002" => (ErrorKind::Corrupt, None),
            code if code.starts_with("58") => (ErrorKind::Unavailable, None),
            code if code.starts_with("42") || code.starts_with("22") || code.starts_with("0A") => {
                (ErrorKind::Config, None)
            }
            _ => (ErrorKind::Unavailable, None),
        }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}", self.message, self.code)?;
        match &self.detail {
            Some(detail) => write!(f, "; {detail})"),
            None => f.write_str(")"),
        }
    }
}

impl std::error::Error for ServerError {}

/// The server's own words behind an error of this room, if it was the server that refused.
pub fn server_error(error: &Error) -> Option<&ServerError> {
    std::error::Error::source(error)?.downcast_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_hints() {
        for (code, kind, hint) in [
            ("28000", ErrorKind::Denied, Some("host replication \"u\"")),
            ("28P01", ErrorKind::Denied, Some("PGPASSWORD")),
            ("42501", ErrorKind::Denied, Some("ALTER ROLE \"u\" REPLICATION")),
            ("53300", ErrorKind::Unavailable, Some("max_wal_senders")),
            ("53400", ErrorKind::Unavailable, Some("max_replication_slots")),
            ("57P03", ErrorKind::Unavailable, None),
            ("58P01", ErrorKind::NotFound, None),
            ("XX001", ErrorKind::Corrupt, None),
            ("42601", ErrorKind::Config, None),
        ] {
            let error = ServerError { code: code.to_owned(), message: "no".to_owned(), ..ServerError::default() };
            let error = error.into_error("u");
            assert_eq!(error.kind(), kind, "{code}");
            assert_eq!(hint.is_some(), error.advice().is_some(), "{code}");
            assert!(hint.is_none_or(|hint| error.to_string().contains(hint)), "{error}");
            assert_eq!(server_error(&error).map(|error| error.code.as_str()), Some(code));
        }
    }
}
