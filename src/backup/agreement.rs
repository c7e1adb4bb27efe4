//! Whether what was hashed as it flowed past is what Postgres says it sent.
//!
//! The manifest comes last, so our list would have to be kept; a million files need 100 MB of names. What is kept instead is
//! the sum of a hash of each entry, which is equal on both sides if and only if both hold the same files, in whatever order.
//! The names themselves are kept as long as they are few, to say which file it was.

use crate::error::{Error, ErrorKind, Result};
use crate::pg::{ChecksumAlgorithm, ManifestFile};
use std::collections::HashMap;

/// A regular file of the backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File {
    /// Below the data directory; of a tablespace, below `pg_tblspc/<oid>/`.
    pub(super) path: Vec<u8>,
    pub(super) size: u64,
    pub(super) crc32c: u32,
}

impl File {
    /// As Postgres describes it; `None` without the CRC-32C that was asked for.
    pub(super) fn theirs(file: ManifestFile) -> Option<Self> {
        let checksum = file.checksum.filter(|checksum| checksum.algorithm == ChecksumAlgorithm::Crc32c)?;
        // The four bytes as they lie in memory, lowest first.
        let crc32c = u32::from_le_bytes(checksum.digest.try_into().ok()?);
        Some(Self { path: file.path, size: file.size, crc32c })
    }
}

/// How many bytes of names are kept.
const NAMES_KEPT: usize = 8 << 20;

/// The sum of the hashes of a side's entries, and how many they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Side {
    files: u64,
    sum: [u64; 4],
}

impl Side {
    fn add(&mut self, file: &File) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&file.size.to_le_bytes()).update(&file.crc32c.to_le_bytes()).update(&file.path);
        let hash = hasher.finalize();
        for (sum, part) in self.sum.iter_mut().zip(hash.as_bytes().as_chunks::<8>().0) {
            *sum = sum.wrapping_add(u64::from_le_bytes(*part));
        }
        self.files += 1;
    }
}

/// The comparison.
#[derive(Debug, Default)]
pub(super) struct Agreement {
    ours: Side,
    theirs: Side,
    /// Our files that theirs have not matched yet, while they are few.
    names: HashMap<Vec<u8>, (u64, u32)>,
    kept: usize,
    /// The first disagreement that could be named.
    first: Option<String>,
}

impl Agreement {
    /// A file that has flowed past.
    pub(super) fn ours(&mut self, file: File) {
        self.ours.add(&file);
        self.kept += file.path.len() + 64;
        if self.kept <= NAMES_KEPT {
            self.names.insert(file.path, (file.size, file.crc32c));
        } else {
            self.names = HashMap::new();
        }
    }

    /// A file of the manifest.
    pub(super) fn theirs(&mut self, file: &File) {
        self.theirs.add(file);
        if self.kept > NAMES_KEPT {
            return;
        }
        let File { path, size, crc32c } = file;
        let known = self.names.remove(path);
        let path = String::from_utf8_lossy(path);
        let disagreement = match known {
            Some((our_size, _)) if our_size != *size => {
                Some(format!("{path} came with {our_size} bytes instead of {size}"))
            }
            Some((_, our_crc)) if our_crc != *crc32c => {
                Some(format!("{path} came with CRC-32C {our_crc:08x} instead of {crc32c:08x}"))
            }
            Some(_) => None,
            None => Some(format!("{path} did not come")),
        };
        self.first = self.first.take().or(disagreement);
    }

    /// How many files flowed past.
    pub(super) fn files(&self) -> u64 {
        self.ours.files
    }

    /// The verdict, once the manifest has ended.
    pub(super) fn verdict(self) -> Result<()> {
        if self.ours == self.theirs {
            return Ok(());
        }
        let (ours, theirs) = (self.ours.files, self.theirs.files);
        let unlisted = self.names.keys().min();
        let unlisted = unlisted.map(|path| format!("{} is not in it", String::from_utf8_lossy(path)));
        let which = self.first.or(unlisted);
        let which = which.unwrap_or_else(|| format!("{ours} files came, {theirs} are in it"));
        Err(Error::new(
            ErrorKind::Corrupt,
            format!("what the server sent is not what its backup_manifest says: {which}"),
        )
        .hint("the data was damaged on the way; take the backup again, and check the network and this host's memory if it recurs"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, size: u64, crc32c: u32) -> File {
        File { path: path.as_bytes().to_vec(), size, crc32c }
    }

    fn verdict(ours: &[File], theirs: &[File]) -> Result<(), String> {
        let mut agreement = Agreement::default();
        ours.iter().for_each(|file| agreement.ours(file.clone()));
        theirs.iter().for_each(|file| agreement.theirs(file));
        agreement.verdict().map_err(|error| error.to_string())
    }

    #[test]
    fn equal_in_any_order_and_named_otherwise() {
        let (a, b, c) = (file("a", 1, 10), file("b", 2, 20), file("c", 3, 30));
        assert_eq!(verdict(&[], &[]), Ok(()));
        assert_eq!(verdict(&[a.clone(), b.clone(), c.clone()], &[c.clone(), a.clone(), b.clone()]), Ok(()));
        for (ours, theirs, named) in [
            (vec![a.clone(), b.clone()], vec![a.clone(), file("b", 2, 21)], "b came with CRC-32C 00000014"),
            (vec![a.clone(), b.clone()], vec![a.clone(), file("b", 3, 20)], "b came with 2 bytes"),
            (vec![a.clone()], vec![a.clone(), b.clone()], "b did not come"),
            (vec![a.clone(), b.clone()], vec![a.clone()], "b is not in it"),
            (vec![a.clone(), a.clone()], vec![a.clone()], "2 files came"),
        ] {
            assert!(verdict(&ours, &theirs).unwrap_err().contains(named));
        }
    }

    #[test]
    fn many_files_in_little_memory() {
        let mut agreement = Agreement::default();
        let name = |i: u32| file(&format!("base/5/{}{i}", "x".repeat(100)), 8192, i);
        (0..60_000).for_each(|i| agreement.ours(name(i)));
        assert!(agreement.names.is_empty());
        (0..60_000).for_each(|i| agreement.theirs(&name(i)));
        assert!(agreement.verdict().is_ok());
        let mut agreement = Agreement::default();
        (0..60_000).for_each(|i| agreement.ours(name(i)));
        (1..60_001).for_each(|i| agreement.theirs(&name(i)));
        assert!(agreement.verdict().is_err());
    }
}
