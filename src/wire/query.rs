//! A command's answers, one after the other.

use super::connection::Connection;
use super::framing::{Message, malformed, unexpected};
use super::server_error::ServerError;
use crate::error::{Error, ErrorKind, Result};
use bytes::Bytes;
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::{self, DataRowBody};
use std::borrow::Cow;

/// A whole result, in text format.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResultSet {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// The rows; `None` is NULL.
    pub rows: Vec<Vec<Option<Bytes>>>,
}

impl ResultSet {
    /// A value by row and column; `None` if it is NULL or not there.
    pub fn text(&self, row: usize, column: usize) -> Option<Cow<'_, str>> {
        self.rows.get(row)?.get(column)?.as_deref().map(String::from_utf8_lossy)
    }
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Rows, all of them.
    Result(ResultSet),
    /// A statement without rows is done; its tag.
    Complete(String),
    /// Copy data will follow.
    CopyOut,
    /// Copy data will flow both ways.
    CopyBoth,
    /// Copy data.
    CopyData(Bytes),
    /// The server sends no more copy data.
    CopyDone,
}

/// A command under way.
#[derive(Debug)]
pub struct Query<'c> {
    connection: &'c mut Connection,
    result: Option<ResultSet>,
    /// What the server refused; told once it is ready again.
    refused: Option<Error>,
    done: bool,
}

impl<'c> Query<'c> {
    pub(super) fn new(connection: &'c mut Connection) -> Self {
        Self { connection, result: None, refused: None, done: false }
    }

    /// The next answer; `None` when the command has ended well. After an error of the server the connection is usable again.
    /// May be dropped while it waits without losing anything.
    pub async fn next(&mut self) -> Result<Option<Event>> {
        while !self.done {
            let message = match self.connection.receive().await {
                Ok(message) => message,
                // It said why before it went.
                Err(lost) => return Err(self.refused.take().unwrap_or(lost)),
            };
            match message {
                Message::CopyBoth => return Ok(Some(Event::CopyBoth)),
                Message::Other(message) => {
                    if let Some(event) = self.read(message)? {
                        return Ok(Some(event));
                    }
                }
            }
        }
        match self.refused.take() {
            Some(error) => Err(error),
            None => Ok(None),
        }
    }

    fn read(&mut self, message: backend::Message) -> Result<Option<Event>> {
        Ok(match message {
            backend::Message::RowDescription(body) => {
                let columns = body.fields().map(|field| Ok(field.name().to_owned())).collect().map_err(malformed)?;
                self.result = Some(ResultSet { columns, rows: Vec::new() });
                None
            }
            backend::Message::DataRow(body) => {
                let result = self.result.as_mut().ok_or_else(|| unexpected("a row without columns"))?;
                result.rows.push(row(&body)?);
                None
            }
            backend::Message::CommandComplete(body) => Some(match self.result.take() {
                Some(result) => Event::Result(result),
                None => Event::Complete(body.tag().map_err(malformed)?.to_owned()),
            }),
            backend::Message::EmptyQueryResponse => None,
            backend::Message::CopyOutResponse(_) => Some(Event::CopyOut),
            backend::Message::CopyData(body) => Some(Event::CopyData(body.into_bytes())),
            backend::Message::CopyDone => Some(Event::CopyDone),
            backend::Message::ErrorResponse(body) => {
                let error = ServerError::read(body.fields())?;
                self.done = error.is_fatal();
                self.result = None;
                let error = self.connection.refusal(error);
                self.refused.get_or_insert(error);
                None
            }
            backend::Message::ReadyForQuery(_) => {
                self.done = true;
                self.connection.is_ready();
                None
            }
            _ => return Err(unexpected("an answer to something else")),
        })
    }

    /// Sends a message while the command runs (copy-both).
    pub(super) async fn send(&mut self, messages: &[u8]) -> Result<()> {
        self.connection.send(messages).await
    }

    /// Notices that have come meanwhile.
    pub fn take_notices(&mut self) -> Vec<ServerError> {
        self.connection.take_notices()
    }

    /// The next answer, which must be rows.
    pub async fn result(&mut self) -> Result<ResultSet> {
        match self.next().await? {
            Some(Event::Result(result)) => Ok(result),
            Some(_) => Err(unexpected("no rows")),
            None => Err(Error::new(ErrorKind::Protocol, "the server ended a command without its rows")),
        }
    }
}

fn row(body: &DataRowBody) -> Result<Vec<Option<Bytes>>> {
    let bytes = body.buffer_bytes();
    body.ranges().map(|range| Ok(range.map(|range| bytes.slice(range)))).collect().map_err(malformed)
}
