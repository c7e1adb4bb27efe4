//! Files and environments as a whole.

use super::source::Sources;
use super::*;
use crate::error::{Error, ErrorKind, Result};
use age::secrecy::ExposeSecret;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const KEY: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG";

/// Settings from variables and, perhaps, the text of the default file.
fn load_with(variables: &[(&str, &str)], file: Option<&str>) -> Result<Settings> {
    with_sources(variables, file, resolve::settings)
}

fn with_sources<T>(
    variables: &[(&str, &str)],
    file: Option<&str>,
    then: impl FnOnce(&Sources<'_>) -> Result<T>,
) -> Result<T> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("walhalla.toml");
    if let Some(text) = file {
        std::fs::write(&path, text).unwrap();
    }
    let environment = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
    then(&Sources::open(None, &environment, &path)?)
}

fn refused(variables: &[(&str, &str)], file: Option<&str>) -> Error {
    let error = load_with(variables, file).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains(SECRET) && !shown.contains('\n'), "{shown}");
    error
}

fn bucket(name: &str, prefix: &str) -> StorageUrl {
    StorageUrl::S3 { bucket: name.into(), prefix: prefix.into() }
}

fn key_pair() -> (String, String) {
    let key = age::x25519::Identity::generate();
    (key.to_string().expose_secret().to_owned(), key.to_public().to_string())
}

#[test]
fn one_setting_is_enough() {
    let settings = load_with(&[("WALHALLA_STORAGE", "s3://bucket/prefix")], None).unwrap();
    assert_eq!(settings.storage, bucket("bucket", "prefix"));
    let s3 = S3Settings {
        endpoint: None,
        region: "us-east-1".into(),
        addressing: Addressing::Virtual,
        ca_file: None,
        credentials: S3Credentials::AwsChain,
    };
    assert_eq!(settings.s3, s3);
    assert_eq!(settings.archive_timeout, None);
    assert_eq!(settings.restore_timeout, Duration::from_secs(300));
    assert_eq!(settings.promote_timeout, Duration::from_secs(60));
    assert!(!settings.promote_needs_archive);
    assert_eq!(settings.spool, None);
    assert_eq!((settings.compression_level, settings.concurrency, settings.prefetch), (1, 8, Prefetch::Auto));
    assert_eq!(settings.compression_threads, 2);
    assert!(settings.recipients.is_empty() && settings.identities.is_empty());
}

#[test]
fn every_setting_has_its_effect_from_variable_and_file() {
    let (secret, public) = key_pair();
    let given = [
        ("storage", "file:///srv/backup"),
        ("s3_endpoint", "http://minio:9000"),
        ("s3_region", "garage"),
        ("s3_addressing", "virtual"),
        ("s3_ca_file", "/etc/ca.pem"),
        ("archive_timeout", "45s"),
        ("restore_timeout", "2m"),
        ("promote_timeout", "0"),
        ("promote_needs_archive", "on"),
        ("spool", "/srv/spool"),
        ("compression_level", "9"),
        ("compression_threads", "4"),
        ("concurrency", "17"),
        ("prefetch", "call"),
        ("recipients", &public),
        ("identity", &secret),
    ];
    let variables: Vec<_> = given.iter().map(|(key, value)| (source::variable_of(key), *value)).collect();
    let variables: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let file: String = given.iter().map(|(key, value)| format!("{key} = \"{value}\"\n")).collect();
    for settings in [load_with(&variables, None), load_with(&[], Some(&file))] {
        let settings = settings.unwrap();
        assert_eq!(settings.storage, StorageUrl::File("/srv/backup".into()));
        assert_eq!(settings.s3.endpoint.as_deref(), Some("http://minio:9000"));
        assert_eq!(settings.s3.region, "garage");
        assert_eq!(settings.s3.addressing, Addressing::Virtual);
        assert_eq!(settings.s3.ca_file, Some("/etc/ca.pem".into()));
        assert_eq!(settings.archive_timeout, Some(Duration::from_secs(45)));
        assert_eq!(settings.restore_timeout, Duration::from_secs(120));
        assert_eq!(settings.promote_timeout, Duration::ZERO);
        assert!(settings.promote_needs_archive);
        assert_eq!(settings.spool, Some(PathBuf::from("/srv/spool")));
        assert_eq!((settings.compression_level, settings.concurrency, settings.prefetch), (9, 17, Prefetch::Call));
        assert_eq!(settings.compression_threads, 4);
        assert_eq!(settings.recipients.to_string(), public);
        assert!(!settings.identities.is_empty());
        assert!(!format!("{settings:?}").contains(&secret[15..]));
    }
    // All keys but the credentials are among them.
    let others =
        file::KEYS.iter().filter(|known| !known.name.starts_with("aws_") && !known.name.ends_with("identity_file"));
    assert_eq!(others.count(), given.len());
}

