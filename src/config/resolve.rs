//! From what was given to what the programs obey.

use super::source::{Environment, Given, Sources, config, shown};
use super::{Addressing, Prefetch, S3Credentials, S3Settings, Secret, Settings, StorageUrl, values};
use crate::codec::{Identities, Recipients};
use crate::error::Result;
use std::path::Path;
use std::time::Duration;

/// What is a good bargain for WAL, by measurement (`docs/decisions.md`).
const COMPRESSION_LEVEL: i32 = 1;
const COMPRESSION_THREADS: u32 = 2;

/// Enough to fill a fast line at usual round trips, and nothing that a small store would mind.
const CONCURRENCY: usize = 8;

/// The limit of a restore call in a recovery.
const RESTORE_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// How long a promotion waits for an archive in trouble.
const PROMOTE_TIMEOUT: Duration = Duration::from_secs(60);

/// The region where nothing tells another.
const REGION: &str = "us-east-1";

/// The other names of the storage, the stronger first.
pub(super) const STORAGE_NAMES: [&str; 2] = ["BACKUP_S3_BUCKET", "WALG_S3_PREFIX"];

/// The other name of the endpoint.
pub(super) const ENDPOINT_NAMES: [&str; 1] = ["BACKUP_S3_ENDPOINT"];

pub(super) fn settings(sources: &Sources<'_>) -> Result<Settings> {
    let storage = storage(sources)?;
    Ok(Settings {
        s3: s3(sources, &storage)?,
        storage,
        archive_timeout: parsed(sources, "archive_timeout", values::limit)?,
        restore_timeout: parsed(sources, "restore_timeout", values::limit)?.unwrap_or(RESTORE_TIMEOUT),
        promote_timeout: parsed(sources, "promote_timeout", values::patience)?.unwrap_or(PROMOTE_TIMEOUT),
        promote_needs_archive: parsed(sources, "promote_needs_archive", values::boolean)?.unwrap_or(false),
        spool: parsed(sources, "spool", values::absolute_path)?,
        compression_level: parsed(sources, "compression_level", values::compression_level)?
            .unwrap_or(COMPRESSION_LEVEL),
        compression_threads: parsed(sources, "compression_threads", values::compression_threads)?
            .unwrap_or(COMPRESSION_THREADS),
        concurrency: parsed(sources, "concurrency", values::concurrency)?.unwrap_or(CONCURRENCY),
        prefetch: parsed(sources, "prefetch", values::prefetch)?.unwrap_or(Prefetch::Auto),
        recipients: parsed(sources, "recipients", Recipients::parse)?.unwrap_or_default(),
        identities: identities(sources)?,
        keep: sources.keep(),
    })
}

fn parsed<T, E: std::fmt::Display>(
    sources: &Sources<'_>,
    key: &'static str,
    parser: impl FnOnce(&str) -> Result<T, E>,
) -> Result<Option<T>> {
    sources.setting(key)?.map(|given| given.parse(parser)).transpose()
}

/// The storage as it was given, with a bucket written as a storage.
pub(super) fn storage_given(sources: &Sources<'_>) -> Result<Given> {
    let Some(mut given) = sources.setting_or("storage", &STORAGE_NAMES)? else {
        let names = ["WALHALLA_STORAGE", STORAGE_NAMES[0], STORAGE_NAMES[1]];
        let consulted = sources.consulted(&names, "storage");
        return Err(config(format!("no storage is configured: {consulted} says where it is"))
            .hint("set WALHALLA_STORAGE=s3://bucket/prefix, or storage = \"s3://bucket/prefix\" in the file"));
    };
    if given.origin.to_string().starts_with(STORAGE_NAMES[0]) {
        let bucket = given.parse(values::bucket)?;
        given.text = format!("s3://{bucket}");
    }
    Ok(given)
}

fn storage(sources: &Sources<'_>) -> Result<StorageUrl> {
    storage_given(sources)?.parse(values::storage)
}

fn s3(sources: &Sources<'_>, storage: &StorageUrl) -> Result<S3Settings> {
    let endpoint = sources.setting_or("s3_endpoint", &ENDPOINT_NAMES)?;
    let endpoint = endpoint.map(|given| given.parse(values::endpoint)).transpose()?;
    let region = region_given(sources)?.map(|given| given.parse(values::region)).transpose()?;
    let from_host = || endpoint.as_deref().and_then(values::region_of).unwrap_or(REGION).to_owned();
    let by_endpoint = if endpoint.is_some() { Addressing::Path } else { Addressing::Virtual };
    Ok(S3Settings {
        region: region.unwrap_or_else(from_host),
        addressing: parsed(sources, "s3_addressing", values::addressing)?.unwrap_or(by_endpoint),
        ca_file: ca_file_given(sources)?.map(|given| given.parse(values::absolute_path)).transpose()?,
        // A directory needs none, and half a pair meant for something else must not stop it.
        credentials: match storage {
            StorageUrl::File(_) => S3Credentials::AwsChain,
            StorageUrl::S3 { .. } => credentials(sources)?.map_or(S3Credentials::AwsChain, Credentials::resolved),
        },
        endpoint,
    })
}

