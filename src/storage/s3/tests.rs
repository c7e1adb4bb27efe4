//! Odd answers, from a server that says exactly what the test tells it to.

use super::*;
use crate::config::Secret;
use crate::storage::{Bounds, StorageErrorKind};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

/// What the server does with one request.
#[derive(Clone)]
enum Act {
    /// Answers with these bytes and closes the connection.
    Say(String),
    /// Reads the request and then says nothing.
    Hang,
    /// Closes without reading on.
    Drop,
    /// Says this and then nothing, with the connection open.
    SayAndHang(String),
    /// Says the first, then the second byte by byte, a pause before each.
    Trickle(String, &'static str, Duration),
    /// Reads the request slowly and answers then.
    ReadSlowly(String),
}

struct Server {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Does one act per request, the last one again and again. Each request comes on its own connection.
    async fn start(acts: impl IntoIterator<Item = Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let (seen, acts): (_, Vec<Act>) = (Arc::clone(&requests), acts.into_iter().collect());
        tokio::spawn(async move {
            for turn in 0.. {
                let Ok((stream, _)) = listener.accept().await else { return };
                let act = acts[turn.min(acts.len() - 1)].clone();
                tokio::spawn(serve(stream, act, Arc::clone(&seen)));
            }
        });
        Self { url, requests }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn serve(mut stream: TcpStream, act: Act, seen: Arc<Mutex<Vec<String>>>) {
    if matches!(act, Act::Drop) {
        return;
    }
    let mut request = Vec::new();
    let mut piece = vec![0; 65536];
    while !is_whole(&request) {
        if matches!(act, Act::ReadSlowly(_)) {
            tokio::time::sleep(Duration::from_millis(4)).await;
        }
        match stream.read(&mut piece).await {
            Ok(length) if length > 0 => request.extend_from_slice(&piece[..length]),
            _ => return,
        }
    }
    seen.lock().unwrap().push(String::from_utf8_lossy(&request).into_owned());
    // The client may have gone; that is its business.
    match act {
        Act::Say(answer) | Act::ReadSlowly(answer) => drop(stream.write_all(answer.as_bytes()).await),
        Act::SayAndHang(answer) => {
            drop(stream.write_all(answer.as_bytes()).await);
            drop(stream.read(&mut piece).await);
        }
        Act::Trickle(head, body, pause) => {
            drop(stream.write_all(head.as_bytes()).await);
            for byte in body.bytes() {
                tokio::time::sleep(pause).await;
                if stream.write_all(&[byte]).await.is_err() {
                    return;
                }
            }
        }
        Act::Hang | Act::Drop => drop(stream.read(&mut piece).await),
    }
}

fn is_whole(request: &[u8]) -> bool {
    let Some(head) = request[..request.len().min(8192)].windows(4).position(|window| window == b"\r\n\r\n") else {
        return false;
    };
    let text = String::from_utf8_lossy(&request[..head]).to_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    request.len() >= head + 4 + length.unwrap_or(0)
}

/// An answer with this status line, these headers, and a body of the length it announces.
fn answer(status: &str, headers: &str, body: &str) -> Act {
    Act::Say(raw(status, headers, body.len(), body))
}

fn raw(status: &str, headers: &str, length: usize, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

fn error(status: &str, headers: &str, code: &str, more: &str) -> Act {
    let body = format!(
        "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>in the service's words</Message>{more}\
         <RequestId>r1</RequestId></Error>"
    );
    answer(status, &format!("x-amz-request-id: r1\r\ncontent-type: application/xml\r\n{headers}"), &body)
}

fn settings(url: &str) -> S3Settings {
    S3Settings {
        endpoint: Some(url.to_owned()),
        region: "us-east-1".to_owned(),
        addressing: Addressing::Path,
        ca_file: None,
        credentials: S3Credentials::Static {
            access_key: "AKID".to_owned(),
            secret_key: Secret::new("verysecret"),
            session_token: None,
        },
    }
}

fn storage_with(url: &str, limits: Limits) -> S3Storage {
    S3Storage::new(&settings(url), "bucket", "some/prefix", limits).unwrap()
}

fn storage(server: &Server) -> S3Storage {
    storage_with(&server.url, Limits::new(Bounds::PATIENT))
}

fn key() -> Key {
    Key::new("7/wal/x").unwrap()
}

async fn put(storage: &S3Storage, mode: PutMode) -> StorageResult<Option<ETag>> {
    storage.put(&key(), Bytes::from_static(b"hello"), &mode, Integrity::Sound).await
}

#[tokio::test]
async fn a_put_carries_its_condition_one_integrity_header_and_a_signed_payload() {
    let server = Server::start([answer("200 OK", "etag: \"t\"\r\n", "")]).await;
    let etag = put(&storage(&server), PutMode::CreateOnly).await.unwrap();
    assert_eq!(etag, Some(ETag("\"t\"".to_owned())));
    let request = server.requests().remove(0);
    let lines: Vec<String> = request.lines().map(str::to_lowercase).collect();
    let has = |line: &str| assert!(lines.iter().any(|found| found == line), "{line} not in {request}");
    assert!(request.starts_with("PUT /bucket/some/prefix/7/wal/x"), "{request}");
    has("if-none-match: *");
    has("content-length: 5");
    has("content-md5: xufakrxlkna5cz2rebffkg==");
    // The SHA-256 of "hello", not UNSIGNED-PAYLOAD.
    has("x-amz-content-sha256: 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
    assert!(!request.contains("checksum") && !request.contains("aws-chunked") && !request.contains("verysecret"));
    assert!(request.ends_with("hello"));
}

#[tokio::test]
async fn an_answer_without_a_tag_proves_nothing() {
    let page = answer("200 OK", "content-type: text/html\r\netag: \"portal\"\r\n", "<html>Welcome</html>");
    for act in
        [answer("200 OK", "", ""), page.clone(), answer("200 OK", "", "<Error><Code>InternalError</Code></Error>")]
    {
        let server = Server::start([act]).await;
        let refused = put(&storage(&server), PutMode::CreateOnly).await.unwrap_err();
        assert_eq!(refused.kind, StorageErrorKind::Unavailable, "{refused}");
        let refused = storage(&server).get(&key(), None).await.unwrap_err();
        assert_eq!(refused.kind, StorageErrorKind::Unavailable, "{refused}");
    }
    let server = Server::start([page]).await;
    let storage = storage(&server);
    for refused in [
        storage.list(&ListRequest::default()).await.unwrap_err(),
        storage.folders("").await.unwrap_err(),
        storage.delete(&key()).await.unwrap_err(),
    ] {
        assert_eq!(refused.kind, StorageErrorKind::Unavailable, "{refused}");
    }
    let server = Server::start([answer("200 OK", "", "")]).await;
    let refused = self::storage(&server).list(&ListRequest::default()).await.unwrap_err();
    assert_eq!(refused.kind, StorageErrorKind::Unavailable, "an empty answer is no empty listing: {refused}");
}

#[tokio::test]
async fn absence_is_believed_in_s3s_own_words_only() {
    use StorageErrorKind::{Config, Denied, NotFound, Unavailable};
    let html = "<html>404</html>";
    for (act, kind) in [
        (error("404 Not Found", "", "NoSuchKey", ""), NotFound { deleted: false }),
        (error("404 Not Found", "x-amz-delete-marker: true\r\n", "NoSuchKey", ""), NotFound { deleted: true }),
        (error("404 Not Found", "", "NoSuchBucket", ""), Config),
        (answer("404 Not Found", "", ""), Unavailable),
        (answer("404 Not Found", "content-type: text/html\r\n", html), Unavailable),
        (answer("403 Forbidden", "content-type: text/html\r\n", html), Denied),
        (error("403 Forbidden", "", "AccessDenied", ""), Denied),
        (answer("502 Bad Gateway", "content-type: text/html\r\n", html), Unavailable),
        (answer("302 Found", "location: http://portal/\r\n", ""), Unavailable),
        (Act::Drop, Unavailable),
    ] {
        let server = Server::start([act]).await;
        let refused = storage(&server).get(&key(), None).await.unwrap_err();
        assert_eq!(refused.kind, kind, "{refused}");
        assert!(refused.message.starts_with("cannot read 7/wal/x in s3://bucket/some/prefix at http://"), "{refused}");
    }
}

#[tokio::test]
async fn the_message_names_the_services_code_words_and_request() {
    let server = Server::start([error("403 Forbidden", "", "AccessDenied", "")]).await;
    let refused = storage(&server).get(&key(), None).await.unwrap_err();
    assert!(refused.message.ends_with("403 AccessDenied: in the service's words (request r1)"), "{refused}");
    assert!(refused.hint.unwrap().contains("right to list"));
}

#[tokio::test]
async fn both_clocks_are_named_where_they_are_the_trouble() {
    let date = "date: Mon, 01 Jan 2024 00:00:00 GMT\r\n";
    let skewed = error("403 Forbidden", date, "RequestTimeTooSkewed", "");
    let server = Server::start([skewed.clone()]).await;
    let refused = storage(&server).get(&key(), None).await.unwrap_err();
    assert_eq!(refused.kind, StorageErrorKind::Denied);
    assert!(refused.message.contains("Mon, 01 Jan 2024 00:00:00 GMT"), "{refused}");
    // The second try was signed with the store's time.
    let signed: Vec<bool> = server.requests().iter().map(|request| request.contains("x-amz-date: 20240101T")).collect();
    assert_eq!(signed, [false, true]);
}

#[tokio::test]
async fn a_region_that_the_store_names_is_tried_once_and_kept() {
    let moved = error("301 Moved Permanently", "x-amz-bucket-region: eu-north-1\r\n", "PermanentRedirect", "");
    let wrong = error("400 Bad Request", "", "AuthorizationHeaderMalformed", "<Region>eu-north-1</Region>");
    for refusal in [moved, wrong] {
        let server = Server::start([refusal.clone(), answer("200 OK", "etag: \"t\"\r\n", "x")]).await;
        let storage = storage(&server);
        assert_eq!(storage.get(&key(), None).await.unwrap().body, "x");
        assert_eq!(storage.get(&key(), None).await.unwrap().body, "x");
        let regions: Vec<bool> =
            server.requests().iter().map(|request| request.contains("/eu-north-1/s3/aws4_request")).collect();
        assert_eq!(regions, [false, true, true]);
        assert_eq!(storage.region_learnt().as_deref(), Some("eu-north-1"));
        let retrying = crate::storage::Retrying::new(Arc::new(storage), Limits::new(Bounds::PATIENT));
        assert_eq!(retrying.region_learnt().as_deref(), Some("eu-north-1"));
        assert_eq!(self::storage(&server).region_learnt(), None);
        // Where that does not help, it is said and not repeated.
        let server = Server::start([refusal]).await;
        let refused = self::storage(&server).get(&key(), None).await.unwrap_err();
        assert_eq!((refused.kind, server.requests().len()), (StorageErrorKind::Config, 2));
        assert!(refused.hint.unwrap().contains("s3_region"));
    }
}

#[tokio::test]
async fn the_stores_wish_to_wait_is_heard() {
    for act in [
        error("503 Slow Down", "retry-after: 17\r\n", "SlowDown", ""),
        answer("429 Too Many Requests", "retry-after: 17\r\n", ""),
        error("403 Forbidden", "retry-after: 17\r\n", "RequestRateLimitExceeded", ""),
    ] {
        let server = Server::start([act]).await;
        let refused = storage(&server).delete(&key()).await.unwrap_err();
        assert_eq!(refused.kind, StorageErrorKind::Throttled);
        assert_eq!(refused.retry_after, Some(Duration::from_secs(17)));
    }
}

#[tokio::test]
async fn conditions_refused_and_conditions_unknown() {
    use StorageErrorKind::{ConditionUnsupported, Precondition, Unavailable};
    let tag = || PutMode::IfMatch(ETag("\"t\"".to_owned()));
    for (act, mode, kind) in [
        (error("412 Precondition Failed", "", "PreconditionFailed", ""), PutMode::CreateOnly, Precondition),
        (answer("304 Not Modified", "", ""), PutMode::CreateOnly, Precondition),
        (error("412 Precondition Failed", "", "PreconditionFailed", ""), tag(), Precondition),
        (error("404 Not Found", "", "NoSuchKey", ""), tag(), Precondition),
        (error("409 Conflict", "", "ConditionalRequestConflict", ""), PutMode::CreateOnly, Unavailable),
        (error("501 Not Implemented", "", "NotImplemented", ""), PutMode::CreateOnly, ConditionUnsupported),
        (error("501 Not Implemented", "", "NotImplemented", ""), tag(), ConditionUnsupported),
    ] {
        let server = Server::start([act]).await;
        let refused = put(&storage(&server), mode).await.unwrap_err();
        assert_eq!(refused.kind, kind, "{refused}");
    }
}

#[tokio::test]
async fn a_body_that_is_cut_is_no_object() {
    let etag = "etag: \"t\"\r\n";
    let unannounced = format!("HTTP/1.1 200 OK\r\n{etag}connection: close\r\n\r\nabc");
    let chunked = format!("HTTP/1.1 200 OK\r\n{etag}transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n");
    for cut in [raw("200 OK", etag, 10, "abc"), unannounced, chunked] {
        let server = Server::start([Act::Say(cut)]).await;
        let refused = storage(&server).get(&key(), None).await.unwrap_err();
        assert_eq!(refused.kind, StorageErrorKind::Unavailable, "{refused}");
    }
}

#[tokio::test]
async fn what_is_larger_than_any_object_of_ours_is_not_read() {
    for announced in ["1140850689", "9223372036854775807"] {
        let head = format!("HTTP/1.1 200 OK\r\netag: \"t\"\r\ncontent-length: {announced}\r\n\r\nabc");
        let server = Server::start([Act::SayAndHang(head)]).await;
        let refused = storage(&server).get(&key(), None).await.unwrap_err();
        assert_eq!(refused.kind, StorageErrorKind::Config, "{refused}");
        assert!(refused.message.contains(announced) && refused.message.contains("no object of ours"), "{refused}");
    }
}

#[tokio::test]
async fn parts_of_objects() {
    let part = |range: &str, body: &str| {
        answer("206 Partial Content", &format!("etag: \"t\"\r\ncontent-range: {range}\r\n"), body)
    };
    let whole = answer("200 OK", "etag: \"t\"\r\n", "0123456789");
    for (act, range, body) in [
        (part("bytes 2-4/10", "234"), 2..5, Some("234")),
        (part("bytes 8-9/10", "89"), 8..20, Some("89")),
        (part("bytes 2-2/10", "2"), 2..2, Some("")),
        (whole.clone(), 2..5, Some("234")),
        (whole, 8..20, Some("89")),
        (error("416 Range Not Satisfiable", "", "InvalidRange", ""), 10..12, Some("")),
        (part("bytes 0-2/10", "012"), 2..5, None),
    ] {
        let server = Server::start([act]).await;
        let object = storage(&server).get(&key(), Some(range.clone())).await;
        match body {
            Some(body) => assert_eq!(object.unwrap().body, body, "{range:?}"),
            None => assert_eq!(object.unwrap_err().kind, StorageErrorKind::Unavailable),
        }
    }
}

#[tokio::test]
async fn a_listing_that_is_none_is_never_an_empty_or_endless_one() {
    let xml = |inner: &str| answer("200 OK", "", &format!("<?xml version=\"1.0\"?>{inner}"));
    let repeats = "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>\
                   </ListBucketResult>";
    for inner in ["<ListBucketResult/>", "<ListBucketResult></ListBucketResult>", repeats] {
        let server = Server::start([xml(inner)]).await;
        let storage = storage(&server);
        let refused = crate::storage::list_all(&storage, "a").await.unwrap_err();
        assert_eq!(refused.kind, StorageErrorKind::Unavailable, "{refused}");
        let refused = storage.folders("").await.unwrap_err();
        assert_eq!(refused.kind, StorageErrorKind::Unavailable, "{refused}");
        assert!(server.requests().len() <= 4);
    }
    // What is listed is there, whatever is not said of it.
    let bare = "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>some/prefix/a</Key></Contents>\
                </ListBucketResult>";
    let server = Server::start([xml(bare)]).await;
    let entries = crate::storage::list_all(&storage(&server), "a").await.unwrap();
    assert_eq!(entries.iter().map(|entry| (entry.key.as_str(), entry.size)).collect::<Vec<_>>(), [("a", 0)]);
}

#[tokio::test]
async fn listings_page_by_page() {
    let listing = |more: bool, inner: &str| {
        let token = if more { "<NextContinuationToken>t+1</NextContinuationToken>" } else { "" };
        let body = format!(
            "<?xml version=\"1.0\"?><ListBucketResult><EncodingType>url</EncodingType><IsTruncated>{more}</IsTruncated>{token}\
             {inner}</ListBucketResult>"
        );
        answer("200 OK", "date: Tue, 24 Nov 2026 09:00:00 GMT\r\n", &body)
    };
    let object = |key: &str| format!("<Contents><Key>{key}</Key><Size>3</Size><ETag>\"t\"</ETag></Contents>");
    let inner = ["some/prefix/a%2Fb", "some/prefix/with+space", "some/prefix/", "some/prefixed", "else"].map(object);
    let server = Server::start([listing(true, &inner.concat())]).await;
    let request = ListRequest {
        start_after: Some(key()),
        token: Some("t".to_owned()),
        limit: Some(7),
        ..ListRequest::prefix("a")
    };
    let page = storage(&server).list(&request).await.unwrap();
    assert_eq!(page.entries.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), ["a/b"]);
    assert_eq!((page.next.as_deref(), page.date.is_some()), (Some("t+1"), true));
    let request = server.requests().remove(0);
    for wanted in [
        "list-type=2",
        "prefix=some%2Fprefix%2Fa",
        "start-after=some%2Fprefix%2F7%2Fwal%2Fx",
        "continuation-token=t&",
        "max-keys=7",
    ] {
        assert!(request.lines().next().unwrap().contains(wanted), "{wanted}: {request}");
    }

    let folder = |name: &str| format!("<CommonPrefixes><Prefix>{name}</Prefix></CommonPrefixes>");
    let first = listing(true, &folder("some/prefix/7/b%2F"));
    let second = listing(false, &[folder("some/prefix/7/a/"), folder("some/prefix/7/x+y/")].concat());
    let server = Server::start([first.clone(), second]).await;
    assert_eq!(storage(&server).folders("7/").await.unwrap(), ["a", "b"]);
    let server = Server::start([first]).await;
    let refused = storage(&server).folders("7/").await.unwrap_err();
    assert!(refused.message.contains("repeats itself"), "{refused}");
}

#[tokio::test]
async fn who_does_not_answer_is_given_up() {
    let bounds = Bounds { stall: Duration::from_millis(300), ..Bounds::PATIENT };
    let begun = raw("200 OK", "etag: \"t\"\r\n", 10, "abc");
    for act in [Act::Hang, Act::SayAndHang(begun)] {
        let server = Server::start([act]).await;
        let time = Instant::now();
        let refused = storage_with(&server.url, Limits::new(bounds)).get(&key(), None).await.unwrap_err();
        assert_eq!(refused.kind, StorageErrorKind::Unavailable);
        assert!(refused.message.contains("no progress for 300ms"), "{refused}");
        assert!(time.elapsed() < Duration::from_secs(2));
    }
}

#[tokio::test]
async fn who_answers_slowly_is_waited_for_until_the_request_limit() {
    let bounds = Bounds { stall: Duration::from_millis(400), request: Duration::from_secs(30), ..Bounds::PATIENT };
    let (head, body) = (raw("200 OK", "etag: \"t\"\r\n", 20, ""), "twenty bytes of words");
    let slow = Act::Trickle(head, &body[..20], Duration::from_millis(50));
    let server = Server::start([slow.clone()]).await;
    let limits = Limits::new(bounds);
    assert_eq!(storage_with(&server.url, limits.clone()).get(&key(), None).await.unwrap().body, body[..20]);
    limits.change(|bounds| bounds.request = Duration::from_millis(600));
    let refused = storage_with(&server.url, limits).get(&key(), None).await.unwrap_err();
    assert!(refused.message.contains("not done after 600ms"), "{refused}");
}

#[tokio::test]
async fn who_reads_slowly_is_waited_for() {
    let server = Server::start([Act::ReadSlowly(raw("200 OK", "etag: \"t\"\r\n", 0, ""))]).await;
    let limits = Limits::new(Bounds { stall: Duration::from_millis(800), ..Bounds::PATIENT });
    let time = Instant::now();
    let body = Bytes::from(vec![7; 24 << 20]);
    storage_with(&server.url, limits).put(&key(), body, &PutMode::CreateOnly, Integrity::Sound).await.unwrap();
    assert!(time.elapsed() > Duration::from_millis(1200), "too fast to show anything: {:?}", time.elapsed());
}

#[tokio::test]
async fn limits_that_tighten_end_what_is_under_way() {
    let server = Server::start([Act::Hang]).await;
    let limits = Limits::new(Bounds::PATIENT);
    let storage = storage_with(&server.url, limits.clone());
    let time = Instant::now();
    let tighten = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        limits.change(|bounds| bounds.deadline = Some(Instant::now()));
    };
    let name = key();
    let (answer, ()) = tokio::join!(storage.get(&name, None), tighten);
    assert_eq!(answer.unwrap_err().kind, StorageErrorKind::Unavailable);
    assert!(time.elapsed() < Duration::from_millis(800), "{:?}", time.elapsed());
}

#[tokio::test]
async fn nobody_there() {
    // A port that was free a moment ago: refused. An address of documentation: no connection in time, or no route.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let limits = Limits::new(Bounds { connect: Duration::from_millis(300), ..Bounds::PATIENT });
    for url in [format!("http://{free}"), "http://192.0.2.1:9".to_owned(), "http://name.invalid".to_owned()] {
        let time = Instant::now();
        let refused = storage_with(&url, limits.clone()).get(&key(), None).await.unwrap_err();
        assert_eq!(refused.kind, StorageErrorKind::Unavailable, "{refused}");
        assert!(time.elapsed() < Duration::from_secs(2), "{refused}");
    }
}

#[test]
fn endpoints_that_are_none() {
    for endpoint in ["", "localhost:9000", "ftp://host", "http://", "https://user:verysecret@host", "not a url"] {
        let refused = S3Storage::new(&settings(endpoint), "b", "", Limits::new(Bounds::PATIENT)).unwrap_err();
        assert_eq!(refused.kind(), crate::error::ErrorKind::Config, "{endpoint}");
        assert!(!refused.to_string().contains("verysecret"));
    }
}

#[test]
fn places_are_named_without_secrets() {
    let place = |bucket, prefix| {
        S3Storage::new(&settings("http://127.0.0.1:1/"), bucket, prefix, Limits::new(Bounds::PATIENT)).unwrap()
    };
    assert_eq!(place("b", "").location(), "s3://b at http://127.0.0.1:1");
    assert_eq!(place("b", "/p/q/").location(), "s3://b/p/q at http://127.0.0.1:1");
    assert_eq!(place("b", "").full(&key()), "7/wal/x");
    assert!(!format!("{:?}", place("b", "p")).contains("verysecret"));
}

/// A server behind TLS: passes what it decrypts on to a scripted one. The certificate's authority is in the file.
async fn behind_tls(inner: &Server) -> (String, tempfile::NamedTempFile) {
    let authority = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::default();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = parameters.self_signed(&authority).unwrap();
    let issuer = rcgen::Issuer::new(parameters, authority);
    let keys = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let certificate = certificate.signed_by(&keys, &issuer).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(keys.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let inner = inner.url.trim_start_matches("http://").to_owned();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, inner) = (acceptor.clone(), inner.clone());
            tokio::spawn(async move {
                let Ok(mut outside) = acceptor.accept(stream).await else { return };
                let mut inside = TcpStream::connect(inner).await.unwrap();
                drop(tokio::io::copy_bidirectional(&mut outside, &mut inside).await);
            });
        }
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), root.pem()).unwrap();
    (url, file)
}

