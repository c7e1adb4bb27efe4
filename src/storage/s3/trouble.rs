//! What an answer, or the want of one, means: the one place where S3's dialects of "no" become kinds.
//!
//! Absence and refusal are believed only in S3's own words, an XML `Code`: a bare 404 comes from proxies and portals too.

use super::exchange::Head;
use crate::storage::{StorageError, StorageErrorKind as Kind};
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use std::error::Error as StdError;
use std::io;
use std::time::SystemTime;

/// What was asked, for messages and for what an answer means.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operation<'a> {
    /// "store", "read", "list", "delete".
    pub(super) doing: &'static str,
    /// The key or prefix.
    pub(super) what: &'a str,
    /// Where: bucket and endpoint.
    pub(super) place: &'a str,
    /// Whether it was a put with a condition.
    pub(super) conditional: bool,
}

/// How a request failed, apart from its answer's head.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The service answered with an error; code and text where it was XML.
    Answer { code: Option<String>, message: Option<String>, region: Option<String> },
    /// There was an answer that makes no sense.
    Nonsense(String),
    /// There was an answer that is larger than anything asked for can be.
    TooLarge(String),
    /// There was no answer.
    Transport { cause: String, untrusted: bool },
    /// There was no request.
    Unsent { cause: String, kind: Kind, credentials: bool },
}

impl<E: ProvideErrorMetadata + StdError + 'static> From<SdkError<E, HttpResponse>> for Refusal {
    fn from(error: SdkError<E, HttpResponse>) -> Self {
        match &error {
            SdkError::ServiceError(context) => {
                let body = context.raw().body().bytes().unwrap_or_default();
                Self::Answer {
                    code: context.err().code().filter(|code| !code.is_empty()).map(str::to_owned),
                    message: context.err().message().map(str::to_owned),
                    region: element(body, "Region"),
                }
            }
            SdkError::ResponseError(_) => Self::Nonsense(line(&error)),
            SdkError::ConstructionFailure(_) => unsent(&error),
            // Where the credentials failed, the SDK calls it a failed dispatch.
            _ if credentials(&error).is_some() => unsent(&error),
            _ => {
                let untrusted = causes(&error)
                    .any(|cause| matches!(cause.downcast_ref(), Some(rustls::Error::InvalidCertificate(_))));
                Self::Transport { cause: line(&error), untrusted }
            }
        }
    }
}

impl Refusal {
    /// The service's code, or nothing.
    pub(super) fn code(&self) -> &str {
        match self {
            Self::Answer { code: Some(code), .. } => code,
            _ => "",
        }
    }

    /// The region that the store names in its refusal.
    pub(super) fn region(&self, head: Option<&Head>) -> Option<String> {
        let Self::Answer { region, .. } = self else { return None };
        let head = head?;
        let about_region = matches!(head.status, 301 | 307)
            || matches!(
                self.code(),
                "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException"
            );
        let region = head.header("x-amz-bucket-region").map(str::to_owned).or_else(|| region.clone())?;
        let plain = region.len() <= 64 && region.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        (about_region && plain && !region.is_empty()).then_some(region)
    }

