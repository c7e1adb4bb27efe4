//! The false S3, tested with the SDK itself: what the other tests of storage rely on.

use crate::support::fake_s3::{
    ACCESS_KEY, Answer, BUCKET, Check, Condition, FakeS3, Fault, Moment, Order, Personality, Right, SECRET_KEY,
};
use crate::support::wait_until;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, RequestChecksumCalculation};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_smithy_http_client::tls;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest as _, Md5};
use std::time::Duration;

fn client(s3: &FakeS3, secret: &str, trust: bool) -> aws_sdk_s3::Client {
    let mut store = tls::TrustStore::empty();
    if trust {
        store = store.with_pem_certificate(std::fs::read(s3.ca_file()).unwrap());
    }
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .tls_context(tls::TlsContext::builder().with_trust_store(store).build().unwrap())
        .build_https();
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .http_client(http)
        .endpoint_url(s3.endpoint())
        .force_path_style(true)
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new(ACCESS_KEY, secret, None, None, "test"))
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .retry_config(aws_sdk_s3::config::retry::RetryConfig::disabled())
        .build();
    aws_sdk_s3::Client::from_conf(config)
}

/// The service's code of a failed request, or its bare status.
fn code<E: ProvideErrorMetadata>(error: SdkError<E>) -> String {
    match (error.raw_response().map(|raw| raw.status().as_u16()), error.code()) {
        (_, Some(code)) => code.to_owned(),
        (Some(status), None) => status.to_string(),
        (None, None) => "no answer".to_owned(),
    }
}

async fn put(client: &aws_sdk_s3::Client, key: &str, body: &'static str) -> Result<String, String> {
    let output = client.put_object().bucket(BUCKET).key(key).body(ByteStream::from_static(body.as_bytes()));
    output.if_none_match("*").send().await.map(|output| output.e_tag.unwrap()).map_err(code)
}

async fn get(client: &aws_sdk_s3::Client, key: &str) -> Result<Vec<u8>, String> {
    let output = client.get_object().bucket(BUCKET).key(key).send().await.map_err(code)?;
    Ok(output.body.collect().await.map_err(|error| error.to_string())?.to_vec())
}

#[tokio::test]
async fn an_honest_store_keeps_every_promise() {
    let s3 = FakeS3::start();
    let sdk = client(&s3, SECRET_KEY, true);
    assert_eq!(get(&sdk, "a/b").await, Err("NoSuchKey".to_owned()));
    let etag = put(&sdk, "a/b", "one").await.unwrap();
    assert_eq!(put(&sdk, "a/b", "two").await, Err("PreconditionFailed".to_owned()));
    assert_eq!(get(&sdk, "a/b").await.unwrap(), b"one");
    assert_eq!(etag, format!("\"{}\"", "f97c5d29941bfb1b2fdab0874906ab82"), "the MD5 of `one`");

    let part = sdk.get_object().bucket(BUCKET).key("a/b").range("bytes=1-9").send().await.unwrap();
    assert_eq!(part.body.collect().await.unwrap().to_vec(), b"ne");

    let replace =
        |tag: &str| sdk.put_object().bucket(BUCKET).key("a/b").if_match(tag).body(ByteStream::from_static(b"x"));
    assert_eq!(replace("\"0\"").send().await.map(|_| ()).map_err(code), Err("PreconditionFailed".to_owned()));
    assert!(replace(&etag).send().await.is_ok());

    let wrong = STANDARD.encode(Md5::digest(b"other"));
    let put = || sdk.put_object().bucket(BUCKET).key("c").body(ByteStream::from_static(b"x"));
    assert_eq!(put().content_md5(wrong).send().await.map(|_| ()).map_err(code), Err("BadDigest".to_owned()));
    assert_eq!(put().checksum_crc32_c("AAAAAA==").send().await.map(|_| ()).map_err(code), Err("BadDigest".to_owned()));
    assert_eq!(s3.keys(), ["a/b"]);
    put().content_md5(STANDARD.encode(Md5::digest(b"x"))).send().await.unwrap();
    sdk.delete_object().bucket(BUCKET).key("c").send().await.unwrap();
    sdk.delete_object().bucket(BUCKET).key("c").send().await.unwrap();
    assert_eq!(s3.requests_of("DELETE").len(), 2);
    assert_eq!(get(&client(&s3, "wrong", true), "a/b").await, Err("SignatureDoesNotMatch".to_owned()));
}

#[tokio::test]
async fn listings_have_pages_folders_and_prefixes() {
    let s3 = FakeS3::start();
    let sdk = client(&s3, SECRET_KEY, true);
    for key in ["a/1", "a/2", "a/3/x", "a/3/y", "ab", "b"] {
        s3.insert(key, "body");
    }
    s3.personality(|p| p.page = 2);
    let pages = sdk.list_objects_v2().bucket(BUCKET).prefix("a").into_paginator().send().try_collect().await.unwrap();
    let keys: Vec<_> = pages.iter().flat_map(|page| page.contents()).map(|object| object.key().unwrap()).collect();
    assert_eq!((pages.len(), keys), (3, vec!["a/1", "a/2", "a/3/x", "a/3/y", "ab"]));

    let list = sdk.list_objects_v2().bucket(BUCKET).prefix("a/").delimiter("/");
    let folders = list.into_paginator().send().try_collect().await.unwrap();
    let folders: Vec<_> = folders.iter().flat_map(|page| page.common_prefixes()).map(|p| p.prefix().unwrap()).collect();
    assert_eq!(folders, ["a/3/"]);

    let after = |key: &str| sdk.list_objects_v2().bucket(BUCKET).start_after(key).send();
    assert_eq!(after("a/3/y").await.unwrap().contents()[0].key(), Some("ab"));
    s3.personality(|p| p.start_after = false);
    assert_eq!(after("a/3/y").await.unwrap().contents()[0].key(), Some("a/1"));
    s3.personality(|p| p.order = Order::Backwards);
    let pages = sdk.list_objects_v2().bucket(BUCKET).into_paginator().send().try_collect().await.unwrap();
    let keys: Vec<_> = pages.iter().flat_map(|page| page.contents()).map(|object| object.key().unwrap()).collect();
    assert_eq!(keys, ["b", "ab", "a/3/y", "a/3/x", "a/2", "a/1"]);
}

