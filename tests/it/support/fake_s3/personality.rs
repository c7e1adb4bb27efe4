//! What a store is like: the manners and vices seen in the wild, one field each.

use std::time::Duration;

/// What a store does with a condition on a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// 412 where it does not hold.
    Honour,
    /// 200 and overwritten, silently (Garage, GCS).
    Ignore,
    /// 501 NotImplemented (B2).
    Reject501,
    /// 409 ConditionalRequestConflict for so many puts, then honoured (AWS in a race).
    Conflict409(usize),
    /// 412 always, even where it holds (`If-Match` on Ceph 16).
    Refuse,
}

/// What a store does with an integrity header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// 400 BadDigest where it does not fit, and nothing is stored.
    Verify,
    /// Not looked at (Ceph 16, for checksums).
    Ignore,
    /// Not looked at, but echoed, which looks like a proof (rclone).
    Echo,
    /// 400: an unknown header (B2, once).
    Reject400,
}

/// In which order a store lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Bytes,
    /// Not lexicographic at all (S3 Express); here: backwards.
    Backwards,
}

/// A right that the credentials do not have below a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    Get,
    List,
    Put,
    Delete,
}

/// A store's personality.
#[derive(Debug, Clone)]
pub(crate) struct Personality {
    /// `If-None-Match: *`.
    pub(crate) create_only: Condition,
    /// `If-Match`.
    pub(crate) if_match: Condition,
    /// `x-amz-checksum-*`.
    pub(crate) checksum: Check,
    /// `Content-MD5`.
    pub(crate) md5: Check,
    /// Whether more than one integrity header is 400 (R2).
    pub(crate) one_checksum: bool,
    /// Whether an ETag is the MD5 of the body, else at random (KMS, Express).
    pub(crate) etag_is_md5: bool,
    /// The order of listings.
    pub(crate) order: Order,
    /// Whether `start-after` of a listing is obeyed.
    pub(crate) start_after: bool,
    /// The longest page of a listing.
    pub(crate) page: usize,
    /// Whether a put whose connection breaks leaves an empty object (SeaweedFS).
    pub(crate) commits_empty: bool,
    /// Whether the bucket is versioned: deleting leaves a marker, and a get says so.
    pub(crate) versioned: bool,
    /// The region that requests must be signed for; any where unset.
    pub(crate) region: Option<String>,
    /// The session token that requests must carry; another one has run out.
    pub(crate) token: Option<String>,
    /// Whether the bucket does not exist.
    pub(crate) no_such_bucket: bool,
    /// What the credentials may not do, below which prefix. Without the right to list, a missing key answers 403.
    pub(crate) denied: Vec<(Right, String)>,
    /// How far the store's clock is ahead of ours, in seconds. More than 15 minutes either way: 403 RequestTimeTooSkewed.
    pub(crate) clock: i64,
    /// How long each answer takes.
    pub(crate) latency: Duration,
}

impl Personality {
    /// Keeps every promise.
    pub(crate) fn honest() -> Self {
        Personality {
            create_only: Condition::Honour,
            if_match: Condition::Honour,
            checksum: Check::Verify,
            md5: Check::Verify,
            one_checksum: true,
            etag_is_md5: true,
            order: Order::Bytes,
            start_after: true,
            page: 1000,
            commits_empty: false,
            versioned: false,
            region: None,
            token: None,
            no_such_bucket: false,
            denied: Vec::new(),
            clock: 0,
            latency: Duration::ZERO,
        }
    }

    /// Ignores conditions, verifies bodies: Garage.
    pub(crate) fn without_conditions() -> Self {
        Personality { create_only: Condition::Ignore, if_match: Condition::Ignore, ..Self::honest() }
    }

    /// Says no to conditions and to checksums, verifies MD5: Backblaze B2.
    pub(crate) fn rejects_conditions() -> Self {
        Personality {
            create_only: Condition::Reject501,
            if_match: Condition::Reject501,
            checksum: Check::Reject400,
            ..Self::honest()
        }
    }

    /// Conditional create works, conditional replace does not, checksums are swallowed: Ceph 16.
    pub(crate) fn old_ceph() -> Self {
        Personality { if_match: Condition::Refuse, checksum: Check::Ignore, ..Self::honest() }
    }

    /// Verifies nothing, ignores conditions, echoes checksums, and its ETags mean nothing.
    pub(crate) fn liar() -> Self {
        Personality {
            checksum: Check::Echo,
            md5: Check::Ignore,
            one_checksum: false,
            etag_is_md5: false,
            start_after: false,
            order: Order::Backwards,
            ..Self::without_conditions()
        }
    }
}

/// An answer that does not come from the store's logic.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
}

impl Answer {
    /// An S3 error.
    pub(crate) fn error(status: u16, code: &str) -> Self {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>as the test wants it</Message></Error>"
        );
        Answer { status, headers: vec![("content-type", "application/xml".to_owned())], body }
    }

    /// 503 SlowDown (AWS, B2).
    pub(crate) fn slow_down() -> Self {
        Self::error(503, "SlowDown")
    }

    /// 429 (R2).
    pub(crate) fn too_many_requests() -> Self {
        Self::error(429, "TooManyRequests")
    }

    /// 403 RequestRateLimitExceeded, throttling in disguise (Wasabi).
    pub(crate) fn wasabi_throttle() -> Self {
        Self::error(403, "RequestRateLimitExceeded")
    }

    /// 500 InternalError.
    pub(crate) fn internal_error() -> Self {
        Self::error(500, "InternalError")
    }

    /// 200 with an error inside.
    pub(crate) fn error_in_200() -> Self {
        Self::error(200, "InternalError")
    }

    /// 502 from a proxy in between: html, no code.
    pub(crate) fn bad_gateway() -> Self {
        let body = "<html><body>502 Bad Gateway</body></html>".to_owned();
        Answer { status: 502, headers: vec![("content-type", "text/html".to_owned())], body }
    }

    /// 200 from somebody who is no store at all: a captive portal.
    pub(crate) fn captive_portal() -> Self {
        let body = "<html><body>Please accept our terms.</body></html>".to_owned();
        Answer { status: 200, headers: vec![("content-type", "text/html".to_owned())], body }
    }

    /// With a header more.
    pub(crate) fn header(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }
}

/// When a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Before the body was read: the rest of it meets a closed door.
    Early,
    /// After the body was read, instead of carrying the request out.
    Instead,
    /// After the request was carried out, instead of its answer.
    AfterCommit,
}

/// An answer that some of the next requests get.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) answer: Answer,
    pub(crate) moment: Moment,
    pub(crate) method: Option<&'static str>,
    pub(crate) on: String,
    pub(crate) times: usize,
}

impl Fault {
    /// This answer for every request from now on, until narrowed.
    pub(crate) fn new(answer: Answer) -> Self {
        Fault { answer, moment: Moment::Instead, method: None, on: String::new(), times: usize::MAX }
    }

    /// At another moment than after the body.
    pub(crate) fn moment(mut self, moment: Moment) -> Self {
        self.moment = moment;
        self
    }

    /// Only for requests of this method.
    pub(crate) fn method(mut self, method: &'static str) -> Self {
        self.method = Some(method);
        self
    }

    /// Only where the key (or, of a listing, the prefix) contains this text.
    pub(crate) fn on(mut self, text: &str) -> Self {
        self.on = text.to_owned();
        self
    }

    /// Only so many times.
    pub(crate) fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }
}