    /// The error of the operation.
    pub(super) fn into_error(self, operation: &Operation<'_>, head: Option<&Head>) -> StorageError {
        let Operation { doing, what, place, .. } = operation;
        let (kind, said, hint) = match self {
            Self::Unsent { cause, kind, credentials: false } => (kind, cause, None),
            Self::Unsent { cause, kind, credentials: true } => (
                kind,
                cause,
                Some("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or see to the place they should come from"),
            ),
            Self::Transport { cause, untrusted: false } => (Kind::Unavailable, cause, None),
            Self::Transport { cause, untrusted: true } => {
                let hint = "name the PEM file of the authority that signed the endpoint's certificate with s3_ca_file";
                (Kind::Config, cause, Some(hint))
            }
            Self::Nonsense(cause) => (Kind::Unavailable, format!("the answer is not a storage's: {cause}"), None),
            Self::TooLarge(cause) => {
                (Kind::Config, cause, Some("something else is stored under this key: move it away"))
            }
            Self::Answer { code, message, .. } => told(operation, head, code.as_deref(), message.as_deref()),
        };
        let request = head.and_then(Head::request_id).map(|id| format!(" (request {id})")).unwrap_or_default();
        let message = format!("cannot {doing} {what} in {place}: {}{request}", shortened(&said));
        let kind = match kind {
            Kind::NotFound { .. } => {
                Kind::NotFound { deleted: head.is_some_and(|head| head.header("x-amz-delete-marker") == Some("true")) }
            }
            other => other,
        };
        StorageError {
            hint: hint.map(str::to_owned),
            retry_after: head.and_then(Head::retry_after),
            ..StorageError::new(kind, message)
        }
    }
}

/// An answer that says no, in words.
fn told(
    operation: &Operation<'_>,
    head: Option<&Head>,
    code: Option<&str>,
    message: Option<&str>,
) -> (Kind, String, Option<&'static str>) {
    let status = head.map_or(0, |head| head.status);
    let (mut kind, hint) = meaning(status, code.unwrap_or(""), message.unwrap_or(""), operation.conditional);
    if kind == Kind::Unavailable && head.is_some_and(|head| head.retry_after().is_some()) {
        kind = Kind::Throttled;
    }
    let mut said = match (code, message) {
        (Some(code), Some(message)) => format!("{status} {code}: {message}"),
        (Some(code), None) => format!("{status} {code}"),
        (None, _) => format!("{status} without an S3 error code: the answer is not a storage's"),
    };
    if code == Some("RequestTimeTooSkewed") {
        said.push_str(&clocks(head));
    }
    (kind, said, hint)
}

/// What an answer means, and what to do: by its code where it has one, else by its status.
fn meaning(status: u16, code: &str, message: &str, conditional: bool) -> (Kind, Option<&'static str>) {
    by_code(code, conditional).unwrap_or_else(|| by_status(status, code, message, conditional))
}

fn by_code(code: &str, conditional: bool) -> Option<(Kind, Option<&'static str>)> {
    Some(match code {
        "SlowDown"
        | "SlowDownRead"
        | "SlowDownWrite"
        | "RequestLimitExceeded"
        | "RequestRateLimitExceeded"
        | "Throttling"
        | "ThrottlingException"
        | "RequestThrottled"
        | "TooManyRequests"
        | "TooManyRequestsException"
        | "BandwidthLimitExceeded"
        | "AuthenticationLockout" => (Kind::Throttled, None),
        // A put with If-Match to a key that is gone.
        "NoSuchKey" if conditional => (Kind::Precondition, None),
        "NoSuchKey" => (Kind::NotFound { deleted: false }, None),
        "NoSuchBucket" => (Kind::Config, Some("create the bucket, or correct the storage setting")),
        "BadDigest"
        | "InvalidDigest"
        | "XAmzContentSHA256Mismatch"
        | "XAmzContentChecksumMismatch"
        | "ContentSHA256Mismatch" => (Kind::DamagedOnTheWay, None),
        "RequestTimeout"
        | "IncompleteBody"
        | "InternalError"
        | "OperationAborted"
        | "ConditionalRequestConflict"
        | "ServerBusy"
        | "TemporaryRedirect" => (Kind::Unavailable, None),
        "PreconditionFailed" if conditional => (Kind::Precondition, None),
        "NotImplemented" if conditional => (Kind::ConditionUnsupported, None),
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" | "InvalidToken" => {
            (Kind::Denied, Some("the temporary credentials have run out: renew them, or use credentials that last"))
        }
        "RequestTimeTooSkewed" => (Kind::Denied, Some("set this machine's clock")),
        "SignatureDoesNotMatch" => {
            (Kind::Denied, Some("the secret access key is wrong, or something on the way changes requests"))
        }
        "InvalidAccessKeyId" => (Kind::Denied, Some("the access key id is not known there: is it this endpoint's?")),
        "InvalidObjectState" => {
            let hint =
                "the object is in cold storage: bring it back first, and keep lifecycle rules away from this prefix";
            (Kind::Config, Some(hint))
        }
        "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException" => {
            (Kind::Config, Some("set s3_region (and s3_endpoint) to where the bucket is"))
        }
        _ => return None,
    })
}

