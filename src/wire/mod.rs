//! The Postgres wire client: our own, on `postgres-protocol`'s messages, because base backups and WAL streaming speak a part
//! of the protocol (copy-both, replication commands) that general clients leave out.
//!
//! | file | subject |
//! |---|---|
//! | `options`, `dsn`, `service`, `passfile` | which server, as whom: resolved as libpq resolves it |
//! | `socket`, `tls`, `certificate` | the byte stream beneath, plain or encrypted |
//! | `startup` | the first messages: encryption, authentication, parameters |
//! | `framing`, `replication_message` | bytes to messages and back; no I/O |
//! | `connection`, `query`, `replication` | what a caller does with a server |
//! | `patience` | how long a server may take for what needs no time |
//! | `server_error` | what the server refused, in our words |
//!
//! Dropping a [`Connection`] ends it: the server notices at its next send and gives up what it was doing.

mod certificate;
mod connection;
mod dsn;
mod framing;
mod options;
mod passfile;
mod patience;
mod query;
mod replication;
mod replication_message;
mod server_error;
mod service;
mod socket;
mod startup;
mod tls;

pub use connection::{Connection, Mode};
pub use options::{Address, ChannelBinding, ConnectOptions, Environment, Host, SslMode};
pub use patience::in_time;
pub use query::{Event, Query, ResultSet};
pub use replication::{ReplicationStream, StreamEnd, SystemInfo, Wal};
pub use server_error::{ServerError, server_error};

/// The parsers of what a user or a peer wrote, for the fuzz targets: pure, and of no use to anybody else.
#[doc(hidden)]
pub mod parsers {
    use super::{dsn, framing, replication_message::FromSender};
    use crate::error::Result;
    use bytes::{Bytes, BytesMut};
    use postgres_protocol::message::backend;

    /// A connection string's options and values.
    pub fn connection_string(text: &str) -> Result<Vec<(String, String)>> {
        dsn::parse(text)
    }

    /// Reads the messages that arrived in these pieces: how many were whole, and how many bytes of WAL streamed in them.
    pub fn messages<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<(usize, usize)> {
        let (mut buffer, mut count, mut wal) = (BytesMut::new(), 0, 0);
        for piece in pieces {
            buffer.extend_from_slice(piece);
            while let Some(message) = framing::next(&mut buffer)? {
                count += 1;
                if let framing::Message::Other(backend::Message::CopyData(body)) = message {
                    wal += streamed(&body.into_bytes())?;
                }
            }
        }
        Ok((count, wal))
    }

    /// Reads the content of a CopyData of streaming replication: how many bytes of WAL it holds.
    pub fn streamed(body: &Bytes) -> Result<usize> {
        Ok(match FromSender::read(body)? {
            FromSender::Wal { bytes, .. } => bytes.len(),
            FromSender::Keepalive { .. } => 0,
        })
    }
}
