//! What is seen of one request on the wire: its progress, and the head of its answer.

use crate::storage::bounded::Progress;
use aws_runtime::auth::PayloadSigningOverride;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextMut;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::DateTime;
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::date_time::Format;
use bytes::Bytes;
use http::HeaderMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// One request and its answer. Travels with the request to the HTTP client; clones share.
#[derive(Debug, Clone)]
pub(super) struct Exchange {
    pub(super) progress: Progress,
    /// The request's body, shared with the SDK's copy.
    pub(super) body: Bytes,
    head: Arc<Mutex<Option<Head>>>,
    /// The SHA-256 of the body, in hexadecimal, where it is known before the request is signed.
    body_hash: Option<Arc<str>>,
}

/// The head of an answer.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) status: u16,
    headers: HeaderMap,
}

impl Exchange {
    /// A request with this body that begins now.
    pub(super) fn start(body: Bytes) -> Self {
        Self { progress: Progress::start(), body, head: Arc::default(), body_hash: None }
    }

    /// The same, whose body has this SHA-256 (hexadecimal): it is signed without being hashed again.
    pub(super) fn signed_as(self, body_hash: &str) -> Self {
        Self { body_hash: Some(body_hash.into()), ..self }
    }

    /// The answer has begun.
    pub(super) fn answered(&self, status: u16, headers: HeaderMap) {
        self.progress.touch();
        *self.head.lock().unwrap_or_else(PoisonError::into_inner) = Some(Head { status, headers });
    }

    /// The head of the answer, once it is there.
    pub(super) fn head(&self) -> Option<Head> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The answer's status, once it is there.
    pub(super) fn status(&self) -> Option<u16> {
        self.head().map(|head| head.status)
    }
}

/// Tells the signer what is known of the body, and gives the exchange to the HTTP client: after signing, so that nothing of it
/// is signed or sent.
impl Intercept for Exchange {
    fn name(&self) -> &'static str {
        "Exchange"
    }

    fn modify_before_signing(
        &self,
        _: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(hash) = &self.body_hash {
            config.interceptor_state().store_put(PayloadSigningOverride::Precomputed(hash.to_string()));
        }
        Ok(())
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        context.request_mut().add_extension(self.clone());
        Ok(())
    }
}

impl Head {
    /// A header's text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim).filter(|text| !text.is_empty())
    }

    /// The store's clock.
    pub(super) fn date(&self) -> Option<SystemTime> {
        http_date(self.header("date")?)
    }

    /// How long the store asks us to wait: `Retry-After`, in seconds or as a date.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let text = self.header("retry-after")?;
        if let Ok(seconds) = text.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let now = self.date().unwrap_or_else(SystemTime::now);
        Some(http_date(text)?.duration_since(now).unwrap_or_default())
    }

    /// What names the request in the service's own logs.
    pub(super) fn request_id(&self) -> Option<&str> {
        ["x-amz-request-id", "x-request-id", "x-minio-request-id", "cf-ray"]
            .into_iter()
            .find_map(|name| self.header(name))
    }

    /// Whether the answer is a web page: a proxy's or a portal's, not a storage's.
    pub(super) fn is_page(&self) -> bool {
        let html = self.header("content-type").is_some_and(|kind| kind.starts_with("text/html"));
        // Some servers call even an empty answer html.
        html && self.status != 204 && self.header("content-length") != Some("0")
    }
}

fn http_date(text: &str) -> Option<SystemTime> {
    DateTime::from_str(text, Format::HttpDate).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_head_says() {
        let mut headers = HeaderMap::new();
        headers.insert("date", "Tue, 24 Nov 2026 09:00:00 GMT".parse().unwrap());
        headers.insert("retry-after", "7".parse().unwrap());
        let exchange = Exchange::start(Bytes::new());
        assert!(exchange.head().is_none());
        exchange.answered(503, headers.clone());
        let head = exchange.head().unwrap();
        assert_eq!(head.retry_after(), Some(Duration::from_secs(7)));
        let epoch = head.date().unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(epoch.as_secs(), 1_795_510_800);
        headers.insert("retry-after", "Tue, 24 Nov 2026 09:00:30 GMT".parse().unwrap());
        assert_eq!(Head { status: 503, headers }.retry_after(), Some(Duration::from_secs(30)));
    }
}
