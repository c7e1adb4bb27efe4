//! Endpoints at which no store answers, each in its own way.

use super::fake_s3::{Certificate, FakeS3};
use super::free_port;
use super::proxy::{Plan, Proxy};
use socket2::{Domain, Socket, Type};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

/// Where nobody answers, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Elsewhere {
    /// A name that does not resolve.
    Nameless,
    /// A port that nobody listens on.
    Refused,
    /// Packets vanish: no connection ever comes about.
    BlackHole,
    /// A certificate that has run out.
    Expired,
    /// A certificate of another name.
    WrongName,
    /// A certificate of an authority that nobody trusts.
    UnknownAuthority,
    /// TLS begins, and nothing is answered.
    StalledHandshake,
    /// TLS begins, and the connection is closed.
    CutHandshake,
    /// https is spoken to a port that speaks http.
    NoTls,
}

impl Elsewhere {
    /// The endpoint, and the authority to trust where it is https.
    pub(crate) fn endpoint(self) -> (String, Option<PathBuf>) {
        let places = places();
        let https = |port: u16| (format!("https://localhost:{port}"), Some(places.good.ca_file()));
        let with = |s3: &FakeS3| (s3.endpoint().replace("127.0.0.1", "localhost"), Some(places.good.ca_file()));
        match self {
            Self::Nameless => ("http://store.invalid:9000".to_owned(), None),
            Self::Refused => (format!("http://127.0.0.1:{}", places.nobody), None),
            Self::BlackHole => (format!("http://{}", places.hole.address), None),
            Self::Expired => with(&places.expired),
            Self::WrongName => with(&places.wrong_name),
            Self::UnknownAuthority => with(&places.unknown),
            Self::StalledHandshake => https(places.stalled.port()),
            Self::CutHandshake => https(places.cut.port()),
            Self::NoTls => https(places.plain.port()),
        }
    }
}

/// They stand as long as the test process: they know nothing and change nothing.
struct Places {
    nobody: u16,
    hole: BlackHole,
    good: FakeS3,
    expired: FakeS3,
    wrong_name: FakeS3,
    unknown: FakeS3,
    stalled: Proxy,
    cut: Proxy,
    plain: FakeS3,
}

fn places() -> &'static Places {
    static PLACES: OnceLock<Places> = OnceLock::new();
    PLACES.get_or_init(|| {
        let good = FakeS3::start_https();
        let (stalled, cut) = (Proxy::to(good.port()), Proxy::to(good.port()));
        stalled.always(Plan::silence());
        cut.always(Plan::hang_up());
        Places {
            nobody: free_port(),
            hole: BlackHole::open(),
            good,
            expired: FakeS3::start_https_as(Certificate::Expired),
            wrong_name: FakeS3::start_https_as(Certificate::WrongName),
            unknown: FakeS3::start_https_as(Certificate::UnknownAuthority),
            stalled,
            cut,
            plain: FakeS3::start(),
        }
    })
}

/// A listener that accepts nothing and whose queue is full: the kernel drops what comes, as a firewall does.
#[derive(Debug)]
pub(crate) struct BlackHole {
    address: SocketAddr,
    _listener: Socket,
    _queued: Vec<TcpStream>,
}

impl BlackHole {
    /// Opens one.
    pub(crate) fn open() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let mut queued = Vec::new();
        // Until one is not taken any more.
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
            queued.push(stream);
            assert!(queued.len() < 50, "the queue is never full");
        }
        Self { address, _listener: listener, _queued: queued }
    }
}