#[tokio::test]
async fn a_private_authority_is_trusted_where_it_is_named_and_nowhere_else() {
    let server = Server::start([answer("200 OK", "etag: \"t\"\r\n", "x")]).await;
    let (url, authority) = behind_tls(&server).await;
    let (_, stranger) = behind_tls(&server).await;
    let get = async |ca_file: &tempfile::NamedTempFile| {
        let settings = S3Settings { ca_file: Some(ca_file.path().to_owned()), ..settings(&url) };
        S3Storage::new(&settings, "bucket", "p", Limits::new(Bounds::PATIENT)).unwrap().get(&key(), None).await
    };
    assert_eq!(get(&authority).await.unwrap().body, "x");
    let refused = get(&stranger).await.unwrap_err();
    assert_eq!(refused.kind, StorageErrorKind::Config, "{refused}");
    assert!(refused.message.contains("invalid peer certificate") && refused.hint.unwrap().contains("s3_ca_file"));
}

/// A proxy that tunnels to anywhere, and keeps the head of each request.
async fn tunnelling_proxy() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let heads: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&heads);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let seen = Arc::clone(&seen);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                let to = head.split(' ').nth(1).unwrap().to_owned();
                seen.lock().unwrap().push(head);
                let mut inside = TcpStream::connect(to).await.unwrap();
                stream.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await.unwrap();
                drop(tokio::io::copy_bidirectional(&mut stream, &mut inside).await);
            });
        }
    });
    (address, heads)
}