/// The region: the setting, else `AWS_REGION`.
pub(super) fn region_given(sources: &Sources<'_>) -> Result<Option<Given>> {
    Ok(sources.setting("s3_region")?.or(sources.variable("AWS_REGION")?))
}

/// The file of certificate authorities: the setting, else `AWS_CA_BUNDLE`.
pub(super) fn ca_file_given(sources: &Sources<'_>) -> Result<Option<Given>> {
    Ok(sources.setting("s3_ca_file")?.or(sources.variable("AWS_CA_BUNDLE")?))
}

/// A pair of keys, all from one place.
pub(super) struct Credentials {
    pub(super) id: Given,
    pub(super) secret: Given,
    pub(super) token: Option<Given>,
}

impl Credentials {
    fn resolved(self) -> S3Credentials {
        S3Credentials::Static {
            access_key: self.id.text,
            secret_key: Secret::new(self.secret.text),
            session_token: self.token.map(|token| Secret::new(token.text)),
        }
    }

    /// A pair is whole or absent; its halves are never taken from different places, where they would not fit each other.
    fn pair(id: Option<Given>, secret: Option<Given>, token: Option<Given>, names: [&str; 2]) -> Result<Option<Self>> {
        let half = |there: Given, missing: &str| {
            Err(config(format!("{} is set and {missing} is not", there.origin)).hint("give both in the same place"))
        };
        match (id, secret) {
            (Some(id), Some(secret)) => Ok(Some(Self { id, secret, token })),
            (Some(id), None) => half(id, names[1]),
            (None, Some(secret)) => half(secret, names[0]),
            (None, None) => Ok(None),
        }
    }
}

/// Credentials that were given in so many words: `BACKUP_AWS_*`, else `AWS_*`, else the file.
pub(super) fn credentials(sources: &Sources<'_>) -> Result<Option<Credentials>> {
    const BACKUP: [&str; 2] = ["BACKUP_AWS_ACCESS_KEY_ID", "BACKUP_AWS_SECRET_ACCESS_KEY"];
    const AWS: [&str; 2] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
    let variable = |name| sources.secret_variable(name);
    if let Some(found) = Credentials::pair(variable(BACKUP[0])?, variable(BACKUP[1])?, None, BACKUP)? {
        return Ok(Some(found));
    }
    let token = variable("AWS_SESSION_TOKEN")?;
    if let Some(found) = Credentials::pair(variable(AWS[0])?, variable(AWS[1])?, token, AWS)? {
        return Ok(Some(found));
    }
    let id = sources.secret_line("aws_access_key_id", "aws_access_key_id_file")?;
    let secret = sources.secret_line("aws_secret_access_key", "aws_secret_access_key_file")?;
    let token = sources.secret_line("aws_session_token", "aws_session_token_file")?;
    if let (None, None, Some(token)) = (&id, &secret, &token) {
        return Err(config(format!("{} is set without a key to go with", token.origin)));
    }
    Credentials::pair(id, secret, token, ["aws_access_key_id", "aws_secret_access_key"])
}

/// The identity as it was given: a key's text, or the path of an identity file.
pub(super) fn identity_given(sources: &Sources<'_>) -> Result<Option<Given>> {
    match sources.secret_variable("WALHALLA_IDENTITY")? {
        Some(given) => Ok(Some(given)),
        None => sources.secret_line("identity", "identity_file"),
    }
}

fn identities(sources: &Sources<'_>) -> Result<Identities> {
    let Some(given) = identity_given(sources)? else { return Ok(Identities::default()) };
    // A key is told from a path by what every key contains; what was read from a file is never a path again.
    if given.text.to_ascii_uppercase().contains("AGE-SECRET-KEY-") || given.text.starts_with('#') {
        return given.parse(Identities::parse);
    }
    let path = Path::new(&given.text);
    if !path.is_absolute() {
        let why = "it must be the absolute path of an identity file, or an AGE-SECRET-KEY-1… itself";
        return Err(config(format!("{}: {why}", given.origin)));
    }
    let text = std::fs::read_to_string(path)
        .map_err(|error| config(format!("{}: cannot read {}", given.origin, shown(path))).because(error))?;
    Identities::parse(&text).map_err(|error| config(format!("{}: {}: {error}", given.origin, shown(path))))
}

/// Reads the settings: the file (`explicit`, else `$WALHALLA_CONFIG`, else `/etc/walhalla.toml` if it is there) and the
/// environment, which overrides it. Every error is of kind `Config` and names where the value was given.
///
/// Opens the file, and the files that `…_FILE` variables and the identity name; nothing else.
pub fn load(explicit: Option<&Path>, environment: Environment<'_>) -> Result<Settings> {
    settings(&Sources::open(explicit, environment, Path::new(super::DEFAULT_FILE))?)
}

impl Settings {
    /// [`load`] with the environment of this process.
    pub fn from_process(explicit: Option<&Path>) -> Result<Self> {
        load(explicit, &|name| std::env::var_os(name))
    }
}
