//! What the user asked for. Reads the file and the environment, opens nothing else.
//!
//! The file is the one of `--config`, else of `$WALHALLA_CONFIG`, else `/etc/walhalla.toml`. Its keys are the variables' names
//! without `WALHALLA_`, in lower case. The environment overrides it, name by name: `WALHALLA_*` beats `BACKUP_*` beats `WALG_*`
//! beats the file; an empty variable counts as unset. Credentials are taken as a pair from one place: `BACKUP_AWS_*`, else
//! `AWS_*`, else the file (`aws_access_key_id`, `aws_secret_access_key`), else from where AWS' own tools take them. Each secret
//! may also be given as `…_FILE`, the absolute path of a file that holds it.

mod file;
mod keep;
mod resolve;
pub mod secret;
pub mod settings;
mod source;
mod values;
mod write;

pub use file::{FileSettings, FileValue, parse_text};
pub use keep::Keep;
pub use resolve::load;
pub use secret::Secret;
pub use settings::{Addressing, Prefetch, S3Credentials, S3Settings, Settings, StorageUrl};
pub use source::{DEFAULT_FILE, Environment, named_to_process};
pub use write::to_toml;

#[cfg(test)]
mod tests;

/// A duration as the settings write it: Postgres' units (`500ms`, `15s`, `5min`, `1h`, `7d`) and the short `m`; a bare number is
/// seconds. For options that take one.
pub fn parse_duration(text: &str) -> crate::error::Result<std::time::Duration> {
    values::duration(text).map_err(|why| crate::error::Error::new(crate::error::ErrorKind::Config, why))
}
