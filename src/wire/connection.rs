//! A connection to a server.

use super::framing::{Message, malformed};
use super::options::{ConnectOptions, Host};
use super::query::{Event, Query, ResultSet};
use super::server_error::ServerError;
use super::socket::Channel;
use super::startup::{self, Session};
use crate::error::{Error, ErrorKind, Result};
use bytes::BytesMut;
use postgres_protocol::message::{backend, frontend};
use std::collections::HashMap;
use std::fmt;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Physical replication: BASE_BACKUP, START_REPLICATION, SHOW. No SQL.
    Replication,
    /// SQL in a database.
    Sql,
}

/// How many notices are kept until somebody takes them; of more, only the first are worth anything.
const MOST_NOTICES: usize = 10_000;

/// A connection. One command at a time; dropping it ends it.
pub struct Connection {
    channel: Channel,
    host: Host,
    user: String,
    parameters: HashMap<String, String>,
    notices: Vec<ServerError>,
    encrypted: bool,
    /// A command has been sent whose end was not read.
    busy: bool,
    /// IDENTIFY_SYSTEM has been run on it.
    pub(super) identified: bool,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("host", &self.host).field("user", &self.user).finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects to the first of the hosts that answers.
    ///
    /// `Denied`: refused, with the cure as hint. `Unavailable`: none answers. `Config`: TLS cannot be had as asked for.
    pub async fn connect(options: &ConnectOptions, mode: Mode) -> Result<Self> {
        let mut failure = Error::new(ErrorKind::Config, "no server to connect to");
        for host in &options.hosts {
            let attempt = startup::establish(options, host, mode);
            let outcome = match options.connect_timeout {
                None => attempt.await,
                Some(limit) => tokio::time::timeout(limit, attempt).await.unwrap_or_else(|_| {
                    let message = format!("no connection within {} s (PGCONNECT_TIMEOUT)", limit.as_secs());
                    Err(Error::new(ErrorKind::Unavailable, message))
                }),
            };
            match outcome {
                Ok(session) => return Ok(Self::new(session, host.clone(), options.user.clone())),
                Err(error) => {
                    let doing = format!("connecting to {host} as \"{}\"", options.user);
                    failure = error.context(doing);
                    // libpq goes on to the next host when one is out of reach, not when it refuses the password.
                    if failure.kind() == ErrorKind::Denied {
                        break;
                    }
                }
            }
        }
        Err(failure)
    }

    fn new(session: Session, host: Host, user: String) -> Self {
        let Session { channel, parameters, notices, encrypted } = session;
        Self { channel, host, user, parameters, notices, encrypted, busy: false, identified: false }
    }

    /// The server that answered.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Whether it is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// A parameter that the server reported (`server_version`, `in_hot_standby` …).
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// The notices and warnings that have come since the last call.
    pub fn take_notices(&mut self) -> Vec<ServerError> {
        std::mem::take(&mut self.notices)
    }

    /// Sends a command; its answers are read from the [`Query`]. One that is dropped before its end leaves the connection
    /// unusable.
    pub async fn query(&mut self, command: &str) -> Result<Query<'_>> {
        if self.busy {
            return Err(Error::new(ErrorKind::Bug, "a command was sent before the last one's answer was read"));
        }
        let mut message = BytesMut::new();
        frontend::query(command, &mut message)
            .map_err(|error| Error::new(ErrorKind::Config, "this command cannot be sent").because(error))?;
        self.busy = true;
        self.channel.send(&message).await?;
        Ok(Query::new(self))
    }

    /// Runs a command (or several, where the server allows it) and collects its results.
    pub async fn simple_query(&mut self, command: &str) -> Result<Vec<ResultSet>> {
        let mut query = self.query(command).await?;
        let mut results = Vec::new();
        while let Some(event) = query.next().await? {
            match event {
                Event::Result(result) => results.push(result),
                Event::Complete(_) => {}
                _ => return Err(super::framing::unexpected("a copy")),
            }
        }
        Ok(results)
    }

    pub(super) async fn send(&mut self, messages: &[u8]) -> Result<()> {
        self.channel.send(messages).await
    }

    pub(super) fn is_ready(&mut self) {
        self.busy = false;
    }

    pub(super) fn refusal(&self, error: ServerError) -> Error {
        error.into_error(&self.user)
    }

    /// The next message that is an answer: notices and parameters are noted on the way.
    pub(super) async fn receive(&mut self) -> Result<Message> {
        loop {
            match self.channel.receive().await? {
                Message::Other(backend::Message::NoticeResponse(body)) => {
                    if self.notices.len() < MOST_NOTICES {
                        self.notices.push(ServerError::read(body.fields())?);
                    }
                }
                Message::Other(backend::Message::ParameterStatus(body)) => {
                    let (name, value) = (body.name().map_err(malformed)?, body.value().map_err(malformed)?);
                    self.parameters.insert(name.to_owned(), value.to_owned());
                }
                message => return Ok(message),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Environment;
    use super::*;

    /// The system accepts, and nobody ever says a word.
    #[tokio::test(start_paused = true)]
    async fn a_server_that_says_nothing() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let dsn = format!("host=127.0.0.1,127.0.0.1 port={port},{port} user=u password=p sslmode=disable");
        let environment = Environment { variable: &|_| None, home: None, user: None };
        let options = ConnectOptions::resolve(Some(&dsn), &environment).unwrap();
        let begun = tokio::time::Instant::now();
        let error = Connection::connect(&options, Mode::Replication).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("no connection within 30 s"), "{error}");
        assert_eq!(begun.elapsed().as_secs(), 60, "as long for each host");
    }
}
