//! The proof that a WAL file is not in the archive: what ends a recovery must be beyond doubt.
//!
//! Absence is decided by GET; listings only find what speaks against it. Any trouble with the storage is an error, never a proof.

use super::ClusterIdentity;
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
        self.prove_absent_for(None, name).await
    }

    /// [`Self::prove_absent`] for a cluster that is known here: a repository of another one (`Mismatch`) proves nothing about it.
    pub async fn prove_absent_for(&self, local: Option<&ClusterIdentity>, name: &WalFileName) -> Result<Absence> {
        let found = self.identity().await.map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::Gap => error
                .with_kind(ErrorKind::Config)
                .context(format!("cannot prove that {name} is absent"))
                .hint("this is no repository of the cluster: check bucket and prefix in WALHALLA_STORAGE"),
            _ => error.context(format!("cannot prove that {name} is absent")),
        })?;
        if let Some(local) = local {
            local.compare(&found)?;
        }
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

    /// A key of a listing that fits: the least of the first page that has any.
    async fn first_entry(&self, mut request: ListRequest, fits: impl Fn(&Key) -> bool) -> Result<Option<Key>> {
        loop {
            let page = self.storage.list(&request).await?;
            let fitting = page.entries.into_iter().map(|entry| entry.key).filter(|key| fits(key));
            if let Some(key) = fitting.min() {
                return Ok(Some(key));
            }
            match page.next {
                Some(token) => request.token = Some(token),
                None => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Fault, Personality, Shelf, cluster, identity, object, segment, wal};
    use super::*;
    use crate::storage::Capabilities;
    use std::sync::Arc;

    const FOLDER: &str = "7/wal/00000001/";

    fn shelf(personality: Personality) -> (Arc<Shelf>, Cluster) {
        let shelf = Arc::new(Shelf::new(personality));
        shelf.place("7/cluster.json", identity().to_bytes());
        for number in 1..=5 {
            shelf.place(&format!("{FOLDER}{}", segment(number)), object(number, b"").bytes);
        }
        let cluster = cluster(&shelf);
        (shelf, cluster)
    }

    /// With listings from a key on that are exact, and with ones of which nothing is known.
    fn both() -> [Personality; 2] {
        let inexact = Capabilities { start_after: false, ..Capabilities::ALL };
        [Personality::HONEST, Personality { exact: false, known: Some(inexact), ..Personality::HONEST }]
    }

    fn gap(absence: Absence, part: &str) {
        match absence {
            Absence::Gap(text) => assert!(text.contains(part), "{text}"),
            other => panic!("expected a gap ({part}), not {other:?}"),
        }
    }

    fn unknown(absence: Absence, part: &str) {
        match absence {
            Absence::Unknown(text) => assert!(text.contains(part), "{text}"),
            other => panic!("expected something unknown ({part}), not {other:?}"),
        }
    }

    #[tokio::test]
    async fn the_end_of_the_archive() {
        for personality in both() {
            let (shelf, cluster) = shelf(personality);
            let next = WalFileName::Segment(segment(6));
            // These are no later segments.
            for name in [
                "000000010000000000000007.partial",
                "000000010000000000000007.00000028.backup",
                "00000001000000000000000G",
                "000000010000000000000007-0",
            ] {
                shelf.place(&format!("{FOLDER}{name}"), "x");
            }
            shelf.place("7/wal/00000002/000000020000000000000007", "another timeline's");
            assert_eq!(cluster.prove_absent(&next).await.unwrap(), Absence::Proven);
            assert_eq!(shelf.requests()[..2], ["GET 7/cluster.json".to_owned(), format!("GET {FOLDER}{next}")]);
        }
    }

    #[tokio::test]
    async fn a_hole() {
        for personality in both() {
            let (shelf, cluster) = shelf(personality);
            shelf.remove(&format!("{FOLDER}{}", segment(2)), false);
            let absence = cluster.prove_absent(&WalFileName::Segment(segment(2))).await.unwrap();
            gap(absence, &segment(3).to_string());
            shelf.place(
                &format!(
                    "{FOLDER}{}",
                    SegmentName::at(TimelineId::FIRST, crate::pg::Lsn(1 << 40), crate::pg::SegmentSize::DEFAULT)
                ),
                "far away",
            );
            gap(cluster.prove_absent(&WalFileName::Segment(segment(6))).await.unwrap(), "0000000100000100");
        }
    }

    #[tokio::test]
    async fn a_deleted_one_is_a_gap() {
        let (shelf, cluster) = shelf(Personality::HONEST);
        shelf.remove(&format!("{FOLDER}{}", segment(5)), true);
        gap(cluster.prove_absent(&WalFileName::Segment(segment(5))).await.unwrap(), "delete marker");
    }

    #[tokio::test]
    async fn nothing_is_proven_without_an_identity() {
        let (shelf, cluster) = shelf(Personality::HONEST);
        let next = WalFileName::Segment(segment(6));
        for (content, kind) in [
            (None, ErrorKind::Config),
            (Some("{}"), ErrorKind::Corrupt),
            (Some(""), ErrorKind::Corrupt),
            (Some("{\"format\":2}"), ErrorKind::Config),
        ] {
            shelf.remove("7/cluster.json", true);
            if let Some(content) = content {
                shelf.place("7/cluster.json", content);
            }
            let error = cluster.prove_absent(&next).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{content:?}");
            assert!(error.to_string().contains("cannot prove"), "{error}");
        }
    }

    #[tokio::test]
    async fn nothing_is_proven_about_another_cluster() {
        let (shelf, cluster) = shelf(Personality::HONEST);
        let next = WalFileName::Segment(segment(6));
        let resized =
            ClusterIdentity { wal_segment_size: crate::pg::SegmentSize::new(64 << 20).unwrap(), ..identity() };
        let error = cluster.prove_absent_for(Some(&resized), &next).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Mismatch);
        shelf.requests();
        assert_eq!(cluster.prove_absent_for(Some(&identity()), &next).await.unwrap(), Absence::Proven);
        let reads = shelf.requests().into_iter().filter(|request| request.contains("cluster.json")).count();
        assert_eq!(reads, 1);
    }

    #[tokio::test]
    async fn features_and_tails() {
        let next = WalFileName::Segment(segment(6));
        let (shelf, cluster) = shelf(Personality::HONEST);
        shelf.place("7/feature/incremental", "");
        assert_eq!(cluster.unknown_features().await.unwrap(), ["incremental"]);
        unknown(cluster.prove_absent(&next).await.unwrap(), "incremental");
        shelf.remove("7/feature/incremental", false);

        for (tail, speaks_against) in [
            (format!("00000001/{}/0-8192", segment(5)), false),
            (format!("00000001/{}/0-8192", segment(6)), true),
            (format!("00000001/{}/0-8192", segment(7)), true),
            ("00000002/000000020000000000000006/0-8192".to_owned(), false),
            ("00000001/whatever".to_owned(), true),
            ("whatever".to_owned(), true),
        ] {
            let key = format!("7/tail/{tail}");
            shelf.place(&key, "x");
            let absence = cluster.prove_absent(&next).await.unwrap();
            if speaks_against {
                unknown(absence, &tail);
            } else {
                assert_eq!(absence, Absence::Proven, "{tail}");
            }
            shelf.remove(&key, false);
        }
        shelf.place("7/tail/00000002/000000020000000000000006/0-8192", "x");
        unknown(cluster.prove_absent(&wal("00000002.history")).await.unwrap(), "tail");
        assert_eq!(cluster.prove_absent(&wal("00000003.history")).await.unwrap(), Absence::Proven);
    }

    #[tokio::test]
    async fn histories() {
        let (shelf, cluster) = shelf(Personality::HONEST);
        assert_eq!(cluster.prove_absent(&wal("00000002.history")).await.unwrap(), Absence::Proven);
        shelf.place("7/wal/00000002/000000020000000000000006.partial", "no segment");
        assert_eq!(cluster.prove_absent(&wal("00000002.history")).await.unwrap(), Absence::Proven);
        shelf.place("7/wal/00000002/000000020000000000000006", "x");
        gap(cluster.prove_absent(&wal("00000002.history")).await.unwrap(), "000000020000000000000006");
        assert_eq!(cluster.prove_absent(&wal("00000003.history")).await.unwrap(), Absence::Proven);
        shelf.place("7/wal/0000000A/0000000A.history", "x");
        gap(cluster.prove_absent(&wal("00000003.history")).await.unwrap(), "timeline 10");
        assert_eq!(cluster.prove_absent(&wal("0000000B.history")).await.unwrap(), Absence::Proven);
    }

    #[tokio::test]
    async fn partial_and_backup() {
        let (_shelf, cluster) = shelf(Personality::HONEST);
        for name in ["000000010000000000000002.partial", "000000010000000000000002.00000028.backup"] {
            assert_eq!(cluster.prove_absent(&wal(name)).await.unwrap(), Absence::Proven);
        }
    }

    #[tokio::test]
    async fn one_that_came_meanwhile_is_no_answer() {
        let (_shelf, cluster) = shelf(Personality::HONEST);
        let error = cluster.prove_absent(&WalFileName::Segment(segment(5))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }

    #[tokio::test]
    async fn trouble_at_any_step_proves_nothing() {
        for (name, faults) in [
            (
                format!("{}", segment(6)),
                &[("GET", "cluster.json"), ("GET", FOLDER), ("LIST", "feature/"), ("LIST", "tail/"), ("LIST", FOLDER)]
                    [..],
            ),
            ("00000002.history".to_owned(), &[("LIST", "7/wal/"), ("LIST", "7/wal/00000002/")]),
        ] {
            for (operation, key) in faults {
                for kind in [
                    StorageErrorKind::Unavailable,
                    StorageErrorKind::Throttled,
                    StorageErrorKind::Denied,
                    StorageErrorKind::Config,
                    StorageErrorKind::LocalIo,
                ] {
                    let (shelf, cluster) = shelf(Personality::HONEST);
                    shelf.fault(operation, key, Fault::Fail(kind));
                    let answer = cluster.prove_absent(&wal(&name)).await;
                    assert!(answer.is_err(), "{name}: {kind:?} at {operation} {key}: {answer:?}");
                    assert_ne!(answer.unwrap_err().kind(), ErrorKind::NotFound);
                }
            }
        }
    }
}
