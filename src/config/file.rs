//! The configuration file: from TOML to texts by key. Pure.

use super::keep::Keep;
use super::values::{self, Value};
use crate::codec::Recipients;
use crate::error::{Error, ErrorKind, Result};
use std::collections::BTreeMap;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A key that the file may have.
pub(super) struct Known {
    /// Its name: the variable's without `WALHALLA_`, in lower case.
    pub(super) name: &'static str,
    /// Whether the value may not be shown.
    pub(super) secret: bool,
    /// Looks at a value without keeping anything.
    check: fn(&str) -> Value<()>,
}

const fn open(name: &'static str, check: fn(&str) -> Value<()>) -> Known {
    Known { name, secret: false, check }
}

const fn secret(name: &'static str) -> Known {
    Known { name, secret: true, check: |_| Ok(()) }
}

/// All keys, in the order in which `walhalla init --write-config` writes them.
pub(super) const KEYS: &[Known] = &[
    open("storage", |text| values::storage(text).map(drop)),
    open("s3_endpoint", |text| values::endpoint(text).map(drop)),
    open("s3_region", |text| values::region(text).map(drop)),
    open("s3_addressing", |text| values::addressing(text).map(drop)),
    open("s3_ca_file", |text| values::absolute_path(text).map(drop)),
    secret("aws_access_key_id"),
    secret("aws_access_key_id_file"),
    secret("aws_secret_access_key"),
    secret("aws_secret_access_key_file"),
    secret("aws_session_token"),
    secret("aws_session_token_file"),
    open("archive_timeout", |text| values::limit(text).map(drop)),
    open("restore_timeout", |text| values::limit(text).map(drop)),
    open("promote_timeout", |text| values::patience(text).map(drop)),
    open("promote_needs_archive", |text| values::boolean(text).map(drop)),
    open("spool", |text| values::absolute_path(text).map(drop)),
    open("compression_level", |text| values::compression_level(text).map(drop)),
    open("compression_threads", |text| values::compression_threads(text).map(drop)),
    open("concurrency", |text| values::concurrency(text).map(drop)),
    open("prefetch", |text| values::prefetch(text).map(drop)),
    open("recipients", |text| Recipients::parse(text).map(drop).map_err(|error| error.to_string())),
    secret("identity"),
    secret("identity_file"),
];

/// Tables that belong to single verbs, which read and judge them themselves.
const TABLES: [&str; 3] = ["keep", "drill", "schedule"];

/// A value of the file, as text, and where it stands.
#[derive(Clone, PartialEq, Eq)]
pub struct FileValue {
    /// The text; numbers and booleans as written, arrays by comma.
    pub text: String,
    /// Its line, from 1.
    pub line: usize,
}

impl std::fmt::Debug for FileValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // It may be a secret; who needs it knows its key.
        write!(f, "FileValue(line {})", self.line)
    }
}

/// What a configuration file says: only known keys, each with a value that parses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileSettings {
    /// The values by key.
    pub values: BTreeMap<&'static str, FileValue>,
    /// The table `[keep]`.
    pub keep: Keep,
}

/// Reads the text of a configuration file.
///
/// The tables `[drill]` and `[schedule]` are accepted as they are. Any other key that is not known, and any value
/// that does not parse, is an error of kind `Config` that names line and key.
pub fn parse_text(text: &str) -> Result<FileSettings> {
    let table = DeTable::parse(text).map_err(|error| {
        // Only the message: what toml would show of the line may be a secret.
        let line = line_of(text, &error.span().unwrap_or_default());
        Error::new(ErrorKind::Config, format!("line {line}: {}", error.message()))
    })?;
    let mut settings = FileSettings::default();
    for (key, value) in table.get_ref() {
        let line = line_of(text, &key.span());
        let name: &str = key.get_ref();
        if TABLES.contains(&name) {
            let Some(table) = value.get_ref().as_table() else {
                return Err(wrong(line, name, "it must be a table"));
            };
            if name == "keep" {
                settings.keep = Keep::parse(table).map_err(|(span, why)| {
                    Error::new(ErrorKind::Config, format!("line {}: {why}", line_of(text, &span)))
                })?;
            }
            continue;
        }
        let Some(known) = KEYS.iter().find(|known| known.name == name) else {
            return Err(unknown(line, name));
        };
        let text = text_of(value).and_then(|text| {
            // Empty is unset, in the file as in the environment.
            if text.is_empty() { Ok(text) } else { (known.check)(&text).map(|()| text) }
        });
        let text = text.map_err(|why| wrong(line, name, &why))?;
        settings.values.insert(known.name, FileValue { text, line });
    }
    Ok(settings)
}

fn wrong(line: usize, key: &str, why: &str) -> Error {
    Error::new(ErrorKind::Config, format!("line {line}: {key}: {why}"))
}

fn unknown(line: usize, key: &str) -> Error {
    let names: Vec<_> = KEYS.iter().map(|known| known.name).chain(TABLES).collect();
    wrong(line, key, "there is no such setting").hint(format!("the settings are {}", names.join(", ")))
}