#[test]
fn precedence() {
    let file = "storage = \"s3://from-file\"\ns3_endpoint = \"http://from-file\"\n";
    let all = [
        ("WALHALLA_STORAGE", "s3://from-walhalla"),
        ("BACKUP_S3_BUCKET", "from-backup"),
        ("WALG_S3_PREFIX", "s3://from-walg/some/prefix"),
    ];
    for (variables, expected) in [
        (&all[..], bucket("from-walhalla", "")),
        (&all[1..], bucket("from-backup", "")),
        (&all[2..], bucket("from-walg", "some/prefix")),
        (&[], bucket("from-file", "")),
        (&[("WALHALLA_STORAGE", ""), ("BACKUP_S3_BUCKET", "  "), all[2]], bucket("from-walg", "some/prefix")),
    ] {
        assert_eq!(load_with(variables, Some(file)).unwrap().storage, expected);
    }
    for (variables, expected) in [
        (&[("WALHALLA_S3_ENDPOINT", "http://one"), ("BACKUP_S3_ENDPOINT", "http://two")][..], "http://one"),
        (&[("WALHALLA_S3_ENDPOINT", ""), ("BACKUP_S3_ENDPOINT", "http://two")], "http://two"),
        (&[], "http://from-file"),
    ] {
        assert_eq!(load_with(variables, Some(file)).unwrap().s3.endpoint.as_deref(), Some(expected));
    }
}

#[test]
fn the_four_secrets_of_a_deployment() {
    let variables = [
        ("BACKUP_S3_ENDPOINT", "https://0123abc.r2.cloudflarestorage.com"),
        ("BACKUP_S3_BUCKET", "cogs"),
        ("BACKUP_AWS_ACCESS_KEY_ID", KEY),
        ("BACKUP_AWS_SECRET_ACCESS_KEY", SECRET),
        // Another service's; not to be used, whole or half.
        ("AWS_ACCESS_KEY_ID", "OTHER"),
        ("AWS_SESSION_TOKEN", "other"),
    ];
    let settings = load_with(&variables, None).unwrap();
    assert_eq!(settings.storage, bucket("cogs", ""));
    assert_eq!((settings.s3.region.as_str(), settings.s3.addressing), ("auto", Addressing::Path));
    let expected =
        S3Credentials::Static { access_key: KEY.into(), secret_key: Secret::new(SECRET), session_token: None };
    assert_eq!(settings.s3.credentials, expected);
    assert!(!format!("{settings:?}").contains(SECRET));
    assert!(refused(&[("BACKUP_S3_BUCKET", "s3://cogs")], None).to_string().starts_with("BACKUP_S3_BUCKET: "));
}

#[test]
fn credentials_come_in_pairs_from_one_place() {
    let storage = ("WALHALLA_STORAGE", "s3://bucket");
    let pair = "aws_access_key_id = \"FILE\"\naws_secret_access_key = \"file\"\n";
    let of =
        |variables: &[(&str, &str)], file| load_with(&[&[storage], variables].concat(), file).unwrap().s3.credentials;
    let fixed = |id: &str, secret: &str, token: Option<&str>| S3Credentials::Static {
        access_key: id.into(),
        secret_key: Secret::new(secret),
        session_token: token.map(Secret::new),
    };
    let aws = [("AWS_ACCESS_KEY_ID", KEY), ("AWS_SECRET_ACCESS_KEY", SECRET), ("AWS_SESSION_TOKEN", "token")];
    assert_eq!(of(&aws, Some(pair)), fixed(KEY, SECRET, Some("token")));
    assert_eq!(of(&aws[..2], Some(pair)), fixed(KEY, SECRET, None));
    assert_eq!(of(&[], Some(pair)), fixed("FILE", "file", None));
    assert_eq!(of(&[aws[2]], None), S3Credentials::AwsChain);
    let with_token = format!("{pair}aws_session_token = \"t\"\n");
    assert_eq!(of(&[], Some(&with_token)), fixed("FILE", "file", Some("t")));

    for (variables, file, said) in [
        (&aws[..1], None, "AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not"),
        (&aws[1..], Some(pair), "AWS_SECRET_ACCESS_KEY is set and AWS_ACCESS_KEY_ID is not"),
        (&[("BACKUP_AWS_ACCESS_KEY_ID", KEY), aws[0], aws[1]], None, "BACKUP_AWS_SECRET_ACCESS_KEY is not"),
        (&[("BACKUP_AWS_SECRET_ACCESS_KEY", SECRET)], None, "BACKUP_AWS_ACCESS_KEY_ID is not"),
        (
            &[],
            Some("aws_access_key_id = \"FILE\""),
            "line 1: aws_access_key_id is set and aws_secret_access_key is not",
        ),
        (&[], Some("aws_session_token = \"FILE\""), "aws_session_token is set without a key"),
    ] {
        let error = refused(&[&[storage], variables].concat(), file);
        assert!(error.to_string().contains(said), "{error}");
    }
    // With a directory nobody asks.
    let settings = load_with(&[("WALHALLA_STORAGE", "file:///srv/x"), aws[0]], None).unwrap();
    assert_eq!(settings.s3.credentials, S3Credentials::AwsChain);
}

