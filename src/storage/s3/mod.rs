//! S3 and everything that speaks its language.
//!
//! The SDK builds, signs and reads requests; everything it would do beyond that is off, because this house does it itself:
//! retries ([`crate::storage::retry`]), time limits, checksums. A put carries exactly one integrity header, `Content-MD5`, the
//! only one that every real engine accepts, and a signed payload. Bodies are in memory and sent with one PUT.

mod body;
mod connect;
mod credentials;
mod digest;
mod exchange;
mod http;
mod listing;
mod tls;
mod trouble;

use super::bounded::bounded;
use super::{Capabilities, ETag, Integrity, Key, LARGEST_OBJECT, Limits, ListPage, ListRequest, Object, PutMode};
use super::{Storage, StorageResult};
use crate::config::{Addressing, S3Credentials, S3Settings};
use crate::error::{Error, ErrorKind, Result};
use ::http::Uri;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, IdentityCache, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use bytes::Bytes;
use connect::Connect;
use digest::Digests;
use exchange::{Exchange, Head};
use http::Http;
use hyper_util::client::proxy::matcher::Matcher;
use std::collections::TryReserveError;
use std::future::Future;
use std::ops::Range;
use std::sync::{PoisonError, RwLock};
use trouble::{Operation, Refusal};

/// A bucket, or a prefix in one.
#[derive(Debug)]
pub struct S3Storage {
    settings: S3Settings,
    bucket: String,
    /// Empty, or with a slash at its end.
    prefix: String,
    location: String,
    /// Scheme, host and port of its requests.
    host: Uri,
    limits: Limits,
    http: Http,
    /// The client in use: it is replaced when the store names another region, or credentials must be asked for anew.
    client: RwLock<(Region, Client)>,
}

impl S3Storage {
    /// The storage at this place, through the proxies that the environment names (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`,
    /// `NO_PROXY`). Makes no request; looks at no credentials but those in the settings.
    pub fn new(settings: &S3Settings, bucket: &str, prefix: &str, limits: Limits) -> Result<Self> {
        Self::behind(Matcher::from_env(), settings, bucket, prefix, limits)
    }

    fn behind(proxies: Matcher, settings: &S3Settings, bucket: &str, prefix: &str, limits: Limits) -> Result<Self> {
        let endpoint = endpoint(settings);
        let uri = checked(&endpoint)?;
        let chain = settings.credentials == S3Credentials::AwsChain;
        let http = Http::new(Connect::new(&uri, proxies, chain, settings.ca_file.as_deref(), limits.clone())?);
        let prefix = prefix.trim_matches('/');
        let slash = if prefix.is_empty() { "" } else { "/" };
        let region = Region::new(settings.region.clone());
        Ok(Self {
            settings: settings.clone(),
            bucket: bucket.to_owned(),
            prefix: format!("{prefix}{slash}"),
            location: location(settings, bucket, prefix),
            host: host(&uri, bucket, settings.addressing),
            limits,
            client: RwLock::new((region.clone(), client(settings, region, &http))),
            http,
        })
    }

    /// The whole key of an object in the bucket.
    fn full(&self, key: &Key) -> String {
        format!("{}{key}", self.prefix)
    }

    fn operation<'a>(&'a self, doing: &'static str, what: &'a str) -> Operation<'a> {
        Operation { doing, what, place: &self.location, conditional: false }
    }

    fn client(&self) -> (Region, Client) {
        self.client.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes a request, within the limits; once more where the refusal names its own cure.
    async fn send<T, F>(
        &self,
        operation: &Operation<'_>,
        body: Bytes,
        request: impl Fn(Client, Exchange) -> F,
    ) -> StorageResult<(T, Head)>
    where
        F: Future<Output = std::result::Result<T, Refusal>>,
    {
        let mut cured = false;
        loop {
            let (region, client) = self.client();
            let exchange = Exchange::start(body.clone());
            let answer = bounded(&self.limits, &exchange.progress, request(client, exchange.clone())).await;
            let answer = answer.map_err(|overrun| {
                overrun.error(&format!("cannot {} {} in {}", operation.doing, operation.what, operation.place))
            })?;
            let head = exchange.head();
            match (answer, head) {
                (Ok(done), Some(head)) if !head.is_page() => return Ok((done, head)),
                (Ok(_), head) => {
                    let refusal = Refusal::Nonsense("it is a web page".to_owned());
                    return Err(refusal.into_error(operation, head.as_ref()));
                }
                (Err(refusal), head) if !cured && self.cure(&region, &refusal, head.as_ref()) => cured = true,
                (Err(refusal), head) => return Err(refusal.into_error(operation, head.as_ref())),
            }
        }
    }

    /// Does what the refusal itself says would help: another region, fresh credentials, the store's clock (which the client
    /// has just learnt from the answer's date). Whether to ask again.
    fn cure(&self, region: &Region, refusal: &Refusal, head: Option<&Head>) -> bool {
        let renew = match refusal.code() {
            "RequestTimeTooSkewed" => return true,
            "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" => {
                self.settings.credentials == S3Credentials::AwsChain
            }
            _ => false,
        };
        let named = refusal.region(head).filter(|named| named != region.as_ref()).map(Region::new);
        if !renew && named.is_none() {
            return false;
        }
        let region = named.unwrap_or_else(|| region.clone());
        let renewed = client(&self.settings, region.clone(), &self.http);
        *self.client.write().unwrap_or_else(PoisonError::into_inner) = (region, renewed);
        true
    }
}

