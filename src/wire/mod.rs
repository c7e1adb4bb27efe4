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
