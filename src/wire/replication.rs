//! The replication commands, and WAL as it streams.

use super::connection::Connection;
use super::framing::unexpected;
use super::query::{Event, Query, ResultSet};
use super::replication_message::{FromSender, status_update};
use crate::error::{Error, ErrorKind, Result};
use crate::pg::{Lsn, PgMajor, SystemIdentifier, TimelineId};
use bytes::{Bytes, BytesMut};
use postgres_protocol::message::frontend;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// What IDENTIFY_SYSTEM tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemInfo {
    /// Whose server it is.
    pub system: SystemIdentifier,
    /// The timeline it is on.
    pub timeline: TimelineId,
    /// Up to where its WAL is durable.
    pub flushed: Lsn,
}

/// A piece of WAL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wal {
    /// Position of its first byte.
    pub start: Lsn,
    /// Its bytes; may cross the end of a segment.
    pub bytes: Bytes,
}

/// Why a stream of WAL ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamEnd {
    /// The timeline ended; its history goes on elsewhere.
    NextTimeline {
        /// On this timeline.
        timeline: TimelineId,
        /// From here; may lie before the last byte received.
        start: Lsn,
    },
    /// We asked for it, or the server shut down.
    Stopped,
}

/// How often the server hears of us unasked; it gives up after a minute by default (`wal_sender_timeout`).
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

fn field<T: std::str::FromStr>(result: &ResultSet, column: usize, what: &str) -> Result<T> {
    let text = result.text(0, column);
    text.and_then(|text| text.parse().ok()).ok_or_else(|| unexpected(&format!("no {what}")))
}

impl Connection {
    async fn command(&mut self, command: &str) -> Result<ResultSet> {
        self.simple_query(command).await?.into_iter().next().ok_or_else(|| unexpected("no rows"))
    }

    /// Who the server is and how far it is.
    pub async fn identify_system(&mut self) -> Result<SystemInfo> {
        let result = self.command("IDENTIFY_SYSTEM").await?;
        self.identified = true;
        let timeline = TimelineId::new(field(&result, 1, "timeline")?).ok_or_else(|| unexpected("timeline 0"))?;
        Ok(SystemInfo {
            system: field(&result, 0, "system identifier")?,
            timeline,
            flushed: field(&result, 2, "position")?,
        })
    }

    /// The value of a setting, as the server shows it. Some are for superusers and members of `pg_read_all_settings` only
    /// (42501).
    pub async fn show(&mut self, name: &str) -> Result<String> {
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.') {
            return Err(Error::new(ErrorKind::Bug, format!("{name:?} is no setting")));
        }
        let result = self.command(&format!("SHOW {name}")).await?;
        result.text(0, 0).map(std::borrow::Cow::into_owned).ok_or_else(|| unexpected("no value"))
    }

    /// The server's version as a number (`150018`). `Config` where it is older than what is supported.
    pub async fn version_num(&mut self) -> Result<u32> {
        let text = self.show("server_version_num").await?;
        let number = text.parse().map_err(|_| unexpected(&format!("the version {text:?}")))?;
        let major = PgMajor::from_version_num(number);
        if major < PgMajor::OLDEST {
            let message =
                format!("the server is PostgreSQL {major}; {} is the oldest that is supported", PgMajor::OLDEST);
            return Err(Error::new(ErrorKind::Config, message).hint("upgrade it with pg_upgrade or pg_dump first"));
        }
        Ok(number)
    }

    /// A timeline's history file; `NotFound` if the server has none.
    pub async fn timeline_history(&mut self, timeline: TimelineId) -> Result<Bytes> {
        let result = self.command(&format!("TIMELINE_HISTORY {timeline}")).await?;
        let content = result.rows.first().and_then(|row| row.get(1)).cloned().flatten();
        content.ok_or_else(|| unexpected("no history"))
    }

    /// The server's clock, which replication commands do not tell: every message of the WAL sender bears it.
    pub async fn server_time(&mut self, system: &SystemInfo) -> Result<SystemTime> {
        let mut stream = self.start_replication(system.flushed, system.timeline).await?;
        stream.send_status(true).await?;
        let time = loop {
            match stream.query.next().await? {
                Some(Event::CopyData(body)) => match FromSender::read(&body)? {
                    FromSender::Wal { sent, .. } | FromSender::Keepalive { sent, .. } => break sent,
                },
                Some(_) => {}
                None => return Err(unexpected("no sign of life")),
            }
        };
        stream.finish().await?;
        Ok(time)
    }

    /// Creates a physical slot that lives as long as this connection and holds the WAL from the last checkpoint on.
    pub async fn temporary_slot(&mut self, name: &str) -> Result<()> {
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
            return Err(Error::new(ErrorKind::Bug, format!("{name:?} is no name of a slot")));
        }
        // The form with words is understood by all of 13 to 18.
        self.command(&format!("CREATE_REPLICATION_SLOT \"{name}\" TEMPORARY PHYSICAL RESERVE_WAL")).await?;
        Ok(())
    }

    /// Streams WAL of a timeline from a position on, which should be the start of a segment. WAL that the server no longer has
    /// is `NotFound` (58P01), here or from [`ReplicationStream::next`].
    pub async fn start_replication(&mut self, start: Lsn, timeline: TimelineId) -> Result<ReplicationStream<'_>> {
        if !self.identified {
            // A standby of 13 learns its own timeline only by that, and refuses otherwise.
            self.identify_system().await?;
        }
        let command = format!("START_REPLICATION PHYSICAL {start} TIMELINE {timeline}");
        let mut query = self.query(&command).await?;
        let mut end = None;
        match query.next().await? {
            Some(Event::CopyBoth) => {}
            // The timeline ended at or before this position: no WAL, only where it goes on.
            Some(Event::Result(result)) => {
                end = Some(next_timeline(&result)?);
                while query.next().await?.is_some() {}
            }
            _ => return Err(unexpected("no copy")),
        }
        Ok(ReplicationStream { query, received: start, flushed: Lsn::INVALID, end, status_due: Instant::now() })
    }
}

