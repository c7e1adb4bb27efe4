//! WAL straight from the server, for the backup itself.

use crate::codec::{Encoded, Encoding, Kind, Subject, encode};
use crate::error::{Error, ErrorKind, Result};
use crate::pg::page::SegmentHeader;
use crate::pg::{Lsn, SegmentName, SegmentSize, SystemIdentifier, TimelineId};
use crate::wire::{ConnectOptions, Connection, Mode, ReplicationStream, Wal, in_time, server_error};
use bytes::{Buf, Bytes};
use std::io::Read;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long the server may withhold WAL that it must have.
const PATIENCE: Duration = Duration::from_secs(60);

/// Pieces of at most 128 KiB that may wait to be compressed.
const PIECES: usize = 16;

/// Keeps the server from recycling WAL while it can, and fetches it.
pub(super) struct Fetcher<'a> {
    server: &'a ConnectOptions,
    /// A connection whose temporary slot holds the WAL since before the backup; ends with it.
    connection: Option<Connection>,
    /// Whether WAL is held by a slot.
    holds: bool,
    system: SystemIdentifier,
    segment_size: SegmentSize,
    encoding: Encoding,
    /// Where the backup ends: behind it nothing is needed. Known once it has.
    end: Option<Lsn>,
}

impl<'a> Fetcher<'a> {
    /// Connects a second time, and has a temporary slot hold the WAL, where the server grants both. The error says why not.
    pub(super) async fn prepare(
        server: &'a ConnectOptions,
        system: SystemIdentifier,
        segment_size: SegmentSize,
        encoding: Encoding,
    ) -> (Self, Option<Error>) {
        let mut this = Self { server, connection: None, holds: false, system, segment_size, encoding, end: None };
        let mut refused = None;
        match Connection::connect(server, Mode::Replication).await {
            Ok(mut connection) => {
                let name = format!("walhalla_{:08x}", fastrand::u32(..));
                match in_time("creating a temporary slot", connection.temporary_slot(&name)).await {
                    Ok(()) => this.holds = true,
                    Err(error) => refused = Some(error),
                }
                // What the server refused in words leaves the connection usable; anything else does not.
                let is_usable = refused.as_ref().is_none_or(|error| server_error(error).is_some());
                this.connection = is_usable.then_some(connection);
            }
            Err(error) => refused = Some(error),
        }
        (this, refused)
    }

    /// Where the backup ends. From a standby the last segment may stay unfinished for long: it is then cut behind this
    /// position and filled with zeros, which is how the server itself leaves an unfinished segment.
    pub(super) fn ends_at(&mut self, end: Lsn, unfinished: bool) {
        self.end = unfinished.then_some(end);
    }

    async fn connection(&mut self) -> Result<&mut Connection> {
        match &mut self.connection {
            Some(connection) => Ok(connection),
            none => Ok(none.insert(Connection::connect(self.server, Mode::Replication).await?)),
        }
    }

    /// A timeline's history file.
    pub(super) async fn history(&mut self, timeline: TimelineId) -> Result<Bytes> {
        let outcome = self.try_history(timeline).await;
        if self.is_worth_another(&outcome) { self.try_history(timeline).await } else { outcome }
    }

    async fn try_history(&mut self, timeline: TimelineId) -> Result<Bytes> {
        let history = self.connection().await?.timeline_history(timeline);
        in_time("asking the server for a timeline's history", history).await
    }

    /// A whole segment, as an object. Memory: its compressed size.
    pub(super) async fn segment(&mut self, name: SegmentName) -> Result<Encoded> {
        let mut outcome = self.try_segment(name).await;
        if self.is_worth_another(&outcome) {
            outcome = self.try_segment(name).await;
        }
        outcome.map_err(|error| match error.kind() {
            ErrorKind::NotFound => error
                .with_kind(ErrorKind::Unavailable)
                .hint("the server has recycled it: raise wal_keep_size, or let the archiver work faster"),
            _ => error,
        })
    }