#[tokio::test]
async fn proxies_forward_http_and_tunnel_https() {
    const AUTHORIZATION: &str = "basic dXNlcjpwYXNz";
    let stored = answer("200 OK", "etag: \"t\"\r\n", "x");
    let through = |proxy: String, settings: &S3Settings| {
        let proxies = Matcher::builder().all(format!("http://user:pass@{proxy}")).no("10.0.0.0/8").build();
        S3Storage::behind(proxies, settings, "bucket", "p", Limits::new(Bounds::PATIENT)).unwrap()
    };
    let proxy = Server::start([stored.clone()]).await;
    let storage = through(proxy.url.trim_start_matches("http://").to_owned(), &settings("http://store.invalid:9000"));
    assert_eq!(storage.get(&key(), None).await.unwrap().body, "x");
    let request = proxy.requests().remove(0);
    assert!(request.starts_with("GET http://store.invalid:9000/bucket/p/7/wal/x"), "{request}");
    assert!(
        request.to_lowercase().contains(&format!("proxy-authorization: {AUTHORIZATION}").to_lowercase()),
        "{request}"
    );

    let server = Server::start([stored]).await;
    let (url, authority) = behind_tls(&server).await;
    let (address, heads) = tunnelling_proxy().await;
    let settings = S3Settings { ca_file: Some(authority.path().to_owned()), ..settings(&url) };
    assert_eq!(through(address, &settings).get(&key(), None).await.unwrap().body, "x");
    let head = heads.lock().unwrap().concat();
    assert!(head.starts_with("CONNECT 127.0.0.1:"), "{head}");
    assert!(head.to_lowercase().contains(&AUTHORIZATION.to_lowercase()), "{head}");
    assert!(
        !server.requests()[0].to_lowercase().contains("proxy-authorization"),
        "the proxy's password went to the store"
    );

    let refused = through("127.0.0.1:1".to_owned(), &self::settings("http://store.invalid")).get(&key(), None).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.kind, StorageErrorKind::Unavailable);
    assert!(!refused.message.contains("pass"), "{refused}");
}

