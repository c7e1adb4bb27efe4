//! The byte stream to a server, and whole messages on it.

use super::framing::{self, Message};
use super::options::{Address, ConnectOptions, Host};
use crate::error::{Error, ErrorKind, Result};
use bytes::BytesMut;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream, lookup_host};

/// Anything that carries bytes both ways.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// How much is read at once: a few of the server's 32 KiB messages.
const READ_AHEAD: usize = 128 << 10;

/// Connects to where a host listens; each of a name's addresses is tried.
pub(super) async fn connect(host: &Host, options: &ConnectOptions) -> Result<Box<dyn Duplex>> {
    match &host.address {
        Address::Unix(directory) => {
            let path: PathBuf = directory.join(format!(".s.PGSQL.{}", host.port));
            let stream = UnixStream::connect(&path).await;
            Ok(Box::new(stream.map_err(|error| unreachable_at(host).because(error))?))
        }
        Address::Tcp { name, address } => {
            let addresses: Vec<SocketAddr> = match address {
                Some(address) => vec![SocketAddr::new(*address, host.port)],
                None => lookup_host((name.as_str(), host.port))
                    .await
                    .map_err(|error| unreachable_at(host).because(error))?
                    .collect(),
            };
            let mut failure = unreachable_at(host).because("the name has no address");
            for address in addresses {
                match TcpStream::connect(address).await {
                    Ok(stream) => {
                        prepare(&stream, options).map_err(|error| unreachable_at(host).because(error))?;
                        return Ok(Box::new(stream));
                    }
                    Err(error) => failure = unreachable_at(host).because(error),
                }
            }
            Err(failure)
        }
    }
}

fn unreachable_at(host: &Host) -> Error {
    Error::new(ErrorKind::Unavailable, format!("cannot reach the server at {host}"))
        .hint("check PGHOST and PGPORT (or --dsn), and that the server is running")
}

/// While a server prepares a checkpoint it says nothing for minutes: no read may time out then, and only keepalive notices
/// that a peer is gone.
fn prepare(stream: &TcpStream, options: &ConnectOptions) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    if options.keepalive {
        let keepalive = socket2::TcpKeepalive::new()
            .with_time(Duration::from_secs(60))
            .with_interval(Duration::from_secs(10))
            .with_retries(6);
        socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive)?;
    }
    Ok(())
}

/// A stream with what was read of it ahead.
pub(super) struct Channel {
    stream: Box<dyn Duplex>,
    buffer: BytesMut,
}

impl Channel {
    pub(super) fn new(stream: Box<dyn Duplex>) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// The next message. May be dropped while it waits without losing a byte.
    pub(super) async fn receive(&mut self) -> Result<Message> {
        loop {
            if let Some(message) = framing::next(&mut self.buffer)? {
                return Ok(message);
            }
            self.buffer.reserve(READ_AHEAD);
            let count = self.stream.read_buf(&mut self.buffer).await.map_err(lost)?;
            if count == 0 {
                return Err(lost("the server closed it"));
            }
        }
    }

    /// Sends whole messages.
    pub(super) async fn send(&mut self, messages: &[u8]) -> Result<()> {
        self.stream.write_all(messages).await.map_err(lost)?;
        self.stream.flush().await.map_err(lost)
    }
}

/// The connection broke.
pub(super) fn lost(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::Unavailable, "the connection to the server broke").because(cause)
}