#[async_trait::async_trait]
impl Storage for S3Storage {
    async fn put(&self, key: &Key, body: Bytes, mode: &PutMode, integrity: Integrity) -> StorageResult<Option<ETag>> {
        let operation = Operation { conditional: *mode != PutMode::Overwrite, ..self.operation("store", key.as_str()) };
        let digests = Digests::of(&body, integrity).await;
        let put = |client: Client, exchange: Exchange| {
            let exchange = exchange.signed_as(&digests.sha256);
            let request = client
                .put_object()
                .bucket(&self.bucket)
                .key(self.full(key))
                .content_md5(&digests.md5)
                .body(ByteStream::new(SdkBody::from(body.clone())));
            let request = match mode {
                PutMode::CreateOnly => request.if_none_match("*"),
                PutMode::IfMatch(etag) => request.if_match(&etag.0),
                PutMode::Overwrite => request,
            };
            async move { Ok(request.customize().interceptor(exchange).send().await?) }
        };
        let (stored, head) = self.send(&operation, body.clone(), put).await?;
        // Anything may say 200. Only a storage names the tag of what it stored.
        match stored.e_tag.filter(|tag| !tag.is_empty()) {
            Some(tag) => Ok(Some(ETag(tag))),
            None => Err(Refusal::Nonsense("it names no ETag".to_owned()).into_error(&operation, Some(&head))),
        }
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> StorageResult<Object> {
        let operation = self.operation("read", key.as_str());
        // HTTP cannot ask for no bytes: the first one is asked for, and dropped.
        let asked = range.as_ref().map(|range| format!("bytes={}-{}", range.start, range.end.max(range.start + 1) - 1));
        let get = |client: Client, exchange: Exchange| {
            let request = client.get_object().bucket(&self.bucket).key(self.full(key)).set_range(asked.clone());
            async move {
                match request.customize().interceptor(exchange.clone()).send().await {
                    Ok(answer) => whole(answer).await,
                    // The part begins behind the end: nothing of the object is in it.
                    Err(_) if exchange.status() == Some(416) => Ok(Object { body: Bytes::new(), etag: None }),
                    Err(error) => Err(error.into()),
                }
            }
        };
        let (mut object, head) = self.send(&operation, Bytes::new(), get).await?;
        if let Some(range) = range {
            let part = part(object.body, &range, &head);
            object.body = part.map_err(|refusal| refusal.into_error(&operation, Some(&head)))?;
        }
        Ok(object)
    }

    async fn list(&self, request: &ListRequest) -> StorageResult<ListPage> {
        self.page(request).await
    }

    async fn folders(&self, prefix: &str) -> StorageResult<Vec<String>> {
        self.folders_below(prefix).await
    }

    async fn delete(&self, key: &Key) -> StorageResult<()> {
        let operation = self.operation("delete", key.as_str());
        let delete = |client: Client, exchange: Exchange| {
            let request = client.delete_object().bucket(&self.bucket).key(self.full(key));
            async move { Ok(request.customize().interceptor(exchange).send().await?) }
        };
        match self.send(&operation, Bytes::new(), delete).await {
            // Some stores say so, where S3 says 204.
            Err(error) if error.is_not_found() => Ok(()),
            answer => answer.map(|_| ()),
        }
    }

    fn prepare(&self) {
        self.http.prepare(&self.host);
    }

    fn capabilities(&self) -> Option<Capabilities> {
        None
    }

    fn location(&self) -> &str {
        &self.location
    }

    fn region_learnt(&self) -> Option<String> {
        let (region, _) = self.client();
        (region.as_ref() != self.settings.region).then(|| region.to_string())
    }
}

/// Where requests go.
fn endpoint(settings: &S3Settings) -> String {
    match &settings.endpoint {
        Some(endpoint) => endpoint.trim_end_matches('/').to_owned(),
        None => format!("https://s3.{}.amazonaws.com", settings.region),
    }
}

/// Where a bucket, or a prefix in one, is, for messages and caches.
pub(super) fn location(settings: &S3Settings, bucket: &str, prefix: &str) -> String {
    let prefix = prefix.trim_matches('/');
    let slash = if prefix.is_empty() { "" } else { "/" };
    format!("s3://{bucket}{slash}{prefix} at {}", endpoint(settings))
}

/// A client of our own making: nothing is looked up, nothing tried again, nothing timed but by us.
fn client(settings: &S3Settings, region: Region, http: &Http) -> Client {
    let identities = match settings.credentials {
        S3Credentials::Static { .. } => IdentityCache::no_cache(),
        S3Credentials::AwsChain => IdentityCache::lazy().build(),
    };
    let mut config = aws_sdk_s3::Config::builder();
    config.set_endpoint_url(settings.endpoint.clone());
    let config = config
        .behavior_version(BehaviorVersion::v2026_01_12())
        .http_client(http.clone())
        .sleep_impl(TokioSleep::new())
        .credentials_provider(credentials::provider(&settings.credentials, &region, http))
        .identity_cache(identities)
        .region(region)
        .force_path_style(settings.addressing == Addressing::Path)
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    Client::from_conf(config.build())
}

/// The endpoint, if it is one.
fn checked(endpoint: &str) -> Result<Uri> {
    let wrong = |why: &str| Error::new(ErrorKind::Config, format!("s3_endpoint {why}"));
    let uri: Uri = endpoint.parse().map_err(|_| wrong("is no URL (http://host:port or https://host)"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(wrong("must begin with http:// or https://"));
    }
    if uri.authority().is_none_or(|authority| authority.as_str().contains('@')) {
        return Err(wrong("must be a host, without user or password"));
    }
    Ok(uri)
}

/// Whom requests about this bucket go to. The SDK has its own rules for odd names of buckets; where they differ, a connection is
/// prepared for nothing.
fn host(endpoint: &Uri, bucket: &str, addressing: Addressing) -> Uri {
    let named = endpoint.authority().filter(|_| addressing == Addressing::Virtual && !bucket.contains('.'));
    let virtual_host = named.and_then(|authority| {
        let scheme = endpoint.scheme_str()?;
        Uri::builder().scheme(scheme).authority(format!("{bucket}.{authority}")).path_and_query("/").build().ok()
    });
    virtual_host.unwrap_or_else(|| endpoint.clone())
}

/// The body of a read, whole, and its tag. Less than announced is an error; so is a length that was not announced.
async fn whole(mut answer: GetObjectOutput) -> std::result::Result<Object, Refusal> {
    let announced = answer.content_length.and_then(|length| usize::try_from(length).ok());
    let announced = announced.ok_or_else(|| Refusal::Nonsense("it names no length".to_owned()))?;
    let etag = answer.e_tag.take().filter(|tag| !tag.is_empty());
    let etag = etag.ok_or_else(|| Refusal::Nonsense("it names no ETag".to_owned()))?;
    if announced as u64 > LARGEST_OBJECT {
        return Err(Refusal::TooLarge(format!("it has {announced} bytes, and is no object of ours")));
    }
    let mut body = Vec::new();
    let reserved: std::result::Result<(), TryReserveError> = body.try_reserve_exact(announced);
    reserved.map_err(|_| Refusal::Transport {
        cause: format!("there is no memory for its {announced} bytes"),
        untrusted: false,
    })?;
    while let Some(piece) = answer.body.next().await {
        let piece = piece.map_err(|cause| {
            let cause = format!("cut off after {} of {announced} bytes: {}", body.len(), trouble::line(&cause));
            Refusal::Transport { cause, untrusted: false }
        })?;
        body.extend_from_slice(&piece);
    }
    if body.len() != announced {
        let cause = format!("cut off after {} of {announced} bytes", body.len());
        return Err(Refusal::Transport { cause, untrusted: false });
    }
    Ok(Object { body: body.into(), etag: Some(ETag(etag)) })
}

/// The asked part of what came: some stores send everything.
fn part(body: Bytes, range: &Range<u64>, head: &Head) -> std::result::Result<Bytes, Refusal> {
    let from = match head.status {
        206 => range.start,
        _ => 0,
    };
    let named =
        head.header("content-range").and_then(|text| text.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
    if head.status == 206 && named.is_some_and(|named: u64| named != from) {
        return Err(Refusal::Nonsense("it is another part than was asked for".to_owned()));
    }
    let end = range.end.saturating_sub(from);
    Ok(body.slice(super::memory::clip(&(range.start - from..end), body.len())))
}

#[cfg(test)]
mod tests;
