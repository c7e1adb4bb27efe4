//! Connections: TCP, TLS, and the proxies that the environment names.

use super::tls;
use crate::error::Result;
use crate::storage::Limits;
use crate::storage::bounded::connecting;
use http::{HeaderValue, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use std::future::Future;
use std::io::{self, IoSlice};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tower_service::Service;

/// How long a prepared connection may wait for its first request: servers close those that ask nothing after some seconds.
pub(super) const UNASKED: Duration = Duration::from_secs(2);
/// When a silent peer is asked whether it still lives, and how long unacknowledged bytes are waited for.
const KEEPALIVE: Duration = Duration::from_secs(15);
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);
/// How much the kernel takes from us beyond what the peer's window allows. Without it, megabytes vanish into its buffer at
/// once, and on a slow line no progress is seen while they drain.
const UNSENT: u32 = 128 << 10;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Boxed<T> = Pin<Box<dyn Future<Output = std::result::Result<T, BoxError>> + Send>>;

/// Opens connections.
#[derive(Debug, Clone)]
pub(super) struct Connect {
    tcp: Tcp,
    tls: Arc<ClientConfig>,
    proxies: Arc<Matcher>,
    limits: Limits,
    prepared: Arc<Mutex<Option<Prepared>>>,
}

/// A connection that was opened before there was a request for it.
#[derive(Debug)]
struct Prepared {
    to: Uri,
    opening: JoinHandle<std::result::Result<(Link, Instant), BoxError>>,
}

impl Connect {
    /// For this endpoint; `elsewhere` if https hosts beside it will be asked (for credentials).
    pub(super) fn new(
        endpoint: &Uri,
        proxies: Matcher,
        elsewhere: bool,
        ca_file: Option<&Path>,
        limits: Limits,
    ) -> Result<Self> {
        let through_tls = proxies.intercept(endpoint).is_some_and(|proxy| proxy.uri().scheme_str() == Some("https"));
        let needed = elsewhere || through_tls || endpoint.scheme_str() == Some("https");
        Ok(Self {
            tcp: Tcp::new(),
            tls: Arc::new(tls::config(needed, ca_file)?),
            proxies: Arc::new(proxies),
            limits,
            prepared: Arc::default(),
        })
    }

    /// Begins to open a connection for the next request to this host. Outside a runtime, nothing happens.
    pub(super) fn prepare(&self, to: &Uri) {
        let Ok(runtime) = Handle::try_current() else { return };
        let opening = self.opened(to.clone());
        let opening = runtime.spawn(async { Ok((opening.await?, Instant::now())) });
        *self.prepared.lock().unwrap_or_else(PoisonError::into_inner) = Some(Prepared { to: to.clone(), opening });
    }