#[test]
fn secrets_from_files() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.into_os_string().into_string().unwrap()
    };
    let (id, secret) = (put("id", "AKID\n"), put("secret", &format!("  {SECRET}\r\n")));
    let (empty, missing) = (put("empty", "\n"), dir.path().join("missing"));
    let storage = ("WALHALLA_STORAGE", "s3://bucket");
    let expected =
        S3Credentials::Static { access_key: "AKID".into(), secret_key: Secret::new(SECRET), session_token: None };
    for prefix in ["", "BACKUP_"] {
        let names = [format!("{prefix}AWS_ACCESS_KEY_ID_FILE"), format!("{prefix}AWS_SECRET_ACCESS_KEY_FILE")];
        let settings = load_with(&[storage, (&names[0], &id), (&names[1], &secret)], None).unwrap();
        assert_eq!(settings.s3.credentials, expected);
    }
    let file = format!("aws_access_key_id_file = \"{id}\"\naws_secret_access_key_file = \"{secret}\"\n");
    assert_eq!(load_with(&[storage], Some(&file)).unwrap().s3.credentials, expected);
    let (bucket_file, endpoint) = (put("bucket", "cogs\n"), put("endpoint", "http://minio:9000\n"));
    let settings =
        load_with(&[("BACKUP_S3_BUCKET_FILE", &bucket_file), ("BACKUP_S3_ENDPOINT_FILE", &endpoint)], None).unwrap();
    assert_eq!((settings.storage, settings.s3.endpoint.as_deref()), (bucket("cogs", ""), Some("http://minio:9000")));

    let missing = missing.to_str().unwrap();
    for (value, said) in [
        (missing, "missing: No such file"),
        (empty.as_str(), "empty is empty"),
        ("relative", "AWS_SECRET_ACCESS_KEY_FILE: it must be the absolute path"),
        // The secret itself in the variable of its file, as a path that is none.
        ("/wJalrXUtnFEMI/K7MDENG", "cannot read the file it names"),
        ("/hunter2", "cannot read the file it names"),
    ] {
        let error = refused(&[storage, ("AWS_ACCESS_KEY_ID", KEY), ("AWS_SECRET_ACCESS_KEY_FILE", value)], None);
        assert!(error.to_string().contains(said), "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
    let both = [
        storage,
        ("AWS_ACCESS_KEY_ID", KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_SECRET_ACCESS_KEY_FILE", &secret),
    ];
    assert!(
        refused(&both, None).to_string().contains("AWS_SECRET_ACCESS_KEY and AWS_SECRET_ACCESS_KEY_FILE are both set")
    );
}

#[test]
fn identities_by_path_text_and_file() {
    let dir = tempfile::tempdir().unwrap();
    let (secret, _) = key_pair();
    let path = dir.path().join("identity");
    std::fs::write(&path, format!("# created: today\n{secret}\n")).unwrap();
    let path = path.to_str().unwrap();
    let storage = ("WALHALLA_STORAGE", "file:///srv/x");
    for variables in [("WALHALLA_IDENTITY", path), ("WALHALLA_IDENTITY", &secret), ("WALHALLA_IDENTITY_FILE", path)] {
        assert!(!load_with(&[storage, variables], None).unwrap().identities.is_empty(), "{}", variables.0);
    }
    for line in
        [format!("identity = \"{path}\""), format!("identity_file = \"{path}\""), format!("identity = \"{secret}\"")]
    {
        assert!(!load_with(&[storage], Some(&line)).unwrap().identities.is_empty());
    }
    let broken = &secret[..secret.len() - 1];
    for value in [broken, "identity", "/nowhere/identity", &format!("'{secret}'")] {
        let error = refused(&[storage, ("WALHALLA_IDENTITY", value)], None).to_string();
        assert!(error.starts_with("WALHALLA_IDENTITY: "), "{error}");
        assert!(!error.contains(&secret[15..30]), "{error}");
    }
}

#[test]
fn regions_and_addressing() {
    let storage = ("WALHALLA_STORAGE", "s3://bucket");
    let b2 = ("WALHALLA_S3_ENDPOINT", "https://s3.us-west-004.backblazeb2.com");
    for (variables, file, region, addressing) in [
        (&[][..], None, "us-east-1", Addressing::Virtual),
        (&[("AWS_REGION", "eu-west-1")], None, "eu-west-1", Addressing::Virtual),
        (&[b2], None, "us-west-004", Addressing::Path),
        (&[b2, ("AWS_REGION", "eu-west-1")], None, "eu-west-1", Addressing::Path),
        (&[b2, ("AWS_REGION", "eu-west-1")], Some("s3_region = \"garage\""), "garage", Addressing::Path),
        (&[b2, ("WALHALLA_S3_REGION", "x")], Some("s3_region = \"garage\""), "x", Addressing::Path),
        (&[b2], Some("s3_addressing = \"virtual\""), "us-west-004", Addressing::Virtual),
        (&[("WALHALLA_S3_ADDRESSING", "path")], None, "us-east-1", Addressing::Path),
    ] {
        let s3 = load_with(&[&[storage], variables].concat(), file).unwrap().s3;
        assert_eq!((s3.region.as_str(), s3.addressing), (region, addressing), "{variables:?} {file:?}");
    }
    for (variables, file, path) in [
        (&[("AWS_CA_BUNDLE", "/aws.pem")][..], None, "/aws.pem"),
        (&[("AWS_CA_BUNDLE", "/aws.pem")], Some("s3_ca_file = \"/ours.pem\""), "/ours.pem"),
        (&[("WALHALLA_S3_CA_FILE", "/env.pem")], Some("s3_ca_file = \"/ours.pem\""), "/env.pem"),
    ] {
        let s3 = load_with(&[&[storage], variables].concat(), file).unwrap().s3;
        assert_eq!(s3.ca_file.as_deref(), Some(Path::new(path)));
    }
}

#[test]
fn mistakes_name_where_they_stand() {
    for (variables, said) in [
        (("WALHALLA_ARCHIVE_TIMEOUT", "0"), "WALHALLA_ARCHIVE_TIMEOUT: "),
        (("WALHALLA_RESTORE_TIMEOUT", "soon"), "WALHALLA_RESTORE_TIMEOUT: \"soon\" is no duration"),
        (("WALHALLA_PREFETCH", "on"), "WALHALLA_PREFETCH: "),
        (("WALHALLA_RECIPIENTS", "age1"), "WALHALLA_RECIPIENTS: "),
        (("BACKUP_S3_ENDPOINT", "minio"), "BACKUP_S3_ENDPOINT: "),
        (("AWS_REGION", "a b"), "AWS_REGION: "),
        (("AWS_CA_BUNDLE", "ca.pem"), "AWS_CA_BUNDLE: "),
        (("WALHALLA_SPOOL", "spool"), "WALHALLA_SPOOL: "),
    ] {
        let error = refused(&[("WALHALLA_STORAGE", "s3://bucket"), variables], None);
        assert!(error.to_string().starts_with(said), "{error}");
    }
    let error = refused(&[("WALHALLA_STORAGE", "s3://bucket")], Some("\nconcurrency = 0\n"));
    assert!(error.to_string().contains("walhalla.toml: line 2: concurrency: \"0\""), "{error}");
    // A bad value in the file is an error also where a variable overrides it.
    let error = refused(&[("WALHALLA_STORAGE", "s3://bucket")], Some("storage = \"nonsense\"\n"));
    assert!(error.to_string().contains("line 1: storage"), "{error}");
    let environment = |name: &str| (name == "WALHALLA_STORAGE").then(|| OsString::from_vec(vec![0xFF]));
    let error = load(Some(Path::new("/dev/null")), &environment).unwrap_err();
    assert_eq!(error.to_string(), "WALHALLA_STORAGE: the value is not UTF-8");
}

#[test]
fn nothing_set_names_everything_consulted() {
    let error = refused(&[], None).to_string();
    for name in ["WALHALLA_STORAGE", "BACKUP_S3_BUCKET", "WALG_S3_PREFIX", "walhalla.toml, which does not exist"] {
        assert!(error.contains(name), "{error}");
    }
    let error = refused(&[], Some("concurrency = 3")).to_string();
    assert!(error.contains("storage in ") && !error.contains("not exist"), "{error}");
}

#[test]
fn which_file() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, format!("storage = \"s3://{name}\"")).unwrap();
        path
    };
    let (one, two, missing) = (put("one"), put("two"), dir.path().join("missing"));
    let of = |explicit: Option<&Path>, variable: Option<&Path>| {
        let environment = |name: &str| variable.filter(|_| name == "WALHALLA_CONFIG").map(|path| path.into());
        load(explicit, &environment)
    };
    assert_eq!(of(Some(&one), Some(&two)).unwrap().storage, bucket("one", ""));
    assert_eq!(of(None, Some(&two)).unwrap().storage, bucket("two", ""));
    for (error, by) in [
        (of(Some(&missing), None).unwrap_err(), "--config"),
        (of(None, Some(&missing)).unwrap_err(), "WALHALLA_CONFIG"),
        (of(None, Some(dir.path())).unwrap_err(), "WALHALLA_CONFIG"),
    ] {
        // Not `NotFound`: that would read as a missing WAL file.
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(by), "{error}");
    }
}