/// The tag tells on which connection, counted as they were accepted, a put was answered.
async fn tagged_by_connection() -> Server {
    Server::start((1..=9).map(|tag| answer("200 OK", &format!("etag: \"{tag}\"\r\n"), ""))).await
}

#[tokio::test]
async fn a_prepared_connection_takes_the_first_request_and_no_other() {
    let server = tagged_by_connection().await;
    let storage = storage(&server);
    storage.prepare();
    for tag in ["\"1\"", "\"2\""] {
        assert_eq!(put(&storage, PutMode::CreateOnly).await.unwrap(), Some(ETag(tag.to_owned())));
    }
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn a_prepared_connection_that_waited_too_long_or_leads_elsewhere_is_left() {
    let (server, elsewhere) = (tagged_by_connection().await, tagged_by_connection().await);
    let storage = storage(&server);
    storage.http.prepare(&elsewhere.url.parse().unwrap());
    assert_eq!(put(&storage, PutMode::CreateOnly).await.unwrap(), Some(ETag("\"1\"".to_owned())));
    assert!(elsewhere.requests().is_empty());

    storage.prepare();
    tokio::time::sleep(connect::UNASKED).await;
    assert_eq!(put(&storage, PutMode::CreateOnly).await.unwrap(), Some(ETag("\"3\"".to_owned())));
}

#[tokio::test]
async fn a_connection_prepared_in_vain_is_told_as_any_other() {
    let nobody = "http://127.0.0.1:1";
    let unprepared = put(&storage_with(nobody, Limits::new(Bounds::PATIENT)), PutMode::CreateOnly).await.unwrap_err();
    let storage = storage_with(nobody, Limits::new(Bounds::PATIENT));
    storage.prepare();
    let error = put(&storage, PutMode::CreateOnly).await.unwrap_err();
    assert_eq!((error.kind, error.message), (unprepared.kind, unprepared.message));
}

#[test]
fn preparing_outside_a_runtime_does_nothing() {
    storage_with("http://127.0.0.1:1", Limits::new(Bounds::PATIENT)).prepare();
}

#[test]
fn whom_requests_go_to() {
    for (endpoint, bucket, addressing, expected) in [
        ("http://127.0.0.1:9", "b", Addressing::Path, "http://127.0.0.1:9/"),
        ("https://s3.eu-west-1.amazonaws.com", "b", Addressing::Virtual, "https://b.s3.eu-west-1.amazonaws.com/"),
        ("https://s3.eu-west-1.amazonaws.com", "b.c", Addressing::Virtual, "https://s3.eu-west-1.amazonaws.com/"),
    ] {
        assert_eq!(host(&endpoint.parse().unwrap(), bucket, addressing).to_string(), expected);
    }
}

#[tokio::test]
async fn a_prepared_connection_has_shaken_hands_before_the_request() {
    let server = tagged_by_connection().await;
    let (url, authority) = behind_tls(&server).await;
    let settings = S3Settings { ca_file: Some(authority.path().to_owned()), ..settings(&url) };
    let storage = S3Storage::new(&settings, "bucket", "", Limits::new(Bounds::PATIENT)).unwrap();
    storage.prepare();
    assert_eq!(put(&storage, PutMode::CreateOnly).await.unwrap(), Some(ETag("\"1\"".to_owned())));
    assert_eq!(server.requests().len(), 1);
}