/// A value as the text that the environment would have.
fn text_of(value: &Spanned<DeValue<'_>>) -> Value<String> {
    let mismatch = |kind: &str| Err(format!("it must be a text, a number or a boolean, and is {kind}"));
    match value.get_ref() {
        DeValue::String(text) => Ok(text.trim().to_owned()),
        DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str().to_owned()),
        DeValue::Float(number) => Ok(number.as_str().to_owned()),
        DeValue::Boolean(value) => Ok(value.to_string()),
        DeValue::Array(items) => items.iter().map(word_of).collect::<Value<Vec<_>>>().map(|words| words.join(",")),
        DeValue::Integer(_) => mismatch("a number that is not decimal"),
        DeValue::Datetime(_) => mismatch("a date"),
        DeValue::Table(_) => mismatch("a table"),
    }
}

fn word_of(item: &Spanned<DeValue<'_>>) -> Value<String> {
    match item.get_ref().as_str() {
        Some(word) if !word.contains(',') => Ok(word.trim().to_owned()),
        _ => Err("an item of the list is no plain text".into()),
    }
}

/// The line of a position, from 1.
fn line_of(text: &str, span: &Range<usize>) -> usize {
    1 + text.bytes().take(span.start).filter(|byte| *byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_texts() {
        let text = "# Walhalla\nstorage = \"s3://bucket/prefix\"\n\nrestore_timeout = 90\narchive_timeout = \"2min\"\n\
                    promote_needs_archive = true\npromote_timeout = 0.5\nrecipients = []\nspool = \"\"\n\n\
                    [keep]\ndaily = 9\nwindow = \"14d\"\npermanent = [\"gold\"]\n[schedule]\nbackup = \"0 2 * * *\"\n[drill]\n";
        let settings = parse_text(text).unwrap();
        let found: Vec<_> =
            settings.values.iter().map(|(key, value)| (*key, value.text.as_str(), value.line)).collect();
        let expected = [
            ("archive_timeout", "2min", 5),
            ("promote_needs_archive", "true", 6),
            ("promote_timeout", "0.5", 7),
            ("recipients", "", 8),
            ("restore_timeout", "90", 4),
            ("spool", "", 9),
            ("storage", "s3://bucket/prefix", 2),
        ];
        assert_eq!(found, expected);
        let window = std::time::Duration::from_secs(14 * 24 * 60 * 60);
        let keep = Keep { daily: 9, window, permanent: vec!["gold".to_owned()], ..Keep::default() };
        assert_eq!(settings.keep, keep);
    }

    #[test]
    fn mistakes_name_line_and_key() {
        for (text, said) in [
            ("storage = \"s3://bucket\"\n\nstroage = 1", "line 3: stroage: there is no such setting"),
            ("[keep]\n[s3]\nregion = \"x\"", "line 2: s3: there is no such setting"),
            ("keep = 1", "line 1: keep: it must be a table"),
            ("[keep]\nlast = 0", "line 2: keep.last: it must be a whole number from 1"),
            ("[keep]\ndaily = -1", "line 2: keep.daily: it must be a whole number from 0"),
            ("[keep]\n\nweekly = 1.5", "line 3: keep.weekly: it must be a whole number"),
            ("[keep]\nwindow = 30", "line 2: keep.window: it must be a text with a unit, like \"30d\""),
            ("[keep]\nwindow = \"30\"", "line 2: keep.window: it must be a text with a unit"),
            ("[keep]\nwindow = \"40000d\"", "line 2: keep.window: it must not be longer"),
            ("[keep]\npermanent = \"x\"", "line 2: keep.permanent: it must be a list"),
            ("[keep]\nmonthly = 3", "line 2: keep.monthly: there is no such setting; the table has last, daily"),
            ("\nstorage = \"bucket\"", "line 2: storage: "),
            ("prefetch = false", "line 1: prefetch: \"false\" is none of auto, call, helper, off"),
            ("concurrency = 1.5", "line 1: concurrency: "),
            ("concurrency = 0x10", "line 1: concurrency: "),
            ("spool = 2026-11-23", "line 1: spool: it must be a text"),
            ("spool = { a = 1 }", "line 1: spool: it must be a text"),
            ("recipients = [1]", "line 1: recipients: "),
            ("recipients = [\"age1x\"]", "line 1: recipients: "),
            ("storage = \"s3://bucket\"\nstorage = \"s3://bucket\"", "line 2: duplicate key"),
            ("storage = ", "line 1: "),
            ("x\ny", "line 1: "),
            ("aws_secret_access_key = [2]", "line 1: aws_secret_access_key: "),
        ] {
            let error = parse_text(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().starts_with(said), "{text:?}: {error}");
        }
    }

    #[test]
    fn secrets_do_not_show() {
        let settings = parse_text("aws_secret_access_key = \"hunter2\"\n").unwrap();
        assert_eq!(settings.values["aws_secret_access_key"].text, "hunter2");
        assert!(!format!("{settings:?}").contains("hunter2"));
        for text in [
            "aws_secret_access_key = \"hunter2",
            "aws_secret_access_key = hunter2",
            "aws_secret_access_key \"hunter2\"",
        ] {
            let error = parse_text(text).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-z_=\"\\[\\]\n #0-9.{}',]{0,80}") {
            drop(parse_text(&text));
        }
    }
}
