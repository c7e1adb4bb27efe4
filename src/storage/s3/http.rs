//! The HTTP client beneath the SDK: hyper over TCP or TLS, directly or through a proxy.
//!
//! Not the SDK's own, because ours must do what that one does not: obey the limits while they change, speak HTTP/1.1 only
//! (several stores offer HTTP/2 and then push all parallel requests through one connection), notice dead peers, and load no
//! certificates for a plain `http` endpoint.

use super::body::{Download, Upload};
use super::connect::Connect;
use super::exchange::Exchange;
use aws_smithy_runtime_api::client::http::{HttpClient, HttpConnector, HttpConnectorFuture};
use aws_smithy_runtime_api::client::http::{HttpConnectorSettings, SharedHttpConnector};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http::Uri;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::time::Duration;

/// How long an idle connection is kept. Stores close theirs after some time, and a request that meets the closing is lost: so
/// we are the first to let go.
const IDLE: Duration = Duration::from_secs(15);

/// The client. Clones share their connections.
#[derive(Debug, Clone)]
pub(super) struct Http {
    client: Client<Connect, SdkBody>,
    connect: Connect,
    /// How long an answer may take to begin, where the SDK has its own idea: when it asks this machine's metadata service,
    /// which on most machines is not there. For the storage the limits rule, and this is unset.
    patience: Option<Duration>,
}

impl Http {
    pub(super) fn new(connect: Connect) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connect.clone());
        Self { client, connect, patience: None }
    }

    /// Begins to open a connection, which the first request to this host will take.
    pub(super) fn prepare(&self, host: &Uri) {
        self.connect.prepare(host);
    }
}

impl HttpClient for Http {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        let patience = match (settings.connect_timeout(), settings.read_timeout()) {
            (None, None) => None,
            (connect, read) => Some(connect.unwrap_or_default() + read.unwrap_or_default()),
        };
        SharedHttpConnector::new(Self { patience, ..self.clone() })
    }
}

impl HttpConnector for Http {
    fn call(&self, mut request: HttpRequest) -> HttpConnectorFuture {
        // Requests for credentials carry none, and keep their own small bodies.
        let exchange = request.extension::<Exchange>().cloned().unwrap_or_else(|| Exchange::start(Bytes::new()));
        if !exchange.body.is_empty() {
            let body = Upload::new(exchange.body.clone(), exchange.progress.clone());
            *request.body_mut() = SdkBody::from_body_1_x(body);
        }
        let mut request = match request.try_into_http1x() {
            Ok(request) => request,
            Err(error) => return HttpConnectorFuture::ready(Err(ConnectorError::user(error.into()))),
        };
        if let Some(authorization) = self.connect.proxy_authorization(request.uri()) {
            request.headers_mut().insert(http::header::PROXY_AUTHORIZATION, authorization);
        }
        let (answer, patience) = (self.client.request(request), self.patience);
        HttpConnectorFuture::new(async move {
            let answer = match patience {
                None => answer.await,
                Some(patience) => tokio::time::timeout(patience, answer)
                    .await
                    .map_err(|elapsed| ConnectorError::timeout(elapsed.into()))?,
            };
            let answer = answer.map_err(|error| ConnectorError::io(error.into()))?;
            exchange.answered(answer.status().as_u16(), answer.headers().clone());
            let answer = answer.map(|body| SdkBody::from_body_1_x(Download::new(body, exchange.progress)));
            HttpResponse::try_from(answer).map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}
