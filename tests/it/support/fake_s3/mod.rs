//! A false S3 in the test process, stricter than the real ones: it verifies signatures and every integrity header, stores nothing
//! before the whole body is there, refuses what only some services accept; and it takes on the vices of the others when asked to.
//!
//! ```ignore
//! let s3 = FakeS3::start();
//! s3.personality(|p| p.create_only = Condition::Ignore);
//! s3.fault(Fault::new(Answer::slow_down()).method("PUT").times(3));
//! // … use s3.endpoint(), BUCKET, ACCESS_KEY, SECRET_KEY …
//! assert_eq!(s3.requests_of("PUT").len(), 1);
//! ```

mod authority;
mod front;
mod personality;
mod store;

pub(crate) use authority::Certificate;

pub(crate) use personality::{Answer, Check, Condition, Fault, Moment, Order, Personality, Right};
pub(crate) use store::Stored;

use bytes::Bytes;
use md5::{Digest as _, Md5};
use s3s::auth::{S3Auth, SecretKey};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3Result, s3_error};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

/// The only bucket there is.
pub(crate) const BUCKET: &str = "bucket";
/// The access key that is known.
pub(crate) const ACCESS_KEY: &str = "AKIDTEST";
/// Its secret.
pub(crate) const SECRET_KEY: &str = "not-so-secret-key";

/// A request as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// The key without the bucket; empty for a listing.
    pub(crate) key: String,
    /// The prefix that a listing asked for.
    pub(crate) prefix: String,
    /// The whole query.
    pub(crate) query: String,
    /// Its headers, names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
}

impl Request {
    fn of(parts: &hyper::http::request::Parts) -> Self {
        let path = parts.uri.path().trim_start_matches('/');
        let key = path.split_once('/').map(|(_, key)| key.to_owned()).unwrap_or_default();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let prefix = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("prefix="))
            .map(|prefix| prefix.replace("%2F", "/"))
            .unwrap_or_default();
        let headers = parts
            .headers
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        Request { method: parts.method.to_string(), key, prefix, query, headers }
    }
}

type Hook = Arc<dyn Fn(&Request) + Send + Sync>;

/// Everything that the parts of the server share.
struct State {
    personality: Personality,
    objects: BTreeMap<String, Stored>,
    deleted: BTreeSet<String>,
    faults: Vec<Fault>,
    hook: Option<Hook>,
    requests: Vec<Request>,
    /// How often a put was carried out, by key.
    commits: BTreeMap<String, usize>,
    connections: usize,
    failed_handshakes: usize,
    answers: u64,
}

impl State {
    fn is_denied(&self, right: Right, key: &str) -> bool {
        self.personality.denied.iter().any(|(denied, prefix)| *denied == right && key.starts_with(prefix.as_str()))
    }

    /// Stores a body and answers its ETag.
    fn insert(&mut self, key: &str, body: Bytes) -> String {
        let etag = if self.personality.etag_is_md5 {
            Md5::digest(&body).iter().map(|byte| format!("{byte:02x}")).collect()
        } else {
            format!("{:032x}", fastrand::u128(..))
        };
        self.deleted.remove(key);
        let modified = self.now();
        self.objects.insert(key.to_owned(), Stored { body, etag: etag.clone(), modified });
        etag
    }

    fn remove(&mut self, key: &str) {
        self.objects.remove(key);
        if self.personality.versioned {
            self.deleted.insert(key.to_owned());
        }
    }
}

/// The running server.
pub(crate) struct FakeS3 {
    state: Arc<Mutex<State>>,
    service: S3Service,
    tls: Option<TlsAcceptor>,
    port: u16,
    runtime: Option<Runtime>,
    // Holds ca.pem.
    directory: tempfile::TempDir,
}

impl FakeS3 {
    /// Starts an honest one, over http.
    pub(crate) fn start() -> Self {
        Self::with(Personality::honest(), false)
    }

    /// Starts one over https, with a certificate of [`FakeS3::ca_file`]'s authority.
    pub(crate) fn start_https() -> Self {
        Self::start_https_as(Certificate::Good)
    }

    /// Starts one over https whose certificate is good or bad in this way.
    pub(crate) fn start_https_as(certificate: Certificate) -> Self {
        Self::start_with(Personality::honest(), Some(certificate))
    }

    /// Starts one of this personality.
    pub(crate) fn with(personality: Personality, https: bool) -> Self {
        Self::start_with(personality, https.then_some(Certificate::Good))
    }

    fn start_with(personality: Personality, certificate: Option<Certificate>) -> Self {
        let state = Arc::new(Mutex::new(State {
            personality,
            objects: BTreeMap::new(),
            deleted: BTreeSet::new(),
            faults: Vec::new(),
            hook: None,
            requests: Vec::new(),
            commits: BTreeMap::new(),
            connections: 0,
            failed_handshakes: 0,
            answers: 0,
        }));
        let mut service = S3ServiceBuilder::new(store::Store { state: state.clone() });
        service.set_auth(OneKey);
        let tls = certificate.map(authority::acceptor);
        let directory = super::temporary();
        std::fs::write(directory.path().join("ca.pem"), authority::pem()).unwrap();
        let port = super::free_port();
        let mut server = FakeS3 { state, service: service.build(), tls, port, runtime: None, directory };
        server.up();
        server
    }