/// WAL as it comes. Answers the server's signs of life while [`Self::next`] is waited for.
#[derive(Debug)]
pub struct ReplicationStream<'c> {
    query: Query<'c>,
    received: Lsn,
    flushed: Lsn,
    end: Option<StreamEnd>,
    status_due: Instant,
}

impl ReplicationStream<'_> {
    /// The next piece of WAL, without gap or overlap; `None` at the end, of which [`Self::end`] then tells. May be dropped
    /// while it waits.
    pub async fn next(&mut self) -> Result<Option<Wal>> {
        while self.end.is_none() {
            let Ok(event) = tokio::time::timeout_at(self.status_due, self.query.next()).await else {
                self.send_status(false).await?;
                continue;
            };
            match event? {
                Some(Event::CopyData(body)) => match FromSender::read(&body)? {
                    FromSender::Wal { start, bytes, .. } => return self.wal(start, bytes).map(Some),
                    FromSender::Keepalive { reply: true, .. } => self.send_status(false).await?,
                    FromSender::Keepalive { reply: false, .. } => {}
                },
                Some(Event::CopyDone) => self.end_of_timeline().await?,
                // A server that shuts down completes the command without ending the copy.
                Some(Event::Complete(_)) | None => self.end = Some(StreamEnd::Stopped),
                Some(_) => return Err(unexpected("something else than WAL")),
            }
        }
        Ok(None)
    }

    fn wal(&mut self, start: Lsn, bytes: Bytes) -> Result<Wal> {
        if start != self.received {
            let message = format!("the server sent WAL from {start} where {} was expected", self.received);
            return Err(Error::new(ErrorKind::Protocol, message));
        }
        self.received = Lsn(start.0.saturating_add(bytes.len() as u64));
        Ok(Wal { start, bytes })
    }

    /// Why the stream ended, once it has.
    pub fn end(&self) -> Option<&StreamEnd> {
        self.end.as_ref()
    }

    /// Tells the server that everything before this position is durable here.
    pub async fn confirm(&mut self, flushed: Lsn) -> Result<()> {
        self.flushed = flushed;
        self.send_status(false).await
    }

    /// Ends the stream from our side; the connection is usable afterwards.
    pub async fn finish(mut self) -> Result<()> {
        if self.end.is_none() {
            self.send_copy_done().await?;
            // What the server had sent before it read that is discarded.
            while self.query.next().await?.is_some() {}
        }
        Ok(())
    }

    async fn send_status(&mut self, reply: bool) -> Result<()> {
        let body = status_update(self.received, self.flushed, SystemTime::now(), reply);
        let mut message = BytesMut::new();
        frontend::CopyData::new(body).map_err(super::framing::malformed)?.write(&mut message);
        self.query.send(&message).await?;
        self.status_due = Instant::now() + STATUS_INTERVAL;
        Ok(())
    }

    async fn send_copy_done(&mut self) -> Result<()> {
        let mut message = BytesMut::new();
        frontend::copy_done(&mut message);
        self.query.send(&message).await
    }

    async fn end_of_timeline(&mut self) -> Result<()> {
        self.send_copy_done().await?;
        self.end = Some(StreamEnd::Stopped);
        while let Some(event) = self.query.next().await? {
            if let Event::Result(result) = event {
                self.end = Some(next_timeline(&result)?);
            }
        }
        Ok(())
    }
}

fn next_timeline(result: &ResultSet) -> Result<StreamEnd> {
    let timeline = TimelineId::new(field(result, 0, "next timeline")?).ok_or_else(|| unexpected("timeline 0"))?;
    Ok(StreamEnd::NextTimeline { timeline, start: field(result, 1, "position")? })
}
