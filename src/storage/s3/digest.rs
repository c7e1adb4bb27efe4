//! What a put says of its body: the integrity header, and the hash that is signed.
//!
//! Both cover the object from its first byte, and its first bytes are a header with the hash of the plain file, which is known
//! when the last byte was read. So they cannot be made while the object is; they are made side by side instead, and MD5, the
//! slower, decides how long that takes.

use crate::storage::Integrity;
use base64::Engine;
use bytes::Bytes;
use md5::{Digest, Md5};
use sha2::Sha256;

/// Bodies below this are hashed on the spot: another thread would take longer to begin.
const SMALL: usize = 128 << 10;

/// The digests of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Digests {
    /// `Content-MD5`: of the body, or, where that was asked for, of other bytes.
    pub(super) md5: String,
    /// The signed `x-amz-content-sha256`, always the body's own.
    pub(super) sha256: String,
}

impl Digests {
    /// Those of this body.
    pub(super) async fn of(body: &Bytes, integrity: Integrity) -> Self {
        if body.len() < SMALL {
            return Self { md5: md5(body, integrity), sha256: sha256(body) };
        }
        let (one, other) = (body.clone(), body.clone());
        let md5_of = tokio::task::spawn_blocking(move || md5(&one, integrity));
        let sha256_of = tokio::task::spawn_blocking(move || sha256(&other));
        let (md5_of, sha256_of) = tokio::join!(md5_of, sha256_of);
        // A thread that could not do it: then this one does.
        Self {
            md5: md5_of.unwrap_or_else(|_| md5(body, integrity)),
            sha256: sha256_of.unwrap_or_else(|_| sha256(body)),
        }
    }
}

fn md5(body: &[u8], integrity: Integrity) -> String {
    let mut digest = Md5::new();
    digest.update(body);
    if integrity == Integrity::WrongOnPurpose {
        digest.update(b"and something that is not sent");
    }
    base64::engine::general_purpose::STANDARD.encode(digest.finalize())
}

fn sha256(body: &[u8]) -> String {
    Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn digests_of_small_and_large_bodies() {
        let abc = Digests::of(&Bytes::from_static(b"abc"), Integrity::Sound).await;
        assert_eq!(abc.md5, "kAFQmDzST7DWlj99KOF/cg==");
        assert_eq!(abc.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let large = Bytes::from(vec![b'a'; 1_000_000]);
        let sound = Digests::of(&large, Integrity::Sound).await;
        assert_eq!(sound.md5, "dwfWrk4CfHDuoqk1wilvIQ==");
        assert_eq!(sound.sha256, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
        for body in [large, Bytes::from_static(b"abc")] {
            let sound = Digests::of(&body, Integrity::Sound).await;
            let wrong = Digests::of(&body, Integrity::WrongOnPurpose).await;
            assert_eq!(sound.sha256, wrong.sha256);
            assert_ne!(sound.md5, wrong.md5);
        }
    }
}
