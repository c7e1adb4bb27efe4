//! The configuration file that `walhalla init --write-config` leaves behind: what it was given, in the file's words.

use super::file::KEYS;
use super::resolve;
use super::source::{DEFAULT_FILE, Environment, Given, Origin, Sources};
use crate::error::Result;
use std::path::Path;

/// The text of a configuration file that says what this environment and file say, for a server that will see neither.
///
/// Only what was given is written, not the defaults: they may become better. Names of other tools become ours; what was given
/// as `…_FILE` stays the path of that file. The text holds secrets where it was given them. Errors as [`super::load`], which
/// this also runs, so that nothing is written that would be refused.
pub fn to_toml(explicit: Option<&Path>, environment: Environment<'_>) -> Result<String> {
    let sources = Sources::open(explicit, environment, Path::new(DEFAULT_FILE))?;
    text(&sources)
}

pub(super) fn text(sources: &Sources<'_>) -> Result<String> {
    let settings = resolve::settings(sources)?;
    let credentials = match settings.storage {
        super::StorageUrl::S3 { .. } => resolve::credentials(sources)?,
        super::StorageUrl::File(_) => None,
    };
    let (id, secret, token) = match credentials {
        Some(pair) => (Some(pair.id), Some(pair.secret), pair.token),
        None => (None, None, None),
    };
    let mut lines = String::from("# Walhalla's configuration; every key is described in docs/configuration.md.\n");
    let secrets = [
        ("aws_access_key_id", id),
        ("aws_secret_access_key", secret),
        ("aws_session_token", token),
        ("identity", resolve::identity_given(sources)?),
    ];
    for known in KEYS.iter().filter(|known| !known.secret) {
        let given = match known.name {
            "storage" => Some(resolve::storage_given(sources)?),
            "s3_endpoint" => sources.setting_or("s3_endpoint", &resolve::ENDPOINT_NAMES)?,
            "s3_region" => resolve::region_given(sources)?,
            "s3_ca_file" => resolve::ca_file_given(sources)?,
            name => sources.setting(name)?,
        };
        if let Some(given) = given {
            push(&mut lines, known.name, &given.text);
        }
    }
    for (key, given) in secrets {
        if let Some(given) = given {
            match named_file(sources, &given)? {
                Some(path) => push(&mut lines, &format!("{key}_file"), &path),
                None => push(&mut lines, key, &given.text),
            }
        }
    }
    Ok(lines)
}

/// The path of the file that a secret was read from, if it was.
fn named_file(sources: &Sources<'_>, given: &Given) -> Result<Option<String>> {
    Ok(match &given.origin {
        Origin::Variable(name) if name.ends_with("_FILE") => sources.variable(name)?.map(|named| named.text),
        Origin::Line { key, .. } if key.ends_with("_file") => sources.line(key).map(|named| named.text),
        _ => None,
    })
}

fn push(lines: &mut String, key: &str, value: &str) {
    let quoted = toml::Value::String(value.to_owned());
    lines.push_str(&format!("{key} = {quoted}\n"));
}
