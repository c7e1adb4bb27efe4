//! A WAL file made into its object, beside the runtime: deadlines are watched meanwhile.

use super::source::Source;
use crate::codec::{self, Encoded, Encoding};
use crate::config::Settings;
use crate::error::{Error, ErrorKind, Result};

/// Reads, hashes and compresses the file in one pass, on this many threads. It begins with the call, not with the first poll.
pub(super) fn encode(
    source: Source,
    settings: &Settings,
    threads: u32,
) -> impl Future<Output = Result<Encoded>> + use<> {
    let (length, subject) = (source.length, source.subject);
    // Where there is hardly anything to compress, a second thread costs more than it brings.
    let threads = if source.ends_in_zeros() { 1 } else { threads };
    let encoding = Encoding { level: settings.compression_level, recipients: settings.recipients.clone() };
    let work = tokio::task::spawn_blocking(move || {
        codec::encode_beside(&mut source.into_reader(), length, subject, &encoding, threads)
    });
    async { work.await.map_err(|cause| Error::new(ErrorKind::Bug, "cannot encode the file").because(cause))? }
}
