//! What goes wrong between the programs and the store, by the words of the tables. Words that end in ", once" strike one request (or
//! one connection); all others last.

use crate::support::fake_s3::{Answer, Fault, Moment, Personality, Right};
use crate::support::proxy::{Break, Plan};
use crate::support::unreachable::Elsewhere;
use std::time::Duration;

/// What the store itself says, and when.
#[rustfmt::skip]
const ANSWERS: &[(&str, u16, &str, Moment)] = &[
    ("503 SlowDown", 503, "SlowDown", Moment::Instead),
    ("503 SlowDown before the body was read", 503, "SlowDown", Moment::Early),
    ("429 TooManyRequests", 429, "TooManyRequests", Moment::Instead),
    ("403 RequestRateLimitExceeded", 403, "RequestRateLimitExceeded", Moment::Instead),
    ("500 InternalError", 500, "InternalError", Moment::Instead),
    ("500 InternalError after the commit", 500, "InternalError", Moment::AfterCommit),
    ("504 GatewayTimeout", 504, "GatewayTimeout", Moment::Instead),
    ("400 RequestTimeout", 400, "RequestTimeout", Moment::Instead),
    ("400 BadDigest", 400, "BadDigest", Moment::Instead),
    ("409 OperationAborted", 409, "OperationAborted", Moment::Instead),
    ("307 TemporaryRedirect", 307, "TemporaryRedirect", Moment::Instead),
    ("200 with an error in it", 200, "InternalError", Moment::Instead),
    ("403 AccessDenied", 403, "AccessDenied", Moment::Instead),
    ("403 SignatureDoesNotMatch", 403, "SignatureDoesNotMatch", Moment::Instead),
    ("403 InvalidAccessKeyId", 403, "InvalidAccessKeyId", Moment::Instead),
    ("400 ExpiredToken", 400, "ExpiredToken", Moment::Instead),
    ("403 RequestTimeTooSkewed", 403, "RequestTimeTooSkewed", Moment::Instead),
    ("404 NoSuchBucket", 404, "NoSuchBucket", Moment::Instead),
    ("301 PermanentRedirect", 301, "PermanentRedirect", Moment::Instead),
    ("400 AuthorizationHeaderMalformed", 400, "AuthorizationHeaderMalformed", Moment::Instead),
    ("403 InvalidObjectState", 403, "InvalidObjectState", Moment::Instead),
    ("400 InvalidArgument", 400, "InvalidArgument", Moment::Instead),
];

/// What the line does, and its words.
type Line = (&'static str, fn() -> Plan);

const LINES: &[Line] = &[
    ("the request is cut off at once", || Plan::up(Break::Fin, 0)),
    ("the request is cut off after 1000 bytes", || Plan::up(Break::Fin, 1000)),
    ("the request is reset after 1000 bytes", || Plan::up(Break::Rst, 1000)),
    ("the request stalls", || Plan::up(Break::Stall, 100)),
    ("the request trickles", || Plan::up(Break::Trickle { bytes: 10, pause: Duration::from_millis(100) }, 0)),
    ("a bit of the body sent is flipped", || Plan::up(Break::Flip, 3000)),
    ("the answer is lost", Plan::lose_answer),
    ("the answer is reset", || Plan::down(Break::Rst, 0)),
    ("the answer is cut off in its head", || Plan::down(Break::Fin, 50)),
    ("the answer stalls", || Plan::down(Break::Stall, 20)),
    ("the answer trickles", || Plan::down(Break::Trickle { bytes: 2, pause: Duration::from_millis(100) }, 0)),
    ("the body received is cut off", || Plan::down(Break::Fin, 1500)),
    ("the body received is reset", || Plan::down(Break::Rst, 1500)),
    ("the body received stalls", || Plan::down(Break::Stall, 1500)),
    ("a bit of the body received is flipped", || Plan::down(Break::Flip, 1500)),
];

/// Who is there instead of the store.
const ELSEWHERE: &[(&str, Elsewhere)] = &[
    ("its name does not resolve", Elsewhere::Nameless),
    ("nobody listens", Elsewhere::Refused),
    ("packets vanish", Elsewhere::BlackHole),
    ("the certificate has run out", Elsewhere::Expired),
    ("the certificate has another name", Elsewhere::WrongName),
    ("the certificate's authority is unknown", Elsewhere::UnknownAuthority),
    ("the TLS handshake stalls", Elsewhere::StalledHandshake),
    ("the TLS handshake is cut off", Elsewhere::CutHandshake),
    ("https is spoken to an http port", Elsewhere::NoTls),
];

/// A fault between a program and the store.
pub(super) enum Between {
    /// The store answers so.
    Says(Fault),
    /// The line does this, to a connection from the moment on at which a certain request is sent.
    Line(Plan),
    /// The line does this to whole connections.
    Whole(Plan),
    /// The endpoint is another.
    Elsewhere(Elsewhere),
    /// The store has changed.
    Store(fn(&mut Personality)),
}

/// The fault of these words, if they are of this kind, and whether it lasts.
pub(super) fn between(words: &str) -> Option<(Between, bool)> {
    let (name, lasts) = match words.strip_suffix(", once") {
        Some(name) => (name, false),
        None => (words, true),
    };
    let by_name = |known: &str| known == name;
    let found = if let Some((_, status, code, moment)) = ANSWERS.iter().find(|(known, ..)| by_name(known)) {
        Between::Says(Fault::new(Answer::error(*status, code)).moment(*moment))
    } else if let Some((_, plan)) = LINES.iter().find(|(known, _)| by_name(known)) {
        Between::Line(plan())
    } else if let Some((_, elsewhere)) = ELSEWHERE.iter().find(|(known, _)| by_name(known)) {
        Between::Elsewhere(*elsewhere)
    } else {
        match name {
            "502 with a page" => Between::Says(Fault::new(Answer::bad_gateway())),
            "404 with a page" => Between::Says(Fault::new(Answer { status: 404, ..Answer::captive_portal() })),
            "404 without a word" => Between::Says(Fault::new(empty(404))),
            "403 without a word" => Between::Says(Fault::new(empty(403))),
            "200 with a page" => Between::Says(Fault::new(Answer::captive_portal())),
            "200 without an ETag" => Between::Says(Fault::new(empty(200)).moment(Moment::AfterCommit)),
            "a captive portal" => Between::Whole(Plan::portal()),
            "nothing is ever answered" => Between::Whole(Plan::silence()),
            "connections are closed" => Between::Whole(Plan::hang_up()),
            "the store's clock is an hour ahead" => Between::Store(|p| p.clock = 3600),
            "the bucket has vanished" => Between::Store(|p| p.no_such_bucket = true),
            "no right to get" => Between::Store(|p| p.denied = vec![(Right::Get, String::new())]),
            "no right to list" => Between::Store(|p| p.denied = vec![(Right::List, String::new())]),
            "no right to put" => Between::Store(|p| p.denied = vec![(Right::Put, String::new())]),
            "another region" => Between::Store(|p| p.region = Some("eu-central-1".to_owned())),
            "keys are listed out of order" => Between::Store(|p| {
                p.order = crate::support::fake_s3::Order::Backwards;
                p.start_after = false;
            }),
            "ETags are no MD5" => Between::Store(|p| p.etag_is_md5 = false),
            _ => return None,
        }
    };
    Some((found, lasts))
}

fn empty(status: u16) -> Answer {
    Answer { status, headers: Vec::new(), body: String::new() }
}