#[tokio::test]
async fn vices_are_put_on() {
    let s3 = FakeS3::with(Personality::without_conditions(), false);
    let sdk = client(&s3, SECRET_KEY, true);
    put(&sdk, "k", "one").await.unwrap();
    put(&sdk, "k", "two").await.unwrap();
    assert_eq!(s3.object("k").unwrap().body, "two");

    s3.personality(|p| *p = Personality::rejects_conditions());
    assert_eq!(put(&sdk, "new", "x").await, Err("NotImplemented".to_owned()));
    s3.personality(|p| p.create_only = Condition::Conflict409(1));
    assert_eq!(put(&sdk, "new", "x").await, Err("ConditionalRequestConflict".to_owned()));
    assert!(put(&sdk, "new", "x").await.is_ok());

    s3.personality(|p| *p = Personality { checksum: Check::Echo, ..Personality::honest() });
    let echoed =
        sdk.put_object().bucket(BUCKET).key("e").checksum_crc32_c("AAAAAA==").body(ByteStream::from_static(b"x"));
    assert_eq!(echoed.send().await.unwrap().checksum_crc32_c(), Some("AAAAAA=="));

    s3.personality(|p| p.denied = vec![(Right::List, String::new())]);
    assert_eq!(get(&sdk, "missing").await, Err("AccessDenied".to_owned()));
    s3.personality(|p| p.denied = vec![(Right::Put, "wal/".to_owned())]);
    assert_eq!(put(&sdk, "wal/1", "x").await, Err("AccessDenied".to_owned()));
    assert!(put(&sdk, "other", "x").await.is_ok());
    s3.personality(|p| *p = Personality { no_such_bucket: true, ..Personality::honest() });
    assert_eq!(get(&sdk, "k").await, Err("NoSuchBucket".to_owned()));
    s3.personality(|p| *p = Personality { region: Some("eu-central-1".to_owned()), ..Personality::honest() });
    assert_eq!(get(&sdk, "k").await, Err("AuthorizationHeaderMalformed".to_owned()));
    s3.personality(|p| *p = Personality { versioned: true, ..Personality::honest() });
    sdk.delete_object().bucket(BUCKET).key("k").send().await.unwrap();
    let error = sdk.get_object().bucket(BUCKET).key("k").send().await.unwrap_err();
    assert_eq!(error.raw_response().unwrap().headers().get("x-amz-delete-marker"), Some("true"));
    assert_eq!(code(error), "NoSuchKey");
}

#[tokio::test]
async fn faults_strike_whom_they_are_meant_for() {
    let s3 = FakeS3::start();
    let sdk = client(&s3, SECRET_KEY, true);
    s3.fault(Fault::new(Answer::slow_down()).method("PUT").on("wal/").times(2));
    assert_eq!(put(&sdk, "wal/1", "x").await, Err("SlowDown".to_owned()));
    assert!(put(&sdk, "other", "x").await.is_ok());
    assert_eq!(put(&sdk, "wal/1", "x").await, Err("SlowDown".to_owned()));
    assert!(put(&sdk, "wal/1", "x").await.is_ok());
    // Carried out, and denied.
    s3.fault(Fault::new(Answer::internal_error()).moment(Moment::AfterCommit).times(1));
    assert_eq!(put(&sdk, "wal/2", "x").await, Err("InternalError".to_owned()));
    assert!(s3.object("wal/2").is_some());
}

#[tokio::test]
async fn https_outages_and_broken_puts() {
    let mut s3 = FakeS3::start_https();
    assert!(put(&client(&s3, SECRET_KEY, true), "k", "x").await.is_ok());
    assert_eq!(get(&client(&s3, SECRET_KEY, false), "k").await, Err("no answer".to_owned()));
    wait_until("the distrust is noticed", Duration::from_secs(10), || s3.connections().1 == 1);
    tokio::task::spawn_blocking(move || {
        s3.down();
        assert!(std::net::TcpStream::connect(("127.0.0.1", s3.port())).is_err());
        s3.up();
        assert!(std::net::TcpStream::connect(("127.0.0.1", s3.port())).is_ok());
    })
    .await
    .unwrap();

    // A put that ends in mid-body.
    for (commits_empty, expected) in [(false, None), (true, Some(0))] {
        let s3 = FakeS3::with(Personality { commits_empty, ..Personality::honest() }, false);
        let mut socket = std::net::TcpStream::connect(("127.0.0.1", s3.port())).unwrap();
        let head = "PUT /bucket/k HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf";
        std::io::Write::write_all(&mut socket, head.as_bytes()).unwrap();
        wait_until("it has arrived", Duration::from_secs(10), || s3.requests_of("PUT").len() == 1);
        drop(socket);
        if commits_empty {
            wait_until("it is there", Duration::from_secs(10), || s3.object("k").is_some());
        }
        assert_eq!(s3.object("k").map(|object| object.body.len()), expected);
    }
}
