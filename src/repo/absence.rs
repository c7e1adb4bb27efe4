//! The proof that a WAL file is not in the archive: what ends a recovery must be beyond doubt.
//!
//! Absence is decided by GET; listings only find what speaks against it. Any trouble with the storage is an error, never a proof.

use super::repository::Cluster;
use crate::error::{Error, ErrorKind, Result};
use crate::pg::{SegmentName, TimelineId, WalFileName};
use crate::storage::{Key, ListRequest, StorageErrorKind};

/// The features (`feature/<name>`) that this version knows how to read around.
const KNOWN_FEATURES: [&str; 0] = [];

/// What became of the proof that a WAL file is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Absence {
    /// It is not in the archive, nothing behind it is, and nothing speaks against that.
    Proven,
    /// It is missing while something later exists: a hole. The text names what was found.
    Gap(String),
    /// A feature or object that this version does not know: nothing is proven. The text names it.
    Unknown(String),
}

impl Cluster {
    /// The full proof that a WAL file is absent from the archive: identity, key, features, tails, later segments or timelines.
    ///
    /// A repository without `cluster.json` proves nothing: `Config`. A file that has come meanwhile is `Unavailable`: fetch it.
    /// `00000001.history` never exists; that is the caller's to know.
    pub async fn prove_absent(&self, name: &WalFileName) -> Result<Absence> {
        self.identity().await.map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::Gap => error
                .with_kind(ErrorKind::Config)
                .context(format!("cannot prove that {name} is absent"))
                .hint("this is no repository of the cluster: check bucket and prefix in WALHALLA_STORAGE"),
            _ => error.context(format!("cannot prove that {name} is absent")),
        })?;
        if let Some(deleted) = self.missing(name).await? {
            return Ok(deleted);
        }
        if let Some(feature) = self.unknown_features().await?.first() {
            return Ok(Absence::Unknown(format!(
                "the repository uses the feature {feature:?}, which this version does not know"
            )));
        }
        if let Some(tail) = self.tail_behind(name).await? {
            return Ok(Absence::Unknown(format!("{tail} holds streamed WAL, which this version cannot read")));
        }
        let later = match name {
            WalFileName::Segment(segment) => self.later_segment(*segment).await?,
            WalFileName::History(timeline) => self.later_than_history(*timeline).await?,
            // Nobody's recovery depends on these two, and later files say nothing about them.
            WalFileName::Partial(_) | WalFileName::BackupHistory { .. } => None,
        };
        Ok(later.map_or(Absence::Proven, |found| Absence::Gap(format!("{name} is missing, but {found}"))))
    }

    /// The features of the repository that this version does not know, sorted. Where there is one, nothing is proven absent.
    pub async fn unknown_features(&self) -> Result<Vec<String>> {
        let folder = self.layout.features();
        let entries = crate::storage::list_all(self.storage.as_ref(), &folder).await?;
        let names = entries.iter().filter_map(|entry| entry.key.as_str().strip_prefix(&folder));
        Ok(names.filter(|name| !KNOWN_FEATURES.contains(name)).map(str::to_owned).collect())
    }

    /// `None` when the store says that there is no such key and never was; a gap when it was deleted.
    async fn missing(&self, name: &WalFileName) -> Result<Option<Absence>> {
        let key = self.layout.wal(name);
        match self.storage.get(&key, None).await {
            Ok(_) => Err(Error::new(ErrorKind::Unavailable, format!("{} has come meanwhile", self.place(&key)))
                .hint("fetch it again")),
            Err(error) => match error.kind {
                StorageErrorKind::NotFound { deleted: false } => Ok(None),
                StorageErrorKind::NotFound { deleted: true } => Ok(Some(Absence::Gap(format!(
                    "{} was deleted: the bucket answers with a delete marker",
                    self.place(&key)
                )))),
                _ => Err(error.into()),
            },
        }
    }

    /// A streamed tail at or after the name, or one whose place cannot be told.
    async fn tail_behind(&self, name: &WalFileName) -> Result<Option<Key>> {
        let folder = self.layout.all_tails();
        let speaks_against = |key: &Key| {
            let mut parts = key.as_str().strip_prefix(&folder).unwrap_or_default().split('/');
            let timeline = parts.next().and_then(|part| TimelineId::from_hex(part).ok());
            let segment = parts.next().and_then(|part| part.parse::<SegmentName>().ok());
            let (Some(timeline), Some(segment)) = (timeline, segment) else { return true };
            match name {
                WalFileName::History(asked) => timeline >= *asked,
                WalFileName::Segment(asked) => timeline == asked.timeline() && segment >= *asked,
                WalFileName::Partial(_) | WalFileName::BackupHistory { .. } => false,
            }
        };
        self.first_entry(ListRequest::prefix(folder.clone()), speaks_against).await
    }

    /// What is known of segments behind this one on its timeline.
    async fn later_segment(&self, asked: SegmentName) -> Result<Option<String>> {
        let folder = self.layout.wal_of(asked.timeline());
        if self.known_capabilities().start_after {
            let request = ListRequest {
                start_after: Some(self.layout.wal(&WalFileName::Segment(asked))),
                ..ListRequest::prefix(folder)
            };
            let is_later = |key: &Key| key.name().parse::<SegmentName>().is_ok_and(|name| name > asked);
            let found = self.first_entry(request, is_later).await?;
            return Ok(found.map(|key| format!("{} is there", key.name())));
        }
        let mut first = None;
        let mut count = 0_u64;
        self.each_segment(asked.timeline(), None, |name| {
            if name > asked {
                count += 1;
                first = Some(first.map_or(name, |other: SegmentName| other.min(name)));
            }
        })
        .await?;
        Ok(first.map(|name| format!("{name} is there ({count} later in all)")))
    }

    /// What speaks for a timeline whose history file is missing: segments of it, or a later timeline.
    async fn later_than_history(&self, asked: TimelineId) -> Result<Option<String>> {
        let timelines = self.timelines().await?;
        if let Some(later) = timelines.iter().find(|timeline| **timeline > asked) {
            return Ok(Some(format!("timeline {later} is there")));
        }
        let is_segment = |key: &Key| key.name().parse::<SegmentName>().is_ok();
        let found = self.first_entry(ListRequest::prefix(self.layout.wal_of(asked)), is_segment).await?;
        Ok(found.map(|key| format!("its segment {} is there", key.name())))
    }

    /// The first key of a listing, in the order in which the store lists, that fits.
    async fn first_entry(&self, mut request: ListRequest, fits: impl Fn(&Key) -> bool) -> Result<Option<Key>> {
        loop {
            let page = self.storage.list(&request).await?;
            if let Some(entry) = page.entries.into_iter().find(|entry| fits(&entry.key)) {
                return Ok(Some(entry.key));
            }
            match page.next {
                Some(token) => request.token = Some(token),
                None => return Ok(None),
            }
        }
    }
}
