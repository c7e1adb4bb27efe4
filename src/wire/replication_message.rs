//! What travels inside CopyData while WAL is streamed. Pure.

use super::framing::malformed;
use crate::error::Error;
use crate::pg::Lsn;
use bytes::{BufMut, Bytes, BytesMut};
use std::time::{Duration, SystemTime};

/// A message of the WAL sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FromSender {
    /// WAL from this position on.
    Wal { start: Lsn, sent: SystemTime, bytes: Bytes },
    /// A sign of life; the sender may want one back at once.
    Keepalive { sent: SystemTime, reply: bool },
}

impl FromSender {
    /// Reads the content of a CopyData.
    pub(super) fn read(body: &Bytes) -> Result<Self, Error> {
        let number = |at: usize| {
            let bytes = body.get(at..at + 8).and_then(|bytes| bytes.first_chunk::<8>());
            bytes.map(|bytes| u64::from_be_bytes(*bytes)).ok_or_else(|| malformed("a short replication message"))
        };
        match body.first() {
            Some(b'w') => {
                // Between them stands the server's flush position, on which nothing here depends.
                let (start, sent) = (Lsn(number(1)?), time_of(number(17)?));
                Ok(Self::Wal { start, sent, bytes: body.slice(25..) })
            }
            Some(b'k') => match body.get(17) {
                Some(reply) if body.len() == 18 => {
                    Ok(Self::Keepalive { sent: time_of(number(9)?), reply: *reply != 0 })
                }
                _ => Err(malformed("a short keepalive")),
            },
            Some(other) => Err(malformed(format!("replication message {:?}", char::from(*other)))),
            None => Err(malformed("an empty replication message")),
        }
    }
}

/// A standby status update: how far WAL was written and made durable here. Nothing is ever applied here.
/// With `reply` the server answers at once.
pub(super) fn status_update(written: Lsn, flushed: Lsn, now: SystemTime, reply: bool) -> Bytes {
    let mut body = BytesMut::with_capacity(34);
    body.put_u8(b'r');
    body.put_u64(written.0);
    body.put_u64(flushed.0);
    body.put_u64(Lsn::INVALID.0);
    body.put_i64(postgres_time(now));
    body.put_u8(u8::from(reply));
    body.freeze()
}

/// Postgres counts microseconds from 2000-01-01 UTC.
fn epoch() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(946_684_800)
}

fn postgres_time(time: SystemTime) -> i64 {
    time.duration_since(epoch()).ok().and_then(|since| i64::try_from(since.as_micros()).ok()).unwrap_or(0)
}

fn time_of(postgres: u64) -> SystemTime {
    epoch().checked_add(Duration::from_micros(postgres)).unwrap_or_else(epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        let mut wal = vec![b'w'];
        wal.extend(0x16_0000_0028_u64.to_be_bytes());
        wal.extend([0; 16]);
        wal.extend(b"wal");
        let read = FromSender::read(&Bytes::from(wal.clone())).unwrap();
        assert_eq!(
            read,
            FromSender::Wal { start: Lsn(0x16_0000_0028), sent: epoch(), bytes: Bytes::from_static(b"wal") }
        );
        assert!(FromSender::read(&Bytes::from(wal[..24].to_vec())).is_err());
        let mut keepalive = vec![b'k'];
        keepalive.extend([0; 16]);
        keepalive.push(1);
        assert_eq!(
            FromSender::read(&Bytes::from(keepalive)).unwrap(),
            FromSender::Keepalive { sent: epoch(), reply: true }
        );
        for bad in [&b""[..], b"k", b"x", b"w123"] {
            assert!(FromSender::read(&Bytes::from_static(bad)).is_err());
        }
    }

    #[test]
    fn status() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(946_684_801);
        let body = status_update(Lsn(3), Lsn(2), time, false);
        assert_eq!(body.len(), 34);
        assert_eq!(body[..9], [b'r', 0, 0, 0, 0, 0, 0, 0, 3]);
        assert_eq!(body[25..33], 1_000_000_i64.to_be_bytes());
    }
}