#[test]
fn what_is_written_says_the_same() {
    let (secret, public) = key_pair();
    let dir = tempfile::tempdir().unwrap();
    let secret_file = dir.path().join("secret");
    std::fs::write(&secret_file, SECRET).unwrap();
    let variables = [
        ("BACKUP_S3_BUCKET", "cogs"),
        ("BACKUP_S3_ENDPOINT", "https://minio:9000"),
        ("AWS_REGION", "garage"),
        ("AWS_CA_BUNDLE", "/etc/ca.pem"),
        ("AWS_ACCESS_KEY_ID", KEY),
        ("AWS_SECRET_ACCESS_KEY_FILE", secret_file.to_str().unwrap()),
        ("AWS_SESSION_TOKEN", "a \"quoted\" \\ token"),
        ("WALHALLA_RECIPIENTS", &public),
        ("WALHALLA_IDENTITY", &secret),
        ("WALHALLA_ARCHIVE_TIMEOUT", "45"),
    ];
    let file = "restore_timeout = 90\nconcurrency = 4\n";
    let written = with_sources(&variables, Some(file), write::text).unwrap();
    let keys: Vec<_> = written.lines().skip(1).filter_map(|line| line.split(" = ").next()).collect();
    let expected = [
        "storage",
        "s3_endpoint",
        "s3_region",
        "s3_ca_file",
        "archive_timeout",
        "restore_timeout",
        "concurrency",
        "recipients",
        "aws_access_key_id",
        "aws_secret_access_key_file",
        "aws_session_token",
        "identity",
    ];
    assert_eq!(keys, expected);
    let before = load_with(&variables, Some(file)).unwrap();
    let after = load_with(&[], Some(&written)).unwrap();
    assert_eq!((&before.storage, &before.s3), (&after.storage, &after.s3));
    assert_eq!(format!("{before:?}"), format!("{after:?}"));

    let directory = [("WALHALLA_STORAGE", "file:///srv/x"), ("AWS_ACCESS_KEY_ID", KEY)];
    let written = with_sources(&directory, None, write::text).unwrap();
    assert_eq!(written.lines().skip(1).collect::<Vec<_>>(), ["storage = \"file:///srv/x\""]);
    assert!(with_sources(&[], None, write::text).is_err());
}

#[test]
fn the_documentation_has_every_key() {
    let documentation = include_str!("../../docs/configuration.md");
    for known in file::KEYS {
        let names =
            [format!("`{}`", known.name), format!("`{}_FILE`", known.name.trim_end_matches("_file").to_uppercase())];
        let variable = format!("`{}`", source::variable_of(known.name));
        let described = documentation.contains(&names[0]) || documentation.contains(&names[1]);
        assert!(described || documentation.contains(&variable), "docs/configuration.md lacks {}", known.name);
    }
}
