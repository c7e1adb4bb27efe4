//! Bytes to the server's messages. No I/O.
//!
//! `postgres-protocol` reads every message but one: CopyBothResponse, with which streaming replication begins.

use crate::error::{Error, ErrorKind};
use bytes::BytesMut;
use postgres_protocol::message::backend;

/// The longest message accepted. The server's largest of those we ask for are 128 KiB of WAL; rows of a query may be longer.
const LONGEST: u32 = 64 << 20;

/// A message of the server.
pub(super) enum Message {
    /// CopyBothResponse.
    CopyBoth,
    /// Any other.
    Other(backend::Message),
}

/// The peer said something that its protocol does not allow.
pub(super) fn malformed(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::Protocol, "the server sent a malformed message").because(cause)
}

/// The peer said something that does not fit here.
pub(super) fn unexpected(what: &str) -> Error {
    Error::new(ErrorKind::Protocol, format!("the server sent {what}, which does not fit here"))
        .hint("is this a PostgreSQL server, without a pooler in between?")
}

/// Takes the first message off the buffer; `None` if it is not whole yet.
pub(super) fn next(buffer: &mut BytesMut) -> Result<Option<Message>, Error> {
    let Some((&[tag, a, b, c, d], rest)) = buffer.split_first_chunk::<5>() else { return Ok(None) };
    let length = u32::from_be_bytes([a, b, c, d]);
    if !(4..=LONGEST).contains(&length) {
        return Err(malformed(format!("length {length}")));
    }
    if tag != b'W' {
        return Ok(backend::Message::parse(buffer).map_err(malformed)?.map(Message::Other));
    }
    let body = usize::try_from(length).unwrap_or(usize::MAX) - 4;
    if rest.len() < body {
        return Ok(None);
    }
    let whole = buffer.split_to(5 + body);
    match whole.get(5..8) {
        // The overall format, and a count of column formats, of which streaming has none.
        Some([0, 0, 0]) if body == 3 => Ok(Some(Message::CopyBoth)),
        _ => Err(malformed("a CopyBothResponse with columns")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_messages_only() {
        let bytes = b"W\0\0\0\x07\0\0\0d\0\0\0\x06hiZ\0\0\0\x05I";
        let mut buffer = BytesMut::new();
        let mut seen = Vec::new();
        for byte in bytes {
            buffer.extend_from_slice(&[*byte]);
            while let Some(message) = next(&mut buffer).unwrap() {
                seen.push(match message {
                    Message::CopyBoth => "both".to_owned(),
                    Message::Other(backend::Message::CopyData(body)) => format!("{:?}", body.into_bytes()),
                    Message::Other(backend::Message::ReadyForQuery(_)) => "ready".to_owned(),
                    Message::Other(_) => "other".to_owned(),
                });
            }
        }
        assert_eq!(seen, ["both", "b\"hi\"", "ready"]);
        assert!(buffer.is_empty());
    }

    #[test]
    fn nonsense_is_refused() {
        for bytes in
            [&b"W\0\0\0\x03"[..], b"d\xff\xff\xff\xff", b"W\0\0\0\x09\0\0\x01\0\0", b"?\0\0\0\x04", b"HTTP/1.1"]
        {
            assert!(next(&mut BytesMut::from(bytes)).is_err(), "{bytes:?}");
        }
    }
}
