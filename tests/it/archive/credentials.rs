//! Credentials that run out, from where containers and machines of a cloud get them (requirement N13).

use super::bench::{Bench, segment_name};
use crate::support::fake_s3::{ACCESS_KEY, FakeS3, SECRET_KEY};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A service that gives out credentials: each time with the next token, the last one for ever.
struct Service {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Service {
    fn start(tokens: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (theirs, tokens) = (Arc::clone(&asked), tokens.iter().map(|token| (*token).to_owned()).collect::<Vec<_>>());
        // It ends with the process: nothing waits for it.
        std::thread::spawn(move || {
            let mut given = 0;
            for stream in listener.incoming().flatten() {
                answer(stream, &theirs, &tokens, &mut given);
            }
        });
        Self { port, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// One request: for a token of the metadata service, for the name of the role, or for credentials.
fn answer(mut stream: TcpStream, asked: &Mutex<Vec<String>>, tokens: &[String], given: &mut usize) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut line, mut authorization, mut length) = (String::new(), String::new(), 0);
    reader.read_line(&mut line).unwrap();
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header).unwrap_or(0) == 0 || header.trim().is_empty() {
            break;
        }
        let lower = header.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("authorization:") {
            authorization = value.trim().to_owned();
        }
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    reader.take(length).read_to_end(&mut Vec::new()).unwrap();
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let (body, extra) = if path == "/latest/api/token" {
        ("metadata-token".to_owned(), "x-aws-ec2-metadata-token-ttl-seconds: 300\r\n")
    } else if path.ends_with("security-credentials/") || path.ends_with("security-credentials-extended/") {
        ("role".to_owned(), "")
    } else {
        let token = &tokens[(*given).min(tokens.len() - 1)];
        *given += 1;
        let credentials = format!(
            "{{\"Code\":\"Success\",\"Type\":\"AWS-HMAC\",\"LastUpdated\":\"2026-01-01T00:00:00Z\",\
             \"AccessKeyId\":\"{ACCESS_KEY}\",\"SecretAccessKey\":\"{SECRET_KEY}\",\"Token\":\"{token}\",\
             \"AccountId\":\"123456789012\",\"Expiration\":\"2099-01-01T00:00:00Z\"}}"
        );
        (credentials, "")
    };
    asked.lock().unwrap().push(format!("{} {authorization}", line.trim()));
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n";
    drop(write!(stream, "{head}{extra}Content-Length: {}\r\n\r\n{body}", body.len()));
}

fn without_keys(s3: &FakeS3) -> Bench {
    Bench::on(s3).without("AWS_ACCESS_KEY_ID").without("AWS_SECRET_ACCESS_KEY")
}

/// A token that the store says has run out is asked for anew, within the call: by both programs.
#[test]
fn a_token_that_ran_out_is_renewed_n13() {
    let s3 = FakeS3::start();
    s3.personality(|p| p.token = Some("new".to_owned()));
    let bench = |service: &Service| {
        let uri = format!("http://127.0.0.1:{}/credentials", service.port);
        without_keys(&s3)
            .with("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri)
            .with("AWS_CONTAINER_AUTHORIZATION_TOKEN", "of-the-pod")
    };
    let service = Service::start(&["old", "new"]);
    let cluster = bench(&service);
    cluster.archive(&[&cluster.wal(1)]).expect_silent_success();
    assert!(s3.object(&cluster.key(&segment_name(1))).is_some());
    assert_eq!(service.asked().len(), 2, "{:?}", service.asked());
    assert!(service.asked().iter().all(|asked| asked.ends_with("of-the-pod")), "{:?}", service.asked());

    let service = Service::start(&["old", "new"]);
    let cluster = bench(&service);
    cluster.write("recovery.signal", "");
    cluster.fetch(&segment_name(1)).expect_silent_success();
    assert_eq!(service.asked().len(), 2, "{:?}", service.asked());
}

/// One that stays refused is asked for once more and not for ever; what is refused is no absence, and no secret is told.
#[test]
fn a_token_that_stays_refused_is_denied_n13() {
    let s3 = FakeS3::start();
    s3.personality(|p| p.token = Some("new".to_owned()));
    let service = Service::start(&["old"]);
    let uri = format!("http://127.0.0.1:{}/credentials", service.port);
    let bench = without_keys(&s3).with("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri);
    let bench = bench.with("WALHALLA_RESTORE_TIMEOUT", "5s");
    let answer = bench.archive(&[&bench.wal(1)]);
    answer.expect(77, &["ExpiredToken", "renew them"]);
    assert!(!answer.stderr.contains(SECRET_KEY), "{answer:?}");
    assert_eq!(service.asked().len(), 2, "{:?}", service.asked());
    bench.write("recovery.signal", "");
    bench.fetch(&segment_name(1)).expect(201, &["ExpiredToken"]);
}

/// A service that is not there is trouble that may pass, not a wrong setting that nobody tries again.
#[test]
fn a_service_out_of_reach_is_waited_for_n13() {
    let s3 = FakeS3::start();
    let uri = format!("http://127.0.0.1:{}/credentials", crate::support::free_port());
    let bench = without_keys(&s3)
        .with("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri)
        .with("WALHALLA_ARCHIVE_TIMEOUT", "1s")
        .with("WALHALLA_RESTORE_TIMEOUT", "1s");
    let answer = bench.archive(&[&bench.wal(1)]);
    answer.expect(75, &["cannot archive"]);
    bench.write("recovery.signal", "");
    bench.fetch(&segment_name(1)).expect(202, &["cannot fetch"]);
}

/// The metadata service of a machine, by its second version: first a token, then the role's credentials.
#[test]
fn a_machine_has_its_role_from_the_metadata_service_n13() {
    let s3 = FakeS3::start();
    s3.personality(|p| p.token = Some("new".to_owned()));
    let service = Service::start(&["old", "new"]);
    let endpoint = format!("http://127.0.0.1:{}", service.port);
    let bench = without_keys(&s3).with("AWS_EC2_METADATA_SERVICE_ENDPOINT", endpoint);
    bench.archive(&[&bench.wal(1)]).expect_silent_success();
    let asked = service.asked();
    assert!(asked.iter().any(|line| line.starts_with("PUT /latest/api/token")), "{asked:?}");
    assert_eq!(asked.iter().filter(|line| line.contains("/role")).count(), 2, "{asked:?}");
}