fn by_status(status: u16, code: &str, message: &str, conditional: bool) -> (Kind, Option<&'static str>) {
    match status {
        304 | 412 if conditional => (Kind::Precondition, None),
        501 if conditional => (Kind::ConditionUnsupported, None),
        400 if conditional && speaks_of_conditions(message) => (Kind::ConditionUnsupported, None),
        // A body that was cut, or a page: some 200s are none.
        200..=399 | 404 | 408 | 409 | 425 | 500 | 502.. => (Kind::Unavailable, None),
        429 => (Kind::Throttled, None),
        403 if code == "AccessDenied" => {
            let hint = "the credentials need the rights to get, put and list below the prefix (without the right to list, a \
                        missing key is answered like this too)";
            (Kind::Denied, Some(hint))
        }
        407 => (Kind::Denied, Some("the proxy wants other credentials: see HTTPS_PROXY and HTTP_PROXY")),
        401 | 403 if code.is_empty() => {
            (Kind::Denied, Some("is there a proxy in between, or is the endpoint no S3 one?"))
        }
        401 | 403 => (Kind::Denied, None),
        _ if code.is_empty() => (Kind::Config, Some("is the endpoint right, and http or https as it should be?")),
        _ => (Kind::Config, None),
    }
}

/// Whether a 400 is about the condition ("Unsupported header 'if-none-match'" and its like).
fn speaks_of_conditions(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    ["if-none-match", "if-match", "ifnonematch", "ifmatch", "conditional"].iter().any(|word| message.contains(word))
}

/// Both clocks, where they are the trouble.
fn clocks(head: Option<&Head>) -> String {
    let ours = aws_smithy_types::DateTime::from(SystemTime::now());
    let theirs = head.and_then(|head| head.header("date")).unwrap_or("unknown");
    format!(" This machine's clock: {ours}, the storage's: {theirs}")
}

/// Why no request was made: the credentials, or a request that cannot be put together.
fn unsent(error: &(dyn StdError + 'static)) -> Refusal {
    let credentials = credentials(error);
    let kind = match credentials {
        // What the SDK did not expect is most often a service for credentials that cannot be reached: it may come back.
        Some(
            CredentialsError::ProviderTimedOut(_) | CredentialsError::ProviderError(_) | CredentialsError::Unhandled(_),
        ) => Kind::Unavailable,
        _ => Kind::Config,
    };
    Refusal::Unsent { cause: line(error), kind, credentials: credentials.is_some() }
}

fn credentials<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a CredentialsError> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

/// An error and what lies below it. An `io::Error` names its payload only so, not as its source.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| match error.downcast_ref::<io::Error>() {
        Some(error) => error.get_ref().map(|payload| payload as _),
        None => error.source(),
    })
}