    /// What was prepared for this host, once.
    fn take_prepared(&self, to: &Uri) -> Option<Prepared> {
        let same =
            |prepared: &mut Prepared| (prepared.to.scheme(), prepared.to.authority()) == (to.scheme(), to.authority());
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner).take_if(same)
    }

    /// A new connection, within its limit.
    fn opened(&self, to: Uri) -> impl Future<Output = std::result::Result<Link, BoxError>> + Send + use<> {
        let (opening, limits) = (self.open(to), self.limits.clone());
        async move {
            match connecting(&limits, opening).await {
                Ok(opened) => opened,
                Err(overrun) => Err(io::Error::new(io::ErrorKind::TimedOut, overrun.to_string()).into()),
            }
        }
    }

    /// What a plain http request must say to the proxy that it goes through.
    pub(super) fn proxy_authorization(&self, to: &Uri) -> Option<HeaderValue> {
        let plain = to.scheme_str() == Some("http");
        self.proxy(to).filter(|_| plain)?.basic_auth().cloned()
    }

    /// The proxy for a destination. A machine's own metadata service is never asked through one.
    fn proxy(&self, to: &Uri) -> Option<Intercept> {
        let metadata = to.host().is_some_and(|host| host.starts_with("169.254.") || host == "[fd00:ec2::254]");
        if metadata { None } else { self.proxies.intercept(to) }
    }

    fn open(&self, to: Uri) -> Boxed<Link> {
        let mut direct = HttpsConnector::from((self.tcp.clone(), Arc::clone(&self.tls)));
        let Some(proxy) = self.proxy(&to) else {
            let opening = direct.call(to);
            return Box::pin(async { Ok(Link { stream: MaybeHttpsStream::Http(opening.await?), forward: false }) });
        };
        if !matches!(proxy.uri().scheme_str(), Some("http" | "https")) {
            // Not its whole address: that may hold a password.
            let message = format!("the proxy for {to} is not an http proxy: only those are supported");
            return Box::pin(async { Err(message.into()) });
        }
        if to.scheme_str() == Some("http") {
            let opening = direct.call(proxy.uri().clone());
            return Box::pin(async { Ok(Link { stream: MaybeHttpsStream::Http(opening.await?), forward: true }) });
        }
        let tunnel = Tunnel::new(proxy.uri().clone(), direct);
        let tunnel = match proxy.basic_auth() {
            Some(authorization) => tunnel.with_auth(authorization.clone()),
            None => tunnel,
        };
        let opening = HttpsConnector::from((tunnel, Arc::clone(&self.tls))).call(to);
        Box::pin(async {
            let stream = opening.await.map_err(ThroughProxy)?;
            Ok(Link { stream, forward: false })
        })
    }
}

/// A connection that did not come about behind a proxy.
#[derive(Debug, thiserror::Error)]
#[error("through the proxy")]
struct ThroughProxy(#[source] BoxError);

impl Service<Uri> for Connect {
    type Response = Link;
    type Error = BoxError;
    type Future = Boxed<Link>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let connect = self.clone();
        Box::pin(async move {
            if let Some(prepared) = connect.take_prepared(&to) {
                match prepared.opening.await {
                    Ok(Ok((link, since))) if since.elapsed() < UNASKED => return Ok(link),
                    // Tried as often, and as long, as any other: whoever retries does so.
                    Ok(Err(error)) => return Err(error),
                    Ok(Ok(_)) | Err(_) => {}
                }
            }
            connect.opened(to).await
        })
    }
}

/// Opens TCP connections, with the options that make a dead peer noticed.
#[derive(Debug, Clone)]
struct Tcp(HttpConnector);

impl Tcp {
    fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_keepalive(Some(KEEPALIVE));
        connector.set_keepalive_interval(Some(KEEPALIVE / 3));
        connector.set_keepalive_retries(Some(3));
        connector.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
        // Shared between the addresses of a name, so that a dead first one leaves time for the second.
        connector.set_connect_timeout(Some(crate::storage::Bounds::PATIENT.connect));
        Self(connector)
    }
}

impl Service<Uri> for Tcp {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Boxed<Self::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<std::result::Result<(), BoxError>> {
        self.0.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let opening = self.0.call(to);
        Box::pin(async move {
            let stream = opening.await?;
            // A kernel that does not know the option works as well, only with coarser progress.
            socket2::SockRef::from(stream.inner()).set_tcp_notsent_lowat(UNSENT).ok();
            Ok(stream)
        })
    }
}

/// A connection: TCP, TLS over TCP, or TLS through a proxy's tunnel, whose own connection may be TLS too.
#[derive(Debug)]
pub(super) struct Link {
    stream: MaybeHttpsStream<MaybeHttpsStream<TokioIo<TcpStream>>>,
    /// Requests go to a proxy that forwards them: they must name the whole URL.
    forward: bool,
}

impl Connection for Link {
    fn connected(&self) -> Connected {
        self.stream.connected().proxy(self.forward)
    }
}

impl Read for Link {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, to: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, to)
    }
}

impl Write for Link {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }
}
