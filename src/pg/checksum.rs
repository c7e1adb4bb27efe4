//! The checksums that `backup_manifest` gives to files (`common/checksum_helper.c`).

use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use std::fmt;

/// How a file's checksum was computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChecksumAlgorithm {
    /// CRC-32C, the default.
    Crc32c,
    /// SHA-224.
    Sha224,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl ChecksumAlgorithm {
    const NAMES: [(Self, &str); 5] = [
        (Self::Crc32c, "CRC32C"),
        (Self::Sha224, "SHA224"),
        (Self::Sha256, "SHA256"),
        (Self::Sha384, "SHA384"),
        (Self::Sha512, "SHA512"),
    ];

    /// Its name in BASE_BACKUP and in the manifest. (`NONE` is the absence of a checksum.)
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(algorithm, _)| *algorithm == self).map_or("CRC32C", |(_, name)| name)
    }

    /// The algorithm of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(algorithm, _)| *algorithm)
    }

    /// Length of its digest in bytes.
    pub fn digest_len(self) -> usize {
        match self {
            Self::Crc32c => 4,
            Self::Sha224 => 28,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

/// A file's checksum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChecksum {
    /// How it was computed.
    pub algorithm: ChecksumAlgorithm,
    /// The digest; a CRC-32C as its four bytes lie in memory, lowest first.
    pub digest: Vec<u8>,
}

impl FileChecksum {
    /// The checksum of these bytes.
    pub fn of(algorithm: ChecksumAlgorithm, bytes: &[u8]) -> Self {
        let mut hasher = FileHasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }
}

impl fmt::Display for FileChecksum {
    /// Lower-case hexadecimal digits, as in the manifest.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.digest.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Computes a file's checksum while it flows past.
#[derive(Debug, Clone)]
pub struct FileHasher(Inner);

#[derive(Debug, Clone)]
enum Inner {
    Crc32c(u32),
    Sha224(Sha224),
    Sha256(Sha256),
    Sha384(Sha384),
    Sha512(Sha512),
}

impl FileHasher {
    /// A hasher that has seen nothing.
    pub fn new(algorithm: ChecksumAlgorithm) -> Self {
        Self(match algorithm {
            ChecksumAlgorithm::Crc32c => Inner::Crc32c(0),
            ChecksumAlgorithm::Sha224 => Inner::Sha224(Sha224::new()),
            ChecksumAlgorithm::Sha256 => Inner::Sha256(Sha256::new()),
            ChecksumAlgorithm::Sha384 => Inner::Sha384(Sha384::new()),
            ChecksumAlgorithm::Sha512 => Inner::Sha512(Sha512::new()),
        })
    }

    /// Takes the next bytes of the file.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Inner::Crc32c(crc) => *crc = crc32c::crc32c_append(*crc, bytes),
            Inner::Sha224(sha) => sha.update(bytes),
            Inner::Sha256(sha) => sha.update(bytes),
            Inner::Sha384(sha) => sha.update(bytes),
            Inner::Sha512(sha) => sha.update(bytes),
        }
    }

    /// The checksum of all that was taken.
    pub fn finish(self) -> FileChecksum {
        use ChecksumAlgorithm as A;
        let (algorithm, digest) = match self.0 {
            Inner::Crc32c(crc) => (A::Crc32c, crc.to_le_bytes().to_vec()),
            Inner::Sha224(sha) => (A::Sha224, sha.finalize().to_vec()),
            Inner::Sha256(sha) => (A::Sha256, sha.finalize().to_vec()),
            Inner::Sha384(sha) => (A::Sha384, sha.finalize().to_vec()),
            Inner::Sha512(sha) => (A::Sha512, sha.finalize().to_vec()),
        };
        FileChecksum { algorithm, digest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_postgres_prints() {
        // CRC-32C of "123456789" is e3069283; in memory the lowest byte comes first.
        assert_eq!(FileChecksum::of(ChecksumAlgorithm::Crc32c, b"123456789").to_string(), "839206e3");
        // An empty file.
        assert_eq!(FileChecksum::of(ChecksumAlgorithm::Crc32c, b"").to_string(), "00000000");
        let sha = FileChecksum::of(ChecksumAlgorithm::Sha256, b"abc").to_string();
        assert_eq!(sha, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn names_and_lengths() {
        for (algorithm, name) in ChecksumAlgorithm::NAMES {
            assert_eq!((algorithm.name(), ChecksumAlgorithm::of_name(name)), (name, Some(algorithm)));
            let mut pieces = FileHasher::new(algorithm);
            pieces.update(b"a");
            pieces.update(b"bc");
            let whole = FileChecksum::of(algorithm, b"abc");
            assert_eq!(pieces.finish(), whole);
            assert_eq!(whole.digest.len(), algorithm.digest_len());
        }
        for name in ["", "NONE", "crc32c", "MD5"] {
            assert_eq!(ChecksumAlgorithm::of_name(name), None);
        }
    }
}
