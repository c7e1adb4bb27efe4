//! The door of the false S3: connections, the log of requests, faults, and what a real service checks before its store.

use super::personality::{Answer, Moment};
use super::{Request, State};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use s3s::Body;
use s3s::service::S3Service;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What a connection needs.
#[derive(Clone)]
pub(crate) struct Front {
    pub(crate) state: Arc<Mutex<State>>,
    pub(crate) service: S3Service,
}

impl Front {
    /// Takes connections for ever.
    pub(crate) async fn serve(self, listener: TcpListener, tls: Option<TlsAcceptor>) {
        loop {
            let Ok((socket, _)) = listener.accept().await else { continue };
            socket.set_nodelay(true).ok();
            let (front, tls) = (self.clone(), tls.clone());
            tokio::spawn(async move {
                match tls {
                    None => front.connection(socket).await,
                    // A client that does not trust us ends here.
                    Some(tls) => match tls.accept(socket).await {
                        Ok(socket) => front.connection(socket).await,
                        Err(_) => front.state.lock().unwrap().failed_handshakes += 1,
                    },
                }
            });
        }
    }

    async fn connection(self, socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        self.state.lock().unwrap().connections += 1;
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let front = self.clone();
            // In a task of its own: a request is carried out to its end even where its client hangs up.
            let task = tokio::spawn(async move { front.answer(request).await });
            async move { Ok::<_, Infallible>(task.await.unwrap()) }
        });
        // A connection that breaks is no trouble of ours.
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service).await.ok();
    }

    async fn answer(self, request: hyper::Request<Incoming>) -> hyper::Response<Body> {
        let (parts, body) = request.into_parts();
        let seen = Request::of(&parts);
        let (personality, hook) = {
            let mut state = self.state.lock().unwrap();
            state.requests.push(seen.clone());
            (state.personality.clone(), state.hook.clone())
        };
        if let Some(hook) = hook {
            hook(&seen);
        }
        tokio::time::sleep(personality.latency).await;
        if let Some(answer) = self.fault(&seen, Moment::Early) {
            return self.finish(canned(answer));
        }
        let body = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(_) => {
                if personality.commits_empty && seen.method == "PUT" {
                    self.state.lock().unwrap().insert(&seen.key, Bytes::new());
                }
                return self.finish(canned(Answer::error(400, "IncompleteBody")));
            }
        };
        if let Some(answer) = self.fault(&seen, Moment::Instead).or_else(|| refusal(&personality, &parts)) {
            return self.finish(canned(answer));
        }
        let response = match self.service.call(hyper::Request::from_parts(parts, Body::from(body))).await {
            Ok(response) => response,
            Err(error) => panic!("s3s: {error:?}"),
        };
        match self.fault(&seen, Moment::AfterCommit) {
            Some(answer) => self.finish(canned(answer)),
            None => self.finish(response),
        }
    }

    /// The next fault that this request meets at this moment.
    fn fault(&self, seen: &Request, moment: Moment) -> Option<Answer> {
        let mut state = self.state.lock().unwrap();
        let fault = state.faults.iter_mut().find(|fault| {
            fault.times > 0
                && fault.moment == moment
                && fault.method.is_none_or(|method| method == seen.method)
                && (seen.key.contains(&fault.on) || seen.prefix.contains(&fault.on))
        })?;
        fault.times -= 1;
        Some(fault.answer.clone())
    }

    /// What every answer carries.
    fn finish(&self, mut response: hyper::Response<Body>) -> hyper::Response<Body> {
        let mut state = self.state.lock().unwrap();
        state.answers += 1;
        let headers = response.headers_mut();
        headers.insert("x-amz-request-id", HeaderValue::from_str(&format!("FAKE{:08}", state.answers)).unwrap());
        let date = httpdate(state.now());
        headers.insert("date", HeaderValue::from_str(&date).unwrap());
        response
    }
}

/// What a service refuses before it looks at its store.
fn refusal(personality: &super::Personality, parts: &hyper::http::request::Parts) -> Option<Answer> {
    if personality.clock.unsigned_abs() > 15 * 60 {
        return Some(Answer::error(403, "RequestTimeTooSkewed"));
    }
    if let Some(token) = &personality.token
        && parts.headers.get("x-amz-security-token").is_none_or(|given| given != token)
    {
        return Some(Answer::error(400, "ExpiredToken"));
    }
    let right = personality.region.as_ref()?;
    let authorization = parts.headers.get("authorization")?.to_str().ok()?;
    let scope = authorization.split("Credential=").nth(1)?.split('/').nth(2)?;
    if scope == right {
        return None;
    }
    let mut answer = Answer::error(400, "AuthorizationHeaderMalformed").header("x-amz-bucket-region", right);
    answer.body = answer.body.replace("</Error>", &format!("<Region>{right}</Region></Error>"));
    Some(answer)
}

fn canned(answer: Answer) -> hyper::Response<Body> {
    let mut response = hyper::Response::builder().status(answer.status);
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    response.body(Body::from(answer.body)).unwrap()
}

/// The time as HTTP writes it.
fn httpdate(time: SystemTime) -> String {
    let mut bytes = Vec::new();
    let format = s3s::dto::TimestampFormat::HttpDate;
    s3s::dto::Timestamp::from(time).format(format, &mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

impl State {
    /// The store's clock.
    pub(crate) fn now(&self) -> SystemTime {
        let ahead = Duration::from_secs(self.personality.clock.unsigned_abs());
        if self.personality.clock < 0 { SystemTime::now() - ahead } else { SystemTime::now() + ahead }
    }
}
