//! The values of single settings: from text to what it means. Pure; an error says what would be right and repeats nothing that
//! could be a secret.

use super::{Addressing, Prefetch, StorageUrl};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

/// Why a text is no value of its setting.
pub(super) type Value<T> = Result<T, String>;

/// What stands for a text that may hold a password.
const HIDDEN: &str = "the value";

/// A text for an error, unless it looks like one that carries a user and a password, or a secret key.
fn shown(text: &str) -> String {
    let hidden = text.contains('@') || has_pair(text) || crate::codec::crypt::is_secret(text);
    if hidden { HIDDEN.into() } else { format!("{text:?}") }
}

/// Whether there is a `user:password` in a text: a colon that introduces neither `//` nor a port.
fn has_pair(text: &str) -> bool {
    let text = text.split_once("://").map_or(text, |(_, rest)| rest);
    text.split(':').skip(1).any(|behind| {
        let port = behind.split(['/', ':']).next().unwrap_or_default();
        port.len() > 5 || !port.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// A duration as Postgres writes it (`500ms`, `15s`, `5min`, `1h`, `7d`, also `us` and the short `m`); a bare number is seconds.
pub(super) fn duration(text: &str) -> Value<Duration> {
    let wrong =
        || format!("{} is no duration; write 500ms, 15s, 5min, 1h or 7d (a bare number is seconds)", shown(text));
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let nanoseconds_each: u64 = match unit.trim_start() {
        "us" => 1_000,
        "ms" => 1_000_000,
        "" | "s" => 1_000_000_000,
        "m" | "min" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "d" => 86_400_000_000_000,
        _ => return Err(wrong()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.len() > 9 || fraction.contains('.') {
        return Err(wrong());
    }
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    let billionths: u64 = format!("{fraction:0<9}").parse().map_err(|_| wrong())?;
    let part = u128::from(billionths) * u128::from(nanoseconds_each) / 1_000_000_000;
    let total = whole.checked_mul(nanoseconds_each).and_then(|whole| whole.checked_add(u64::try_from(part).ok()?));
    total.map(Duration::from_nanos).ok_or_else(wrong)
}

/// A limit of a call: a duration from one second to one day.
pub(super) fn limit(text: &str) -> Value<Duration> {
    between(text, Duration::from_secs(1))
}

/// A patience, which may also be none at all.
pub(super) fn patience(text: &str) -> Value<Duration> {
    between(text, Duration::ZERO)
}

fn between(text: &str, least: Duration) -> Value<Duration> {
    let most = Duration::from_secs(24 * 3600);
    let value = duration(text)?;
    if value < least || value > most {
        return Err(format!("{} is not between {}s and 1d", shown(text), least.as_secs()));
    }
    Ok(value)
}

/// A boolean as Postgres reads it, unabbreviated.
pub(super) fn boolean(text: &str) -> Value<bool> {
    match text.to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" | "1" => Ok(true),
        "off" | "false" | "no" | "0" => Ok(false),
        _ => Err(format!("{} is neither on nor off", shown(text))),
    }
}

/// zstd's level: 1 to 19. The higher ones need windows that readers refuse (`docs/format.md`).
pub(super) fn compression_level(text: &str) -> Value<i32> {
    number(text, 1, 19)
}

/// How many threads compress one WAL file: 1 to 16.
pub(super) fn compression_threads(text: &str) -> Value<u32> {
    number(text, 1, 16)
}

/// How many requests at once: 1 to 128.
pub(super) fn concurrency(text: &str) -> Value<usize> {
    number(text, 1, 128)
}

fn number<T: std::str::FromStr + PartialOrd + std::fmt::Display>(text: &str, least: T, most: T) -> Value<T> {
    match text.parse() {
        Ok(value) if value >= least && value <= most => Ok(value),
        _ => Err(format!("{} is no whole number from {least} to {most}", shown(text))),
    }
}

/// How restore works ahead.
pub(super) fn prefetch(text: &str) -> Value<Prefetch> {
    match text {
        "auto" => Ok(Prefetch::Auto),
        "call" => Ok(Prefetch::Call),
        "helper" => Ok(Prefetch::Helper),
        "off" => Ok(Prefetch::Off),
        _ => Err(format!("{} is none of auto, call, helper, off", shown(text))),
    }
}

/// How a bucket is addressed.
pub(super) fn addressing(text: &str) -> Value<Addressing> {
    match text {
        "path" => Ok(Addressing::Path),
        "virtual" => Ok(Addressing::Virtual),
        _ => Err(format!("{} is neither path nor virtual", shown(text))),
    }
}

/// A path that means the same in every working directory (Postgres calls us in its data directory).
pub(super) fn absolute_path(text: &str) -> Value<PathBuf> {
    let path = Path::new(text);
    let plain = path.is_absolute() && !path.components().any(|part| part == Component::ParentDir);
    plain.then(|| path.to_owned()).ok_or_else(|| format!("{} is no absolute path", shown(text)))
}

/// A region's name: a word.
pub(super) fn region(text: &str) -> Value<String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
    if text.len() <= 64 && !text.is_empty() && text.bytes().all(plain) {
        return Ok(text.to_owned());
    }
    Err(format!("{} is no region, like eu-central-1 or auto", shown(text)))
}

/// `s3://bucket/prefix` or `file:///directory`.
pub(super) fn storage(text: &str) -> Value<StorageUrl> {
    if let Some(rest) = text.strip_prefix("s3://") {
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        return Ok(StorageUrl::S3 { bucket: self::bucket(bucket)?, prefix: self::prefix(prefix)? });
    }
    if let Some(path) = text.strip_prefix("file://") {
        let path = absolute_path(path).map_err(|_| {
            format!("{} names no absolute directory; write file:///srv/backup, with three slashes", shown(text))
        })?;
        if path.parent().is_none() {
            return Err(format!("{} is the root directory", shown(text)));
        }
        // Through the components, so that a closing slash makes no other place of it.
        return Ok(StorageUrl::File(path.components().collect()));
    }
    // A text without a scheme may be anything, a password too; a path at least is none.
    let plain = text.contains("://") || text.starts_with('/');
    let shown = if plain { shown(text) } else { HIDDEN.into() };
    Err(format!("{shown} is no storage; write s3://bucket/prefix or file:///srv/backup"))
}

/// A bucket's name.
pub(super) fn bucket(text: &str) -> Value<String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if (3..=255).contains(&text.len()) && text.bytes().all(plain) {
        return Ok(text.to_owned());
    }
    Err(format!("{} is no bucket name (letters, digits, dots, hyphens; at least three)", shown(text)))
}

fn prefix(text: &str) -> Value<String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.=-".contains(&b);
    let trimmed = text.trim_matches('/');
    let parts_fit =
        trimmed.split('/').all(|part| !part.is_empty() && part != "." && part != ".." && part.bytes().all(plain));
    if trimmed.len() <= 512 && (trimmed.is_empty() || parts_fit) {
        return Ok(trimmed.to_owned());
    }
    Err(format!("{} is no prefix (letters, digits and _ . = - between single slashes)", shown(text)))
}

/// `http(s)://host[:port]`, without path, query or user.
pub(super) fn endpoint(text: &str) -> Value<String> {
    if text.contains('@') {
        return Err("an endpoint carries no user and no password; credentials have settings of their own".into());
    }
    let wrong =
        |why: &str| Err(format!("{} is no endpoint: {why}; write https://host or https://host:port", shown(text)));
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme @ ("http" | "https"), rest)) => (scheme, rest),
        _ => return wrong("it does not begin with https:// or http://"),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '?', '#']) {
        return wrong("it has more than a host (bucket and prefix belong into the storage)");
    }
    let (host, port) = split_port(rest);
    if port.is_some_and(|port| !matches!(port.parse::<u16>(), Ok(1..))) {
        return wrong("its port is no number from 1 to 65535");
    }
    if !is_host(host) {
        return wrong("its host is no host");
    }
    Ok(format!("{scheme}://{rest}"))
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let label = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    host.strip_suffix('.').unwrap_or(host).split('.').all(label)
}