    /// Whether to ask once more, on a new connection. This one has been idle for as long as the backup took, and may have been cut
    /// meanwhile by a firewall or an administrator; its slot is gone then as well, but seldom the WAL.
    fn is_worth_another<T>(&mut self, outcome: &Result<T>) -> bool {
        let is_broken = outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::Unavailable);
        if is_broken || (outcome.is_err() && !self.holds) {
            (self.connection, self.holds) = (None, false);
        }
        is_broken
    }

    async fn try_segment(&mut self, name: SegmentName) -> Result<Encoded> {
        let (size, end, system, encoding) = (self.segment_size, self.end, self.system, self.encoding.clone());
        let start = name.start(size).ok_or_else(|| Error::new(ErrorKind::Bug, format!("{name} names no segment")))?;
        let connection = self.connection().await?;
        let stream = connection.start_replication(start, name.timeline());
        let mut stream = in_time("asking the server for WAL", stream).await?;
        let (pieces, reader) = mpsc::channel(PIECES);
        let subject = Subject { kind: Kind::Wal, system_identifier: system, timeline: name.timeline().get(), start };
        let encoding = tokio::task::spawn_blocking(move || {
            encode(&mut PieceReader { pieces: reader, rest: Bytes::new() }, size.bytes(), subject, &encoding)
        });
        let receipt = receive(&mut stream, name, system, size, end, &pieces).await;
        drop(pieces);
        let encoded = encoding.await.map_err(|error| Error::new(ErrorKind::Bug, "encoding ended").because(error))?;
        // Where too little came, the encoder complains as well; the server's reason is the better one.
        receipt?;
        in_time("ending the stream of WAL", stream.finish()).await?;
        encoded
    }
}

/// Passes on exactly one segment.
async fn receive(
    stream: &mut ReplicationStream<'_>,
    name: SegmentName,
    system: SystemIdentifier,
    size: SegmentSize,
    end: Option<Lsn>,
    pieces: &mpsc::Sender<Bytes>,
) -> Result<()> {
    let mut left = size.bytes();
    while left > 0 {
        let next = tokio::time::timeout(PATIENCE, stream.next()).await;
        let Ok(next) = next else {
            let message = format!("the server has sent none of {name} for {} s", PATIENCE.as_secs());
            return Err(Error::new(ErrorKind::Unavailable, message));
        };
        let Some(Wal { start, mut bytes }) = next? else {
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!("the server stopped sending in the middle of {name}"),
            ));
        };
        if left == size.bytes() {
            let header = SegmentHeader::parse(&bytes).and_then(|header| header.check_name(name).map(|()| header));
            let header =
                header.map_err(|error| Error::new(ErrorKind::Protocol, "the server sent other WAL").because(error))?;
            if header.system_identifier != system {
                let message = format!("{name} came from cluster {}, not {system}", header.system_identifier);
                return Err(Error::new(ErrorKind::Mismatch, message));
            }
        }
        bytes.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        left -= bytes.len() as u64;
        let reached = start.0 + bytes.len() as u64;
        send(pieces, bytes).await?;
        if end.is_some_and(|end| reached >= end.0) {
            fill(left, pieces).await?;
            left = 0;
        }
    }
    Ok(())
}

async fn fill(mut left: u64, pieces: &mpsc::Sender<Bytes>) -> Result<()> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    while left > 0 {
        let mut zeros = Bytes::from_static(&ZEROS);
        zeros.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        left -= zeros.len() as u64;
        send(pieces, zeros).await?;
    }
    Ok(())
}

async fn send(pieces: &mpsc::Sender<Bytes>, bytes: Bytes) -> Result<()> {
    pieces.send(bytes).await.map_err(|_| Error::new(ErrorKind::Bug, "nobody encodes the WAL that was fetched"))
}

/// Pieces from the other side, as a file.
struct PieceReader {
    pieces: mpsc::Receiver<Bytes>,
    rest: Bytes,
}

impl Read for PieceReader {
    fn read(&mut self, room: &mut [u8]) -> std::io::Result<usize> {
        while self.rest.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.rest = piece,
                None => return Ok(0),
            }
        }
        let length = self.rest.len().min(room.len());
        self.rest.copy_to_slice(room.get_mut(..length).unwrap_or_default());
        Ok(length)
    }
}