/// An error and its causes in one line, each said once.
pub(super) fn line(error: &(dyn StdError + 'static)) -> String {
    let mut line = String::new();
    for text in causes(error).map(ToString::to_string) {
        // What the SDK says of its own stages tells nobody anything.
        let stage = ["dispatch failure", "service error", "client error (Connect)", "io error", "other"]
            .contains(&text.as_str());
        if stage || text.is_empty() || line.contains(&text) {
            continue;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&text);
    }
    if line.is_empty() { error.to_string() } else { line }
}

/// The text of an element of an error's XML.
fn element(body: &[u8], name: &str) -> Option<String> {
    let body = std::str::from_utf8(body).ok()?;
    let (_, rest) = body.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    Some(text.trim().to_owned())
}

/// A service's words, kept to one line and its length.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 400;
    let text = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let text = text.collect::<Vec<_>>().join(" ");
    let text = text.trim_end_matches('.');
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dialect_of_no() {
        use Kind::*;
        const GONE: Kind = NotFound { deleted: false };
        for (status, code, message, plain, conditional) in [
            (404, "NoSuchKey", "", GONE, Precondition),
            (404, "NoSuchBucket", "", Config, Config),
            (404, "", "", Unavailable, Unavailable),
            (404, "NotFound", "", Unavailable, Unavailable),
            (412, "PreconditionFailed", "", Config, Precondition),
            (412, "", "", Config, Precondition),
            (304, "", "", Unavailable, Precondition),
            (409, "ConditionalRequestConflict", "", Unavailable, Unavailable),
            (409, "OperationAborted", "", Unavailable, Unavailable),
            (501, "NotImplemented", "A header you provided implies functionality", Config, ConditionUnsupported),
            (501, "", "", Config, ConditionUnsupported),
            (400, "InvalidArgument", "Unsupported header 'If-None-Match'", Config, ConditionUnsupported),
            (400, "InvalidArgument", "something else", Config, Config),
            (400, "BadDigest", "", DamagedOnTheWay, DamagedOnTheWay),
            (400, "InvalidDigest", "", DamagedOnTheWay, DamagedOnTheWay),
            (400, "XAmzContentSHA256Mismatch", "", DamagedOnTheWay, DamagedOnTheWay),
            (400, "RequestTimeout", "", Unavailable, Unavailable),
            (400, "ExpiredToken", "", Denied, Denied),
            (400, "AuthorizationHeaderMalformed", "", Config, Config),
            (301, "PermanentRedirect", "", Config, Config),
            (307, "TemporaryRedirect", "", Unavailable, Unavailable),
            (403, "AccessDenied", "", Denied, Denied),
            (403, "SignatureDoesNotMatch", "", Denied, Denied),
            (403, "InvalidAccessKeyId", "", Denied, Denied),
            (403, "RequestTimeTooSkewed", "", Denied, Denied),
            (403, "RequestRateLimitExceeded", "", Throttled, Throttled),
            (403, "InvalidObjectState", "", Config, Config),
            (403, "", "", Denied, Denied),
            (401, "", "", Denied, Denied),
            (407, "", "", Denied, Denied),
            (429, "", "", Throttled, Throttled),
            (429, "TooManyRequests", "", Throttled, Throttled),
            (503, "SlowDown", "", Throttled, Throttled),
            (503, "SlowDownWrite", "", Throttled, Throttled),
            (503, "ServiceUnavailable", "", Unavailable, Unavailable),
            (500, "InternalError", "", Unavailable, Unavailable),
            (502, "", "", Unavailable, Unavailable),
            (504, "", "", Unavailable, Unavailable),
            (200, "InternalError", "", Unavailable, Unavailable),
            (200, "SomethingNew", "", Unavailable, Unavailable),
            (302, "", "", Unavailable, Unavailable),
            (405, "MethodNotAllowed", "", Config, Config),
            (413, "", "", Config, Config),
        ] {
            for (with, expected) in [(false, plain), (true, conditional)] {
                assert_eq!(meaning(status, code, message, with).0, expected, "{status} {code} {message} {with}");
            }
        }
    }

    #[test]
    fn the_region_in_the_body() {
        let body = b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-north-1</Region></Error>";
        assert_eq!(element(body, "Region").as_deref(), Some("eu-north-1"));
        assert_eq!(element(b"<Region>open", "Region"), None);
        assert_eq!(element(&[0xff], "Region"), None);
    }

    #[test]
    fn long_words_are_shortened() {
        assert_eq!(shortened("Access Denied.\n \u{1b}[31m"), "Access Denied. [31m");
        assert_eq!(shortened("Access Denied."), "Access Denied");
        assert_eq!(shortened(&"ä".repeat(1000)).chars().count(), 401);
    }
}