    /// Takes connections (again).
    pub(crate) fn up(&mut self) {
        assert!(self.runtime.is_none(), "it is up");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = std::net::TcpListener::bind(("127.0.0.1", self.port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let front = front::Front { state: self.state.clone(), service: self.service.clone() };
        let tls = self.tls.clone();
        runtime.spawn(async move { front.serve(tokio::net::TcpListener::from_std(listener).unwrap(), tls).await });
        self.runtime = Some(runtime);
    }

    /// An outage: connections end, new ones are refused. What is stored stays.
    pub(crate) fn down(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // With a time limit, so that the port is free when this returns; its tasks do not block.
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }

    /// `http(s)://127.0.0.1:port`.
    pub(crate) fn endpoint(&self) -> String {
        format!("{}://127.0.0.1:{}", if self.tls.is_some() { "https" } else { "http" }, self.port)
    }

    /// The PEM file of the authority that signed the https servers' certificates.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// Its port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Changes its personality, also while it runs.
    pub(crate) fn personality(&self, change: impl FnOnce(&mut Personality)) {
        change(&mut self.state.lock().unwrap().personality);
    }

    /// Adds a fault. The first that fits a request strikes.
    pub(crate) fn fault(&self, fault: Fault) {
        self.state.lock().unwrap().faults.push(fault);
    }

    /// Takes all faults away.
    pub(crate) fn heal(&self) {
        self.state.lock().unwrap().faults.clear();
    }

    /// Calls this when a request has arrived, before anything is done with it: the place for a rival's move.
    pub(crate) fn before(&self, hook: impl Fn(&Request) + Send + Sync + 'static) {
        self.state.lock().unwrap().hook = Some(Arc::new(hook));
    }

    /// From the next listing below `prefix` on this object is there: it comes while somebody looks for it.
    pub(crate) fn arrives_once_listed(&self, prefix: &str, key: &str, body: impl Into<Bytes>) {
        let (state, prefix, key, body) = (Arc::downgrade(&self.state), prefix.to_owned(), key.to_owned(), body.into());
        self.before(move |request| {
            if request.key.is_empty()
                && request.prefix.starts_with(&prefix)
                && let Some(state) = state.upgrade()
            {
                state.lock().unwrap().insert(&key, body.clone());
            }
        });
    }

    /// As it was when it started: empty, honest, without faults, hooks and memory.
    pub(crate) fn reset(&self) {
        let mut state = self.state.lock().unwrap();
        state.personality = Personality::honest();
        state.objects.clear();
        state.deleted.clear();
        state.faults.clear();
        state.hook = None;
        state.requests.clear();
    }

    /// The requests so far, in the order of their arrival.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.state.lock().unwrap().requests.clone()
    }

    /// The requests of one method so far.
    pub(crate) fn requests_of(&self, method: &str) -> Vec<Request> {
        self.requests().into_iter().filter(|request| request.method == method).collect()
    }

    /// How often each key was put, by requests that the store carried out, whether their answers arrived or not.
    pub(crate) fn commits(&self) -> BTreeMap<String, usize> {
        self.state.lock().unwrap().commits.clone()
    }

    /// Forgets the requests so far.
    pub(crate) fn forget_requests(&self) {
        self.state.lock().unwrap().requests.clear();
    }

    /// Connections taken so far, and TLS handshakes that failed.
    pub(crate) fn connections(&self) -> (usize, usize) {
        let state = self.state.lock().unwrap();
        (state.connections, state.failed_handshakes)
    }

    /// The keys there are, in byte order.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.state.lock().unwrap().objects.keys().cloned().collect()
    }

    /// An object, without a request.
    pub(crate) fn object(&self, key: &str) -> Option<Stored> {
        self.state.lock().unwrap().objects.get(key).cloned()
    }

    /// Puts an object there, without a request: somebody else's, or a damaged one.
    pub(crate) fn insert(&self, key: &str, body: impl Into<Bytes>) {
        self.state.lock().unwrap().insert(key, body.into());
    }

    /// Takes an object away, without a request (a delete marker stays where the bucket is versioned).
    pub(crate) fn remove(&self, key: &str) {
        self.state.lock().unwrap().remove(key);
    }

    /// Changes an object's bytes in place: bit rot.
    pub(crate) fn damage(&self, key: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state.lock().unwrap();
        let object = state.objects.get_mut(key).unwrap_or_else(|| panic!("there is no {key}"));
        let mut body = object.body.to_vec();
        change(&mut body);
        object.body = body.into();
    }

    /// Makes an object older.
    pub(crate) fn age(&self, key: &str, by: Duration) {
        let mut state = self.state.lock().unwrap();
        let object = state.objects.get_mut(key).unwrap_or_else(|| panic!("there is no {key}"));
        object.modified = SystemTime::checked_sub(&object.modified, by).unwrap();
    }
}

impl Drop for FakeS3 {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Also where this is dropped inside another runtime, which may not wait.
            runtime.shutdown_background();
        }
    }
}

impl std::fmt::Debug for FakeS3 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FakeS3({})", self.endpoint())
    }
}

struct OneKey;

#[async_trait::async_trait]
impl S3Auth for OneKey {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        if access_key == ACCESS_KEY {
            return Ok(SecretKey::from(SECRET_KEY));
        }
        Err(s3_error!(InvalidAccessKeyId, "The AWS Access Key Id you provided does not exist in our records."))
    }
}
