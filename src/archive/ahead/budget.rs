//! How much may go ahead at once: requests, processors, memory.

use crate::codec::Encoded;
use crate::error::{Error, ErrorKind, Result};
use crate::pg::SegmentSize;
use crate::repo::Cluster;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What files ahead may take together, above what the call's own file takes.
const MEMORY: u64 = 64 << 20;
/// The unit in which it is counted out.
const UNIT: u64 = 1 << 10;
/// What an object may be longer than its file, where nothing compresses: zstd's blocks, age's chunks, the headers.
const OVERHEAD: u64 = 256 << 10;

/// What is left to go ahead with.
#[derive(Debug)]
pub(super) struct Budget {
    requests: Arc<Semaphore>,
    processors: Arc<Semaphore>,
    memory: Arc<Semaphore>,
    /// What one file may need until it is compressed.
    most: u32,
    /// In how many copies an object may be in memory at once.
    copies: u64,
}

/// One file's share.
#[derive(Debug)]
pub(super) struct Share {
    _request: OwnedSemaphorePermit,
    processor: Option<OwnedSemaphorePermit>,
    memory: OwnedSemaphorePermit,
    copies: u64,
}

impl Budget {
    /// The budget of a call. `None` where not even one file ahead fits. Where the storage is not known to verify what it receives,
    /// each object is read back, and is in memory twice.
    ///
    /// One processor is left to the call's own file until [`Self::own_is_encoded`].
    pub(super) fn new(requests: usize, size: SegmentSize, level: i32, reads_back: bool) -> Option<Self> {
        let copies = if reads_back { 2 } else { 1 };
        let most = (size.bytes() + OVERHEAD) * copies + compressor(level);
        if requests == 0 || most > MEMORY {
            return None;
        }
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Some(Self {
            requests: Arc::new(Semaphore::new(requests)),
            processors: Arc::new(Semaphore::new(processors - 1)),
            memory: Arc::new(Semaphore::new(units(MEMORY) as usize)),
            most: units(most),
            copies,
        })
    }

    /// The call's own file needs no processor any more.
    pub(super) fn own_is_encoded(&self) {
        self.processors.add_permits(1);
    }

    /// Waits for its turn; whoever comes first, goes first.
    pub(super) async fn share(&self) -> Result<Share> {
        let closed = |cause| Error::new(ErrorKind::Bug, "a budget is closed").because(cause);
        let request = Arc::clone(&self.requests).acquire_owned().await.map_err(closed)?;
        let memory = Arc::clone(&self.memory).acquire_many_owned(self.most).await.map_err(closed)?;
        let processor = Arc::clone(&self.processors).acquire_owned().await.map_err(closed)?;
        Ok(Share { _request: request, processor: Some(processor), memory, copies: self.copies })
    }
}

impl Share {
    /// Gives back what the file did not need, now that it is compressed.
    pub(super) fn settle_for(&mut self, object: &Encoded) {
        self.processor = None;
        let needed = units(object.bytes.len() as u64 * self.copies) as usize;
        let surplus = self.memory.num_permits().saturating_sub(needed);
        drop(self.memory.split(surplus));
    }
}

/// Whether each object is read back after it was stored. `None`: nothing should go ahead there. A put that is given up may leave
/// part of an object on a bad store; where it can neither be replaced nor passed over, its file would be stuck.
pub(super) async fn reads_back(cluster: &Cluster) -> Result<Option<bool>> {
    let known = cluster.capabilities().await?;
    let can_mend = !known.create_only || known.if_match;
    Ok(can_mend.then_some(!(known.create_only && known.verifies_integrity)))
}

/// What zstd takes for itself at this level (measured; a test holds it).
fn compressor(level: i32) -> u64 {
    match level {
        ..=5 => 8 << 20,
        6..=9 => 20 << 20,
        _ => 128 << 20,
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{self, Encoding, Kind, Recipients, Subject};
    use crate::pg::{Lsn, SystemIdentifier};

    fn budget(mib: u64, level: i32, reads_back: bool) -> Option<Budget> {
        Budget::new(7, SegmentSize::new(mib << 20).unwrap(), level, reads_back)
    }

    #[test]
    fn large_segments_and_thorough_compression_go_alone() {
        for (mib, level, reads_back, goes) in [
            (1, 3, false, true),
            (16, 3, true, true),
            (16, 9, false, true),
            (32, 3, false, true),
            (32, 3, true, false),
            (64, 3, false, false),
            (1024, 3, false, false),
            (16, 19, false, false),
        ] {
            assert_eq!(budget(mib, level, reads_back).is_some(), goes, "{mib} MiB, level {level}, {reads_back}");
        }
        assert!(Budget::new(0, SegmentSize::DEFAULT, 3, false).is_none());
    }

    #[tokio::test]
    async fn reserved_by_the_worst_case_and_held_by_the_real_size() {
        let budget = budget(16, 3, false).unwrap();
        budget.processors.add_permits(100);
        let free = || budget.memory.available_permits() as u64 * UNIT;
        let mut shares = vec![budget.share().await.unwrap(), budget.share().await.unwrap()];
        assert!(free() < 24 << 20, "no third one fits: {}", free());
        let subject = Subject { kind: Kind::Wal, system_identifier: SystemIdentifier(7), timeline: 1, start: Lsn(0) };
        let encoding = Encoding { level: 3, recipients: Recipients::default() };
        let object = codec::encode_bytes(&vec![0; 16 << 20], subject, &encoding).unwrap();
        for share in &mut shares {
            share.settle_for(&object);
        }
        assert!(free() > 63 << 20, "{}", free());
        // All seven at once, where they compress well.
        for _ in 0..5 {
            let mut share = budget.share().await.unwrap();
            share.settle_for(&object);
            shares.push(share);
        }
        assert_eq!(budget.requests.available_permits(), 0);
        drop(shares);
        assert_eq!((free(), budget.requests.available_permits()), (MEMORY, 7));
    }

    #[test]
    fn what_zstd_takes() {
        for level in 1..=9 {
            let mut context = zstd::zstd_safe::CCtx::create();
            context.set_parameter(zstd::zstd_safe::CParameter::CompressionLevel(level)).unwrap();
            context.set_pledged_src_size(Some(1 << 30)).unwrap();
            let (plain, mut target) = (vec![0; 4 << 20], vec![0; 1 << 20]);
            let mut output = zstd::zstd_safe::OutBuffer::around(&mut target[..]);
            let mut input = zstd::zstd_safe::InBuffer::around(&plain);
            context
                .compress_stream2(
                    &mut output,
                    &mut input,
                    zstd::zstd_safe::zstd_sys::ZSTD_EndDirective::ZSTD_e_continue,
                )
                .unwrap();
            let taken = context.sizeof() as u64;
            assert!(taken <= compressor(level), "level {level} takes {taken} bytes");
        }
    }
}
