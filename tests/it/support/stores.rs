//! Settings for the stores of the tests, in the two forms in which they are needed: as environment of a program, and opened.

use super::engines::Engine;
use super::fake_s3::{self, FakeS3};
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use walhalla::config::Settings;
use walhalla::storage::{Bounds, Limits, Storage};

/// Variables that name a storage.
pub(crate) type Variables = Vec<(&'static str, String)>;

/// A local directory.
pub(crate) fn directory(path: &Path) -> Variables {
    vec![("WALHALLA_STORAGE", format!("file://{}", path.display()))]
}

/// The false S3, reached at `endpoint` (its own, or a proxy's).
pub(crate) fn fake(s3: &FakeS3, endpoint: &str, prefix: &str) -> Variables {
    let mut variables = s3_at(endpoint, fake_s3::BUCKET, prefix, fake_s3::ACCESS_KEY, fake_s3::SECRET_KEY);
    if endpoint.starts_with("https:") {
        variables.push(("WALHALLA_S3_CA_FILE", s3.ca_file().display().to_string()));
    }
    variables
}

/// A real engine.
pub(crate) fn engine(engine: &Engine, prefix: &str) -> Variables {
    s3_at(&engine.endpoint(), engine.bucket, prefix, engine.access_key, engine.secret_key)
}

/// Any S3.
pub(crate) fn s3_at(endpoint: &str, bucket: &str, prefix: &str, access_key: &str, secret_key: &str) -> Variables {
    vec![
        ("WALHALLA_STORAGE", format!("s3://{bucket}/{prefix}")),
        ("WALHALLA_S3_ENDPOINT", endpoint.to_owned()),
        ("AWS_ACCESS_KEY_ID", access_key.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", secret_key.to_owned()),
    ]
}

/// The settings that a program would read from these variables.
pub(crate) fn settings(variables: &Variables) -> Settings {
    let look = |name: &str| {
        variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| OsString::from(value.as_str()))
    };
    // A configuration of this machine must not speak here.
    walhalla::config::load(Some(Path::new("/dev/null")), &look).unwrap()
}

/// The storage that these variables name, with patience.
pub(crate) fn open(variables: &Variables) -> Arc<dyn Storage> {
    walhalla::storage::open(&settings(variables), &Limits::new(Bounds::PATIENT)).unwrap()
}

/// The objects of a repository in a local directory, by key: what the storage itself calls no object is left out.
pub(crate) fn objects_in(root: &Path) -> Vec<(String, Vec<u8>)> {
    let (mut files, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.file_name().unwrap().to_str().unwrap().starts_with(".~") {
                let key = path.strip_prefix(root).unwrap().display().to_string();
                files.push((key, std::fs::read(&path).unwrap()));
            }
        }
    }
    files
}
