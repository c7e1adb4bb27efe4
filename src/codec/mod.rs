//! Plain bytes to stored objects and back (`docs/format.md`).
//!
//! An object proves on its own what it is: a header in the clear inside a zstd skippable frame (magic, version, flags, kind,
//! system identifier, timeline, start position, plain length, BLAKE3-256 of the plain bytes, CRC-32 of itself), then the
//! payload: zstd frames, or an `age` file of them. Nothing else about an object is ever believed.

pub mod crypt;
pub mod decode;
pub mod encode;
pub mod frames;
pub mod header;

pub use crypt::{Identities, Recipients};
pub use decode::{decode, header_of, plain_of, unseal, verify};
pub use encode::{Encoded, Encoding, encode, encode_beside, encode_bytes, seal};
pub use frames::{FRAME_PLAIN_MAX, FrameEncoder, decode_frame, encode_frame};
pub use header::{ContentHash, HEADER_LEN, Kind, ObjectHeader, PayloadSeal, Subject};

/// What is wrong with an object. Each is told apart and named.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Defect {
    /// Not a byte.
    #[error("the object is empty")]
    Empty,
    /// It does not begin with our magic: something else's file.
    #[error("the object is not one of Walhalla's")]
    Foreign,
    /// It ends before its header does.
    #[error("the object ends inside its header, after {0} bytes")]
    HeaderTruncated(usize),
    /// The header's own checksum does not fit.
    #[error("the object's header is damaged")]
    HeaderDamaged,
    /// A format version, kind or flag that this program does not know.
    #[error("the object has format version {version}, kind {kind}, flags {flags:#x}, which this version cannot read")]
    UnknownFormat {
        /// The header's version.
        version: u8,
        /// The header's kind.
        kind: u8,
        /// The header's flags.
        flags: u16,
    },
    /// The payload ends early.
    #[error("the object is cut short")]
    Truncated,
    /// The payload cannot be decompressed or decrypted, or its hash or length differs from the header's.
    #[error("the object's payload is damaged: {0}")]
    PayloadDamaged(String),
    /// There are bytes behind the payload.
    #[error("the object has {0} bytes too many")]
    TrailingBytes(u64),
    /// Encrypted, and no identity at hand opens it.
    #[error("the object is encrypted and none of the given identities opens it")]
    NoIdentity,
}

impl From<Defect> for crate::error::Error {
    fn from(defect: Defect) -> Self {
        use crate::error::{Error, ErrorKind};
        match defect {
            Defect::NoIdentity => {
                Error::new(ErrorKind::Config, defect.to_string()).hint("give the age identity with WALHALLA_IDENTITY")
            }
            Defect::UnknownFormat { .. } => {
                Error::new(ErrorKind::Config, defect.to_string()).hint("use a newer version of Walhalla")
            }
            _ => Error::new(ErrorKind::Corrupt, defect.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