/// The region that an endpoint's host tells: `s3.REGION.…` as AWS, Backblaze, Wasabi, Scaleway and OVH have it; `auto` for
/// Cloudflare R2 and Google.
pub(super) fn region_of(endpoint: &str) -> Option<&str> {
    let authority = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let (host, _) = split_port(authority);
    if host.ends_with(".r2.cloudflarestorage.com") || host == "storage.googleapis.com" {
        return Some("auto");
    }
    let labels: Vec<&str> = host.split('.').collect();
    let amazon = host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn");
    let service = labels.iter().position(|label| matches!(*label, "s3" | "s3-fips"))?;
    // Elsewhere than at Amazon's, an `s3` in the middle is a name like any other.
    if service > 0 && !amazon {
        return None;
    }
    let behind = labels.get(service + 1..)?.strip_prefix(&["dualstack"]).unwrap_or(labels.get(service + 1..)?);
    match behind {
        [region, _, _, ..] => Some(region),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("15s", 15_000),
            ("15 s", 15_000),
            ("5min", 300_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("7d", 604_800_000),
            ("90", 90_000),
            ("0", 0),
            ("1.5h", 5_400_000),
            ("0.25", 250),
            ("2000us", 2),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in [
            "",
            "s",
            "5M",
            "5MIN",
            "5 minutes",
            "-1s",
            "+1s",
            "1s2",
            "1e3",
            ".5s",
            "1.s",
            "1.2.3s",
            "1w",
            "5 m in",
            "99999999999999999999d",
            "18446744073709551615d",
            "1.0000000001s",
            "∞",
            "５s",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
        for (text, limit_fits, patience_fits) in
            [("0", false, true), ("999ms", false, true), ("1s", true, true), ("1d", true, true), ("25h", false, false)]
        {
            assert_eq!((limit(text).is_ok(), patience(text).is_ok()), (limit_fits, patience_fits), "{text}");
        }
    }

    #[test]
    fn small_ones() {
        for (text, value) in [("on", true), ("TRUE", true), ("yes", true), ("1", true), ("off", false), ("No", false)] {
            assert_eq!(boolean(text), Ok(value));
        }
        assert!(boolean("maybe").is_err() && boolean("").is_err());
        for (text, value) in [("1", Some(1)), ("19", Some(19)), ("0", None), ("20", None), ("-1", None), ("x", None)] {
            assert_eq!(compression_level(text).ok(), value, "{text}");
        }
        for (text, value) in [("1", Some(1)), ("16", Some(16)), ("0", None), ("17", None), ("auto", None)] {
            assert_eq!(compression_threads(text).ok(), value, "{text}");
        }
        for (text, value) in
            [("1", Some(1)), ("128", Some(128)), ("0", None), ("129", None), ("-1", None), ("1.0", None)]
        {
            assert_eq!(concurrency(text).ok(), value, "{text}");
        }
        assert_eq!(prefetch("helper"), Ok(Prefetch::Helper));
        assert!(prefetch("Auto").is_err());
        assert_eq!(addressing("virtual"), Ok(Addressing::Virtual));
        assert!(addressing("host").is_err());
        assert!(region("eu-central-1").is_ok() && region("eu central").is_err() && region("").is_err());
        assert!(absolute_path("/a/b").is_ok() && absolute_path("a").is_err() && absolute_path("/a/../b").is_err());
    }

    #[test]
    fn storages() {
        let s3 = |bucket: &str, prefix: &str| StorageUrl::S3 { bucket: bucket.into(), prefix: prefix.into() };
        for (text, url) in [
            ("s3://bucket", s3("bucket", "")),
            ("s3://bucket/", s3("bucket", "")),
            ("s3://my.bucket-1/a/b_c=d", s3("my.bucket-1", "a/b_c=d")),
            ("s3://bucket/prefix/", s3("bucket", "prefix")),
            ("file:///srv/backup", StorageUrl::File("/srv/backup".into())),
            ("file:///srv/backup/", StorageUrl::File("/srv/backup".into())),
        ] {
            assert_eq!(storage(text), Ok(url.clone()), "{text}");
            // A closing slash must not make another place.
            if let StorageUrl::File(path) = url {
                assert_eq!(path.as_os_str(), "/srv/backup");
            }
        }
        for text in [
            "",
            "bucket",
            "s3://",
            "s3:///prefix",
            "s3://ab",
            "s3://bu cket",
            "s3://user:word@bucket/x",
            "s3://bucket/a//b",
            "s3://bucket/../x",
            "s3://bucket/a?b",
            "s3://bucket/%20",
            "s3://bücket",
            "file://",
            "file:///",
            "file://srv/backup",
            "file://localhost/srv",
            "file:///srv/../etc",
            "/srv/backup",
            "gs://bucket",
            "S3://bucket",
            "https://s3/bucket",
        ] {
            assert!(storage(text).is_err(), "{text}");
        }
        assert!(storage("file://srv").unwrap_err().contains("three slashes"));
        for text in [
            "hunter2",
            "s3://key:hunter2/bucket",
            "s3://key:hunter2",
            "s3://bucket/key:hunter2",
            "s3:key:hunter2",
            "s3://key:hunter2@bucket/x",
            "s3://bucket/key:hunter2@x",
            "https://key:hunter2@host/bucket",
        ] {
            assert!(!storage(text).unwrap_err().contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn endpoints() {
        for (text, value) in [
            ("https://s3.eu-central-1.amazonaws.com", "https://s3.eu-central-1.amazonaws.com"),
            ("http://127.0.0.1:9000/", "http://127.0.0.1:9000"),
            ("http://[::1]:9000", "http://[::1]:9000"),
            ("http://[::1]", "http://[::1]"),
            ("http://minio", "http://minio"),
            ("http://my_minio:1", "http://my_minio:1"),
        ] {
            assert_eq!(endpoint(text).as_deref(), Ok(value), "{text}");
        }
        for text in [
            "",
            "minio:9000",
            "ftp://minio",
            "https://",
            "https:///",
            "https://host/bucket",
            "https://host?x",
            "https://host:0",
            "https://host:65536",
            "https://host:",
            "https://ho st",
            "https://[::1",
            "https://::1",
            "https://a..b",
            "HTTPS://host",
        ] {
            assert!(endpoint(text).is_err(), "{text}");
        }
        for text in ["https://key:hunter2@host", "https://key:hunter2", "key:hunter2", "https://key:hunter2/bucket"] {
            let error = endpoint(text).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!(endpoint("minio:9000").unwrap_err().contains("minio:9000"));
        // A secret key in the wrong setting, whichever that is.
        let secret = "AGE-SECRET-KEY-1HUNTER2";
        for error in [
            endpoint(secret).unwrap_err(),
            absolute_path(secret).unwrap_err(),
            duration(secret).unwrap_err(),
            boolean(secret).unwrap_err(),
            region(&secret.repeat(9)).unwrap_err(),
            storage(&format!("s3://b/{secret}!")).unwrap_err(),
            storage(&format!("file://{secret}")).unwrap_err(),
        ] {
            assert!(!error.contains("HUNTER2"), "{error}");
        }
    }

    #[test]
    fn regions_of_hosts() {
        for (endpoint, region) in [
            ("https://s3.eu-central-1.amazonaws.com", Some("eu-central-1")),
            ("https://s3.dualstack.eu-west-1.amazonaws.com", Some("eu-west-1")),
            ("https://s3-fips.us-gov-west-1.amazonaws.com", Some("us-gov-west-1")),
            ("https://s3.cn-north-1.amazonaws.com.cn", Some("cn-north-1")),
            ("https://bucket.vpce-1-2.s3.us-east-2.vpce.amazonaws.com:443", Some("us-east-2")),
            ("https://s3.amazonaws.com", None),
            ("https://s3.us-west-004.backblazeb2.com", Some("us-west-004")),
            ("https://s3.eu-central-2.wasabisys.com", Some("eu-central-2")),
            ("https://s3.wasabisys.com", None),
            ("https://s3.fr-par.scw.cloud", Some("fr-par")),
            ("https://s3.gra.io.cloud.ovh.net", Some("gra")),
            ("https://0123abc.r2.cloudflarestorage.com", Some("auto")),
            ("https://0123abc.eu.r2.cloudflarestorage.com", Some("auto")),
            ("https://storage.googleapis.com", Some("auto")),
            ("http://minio.s3.svc.cluster.local:9000", None),
            ("http://127.0.0.1:9000", None),
            ("http://[::1]:9000", None),
            ("http://s3", None),
        ] {
            assert_eq!(region_of(endpoint), region, "{endpoint}");
        }
    }
}
