//! What a server's certificate says, where rustls does not tell or is stricter than libpq's OpenSSL.
//!
//! Certificates made by the recipe in Postgres' own manual are X.509 version 1 with current OpenSSL, a self-signed one is its
//! own authority, and many servers are named in the common name only: libpq accepts all of these.

use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use std::time::Duration;
use tokio_rustls::rustls::pki_types::SignatureVerificationAlgorithm;
use x509_cert::certificate::Version;
use x509_cert::der::asn1::{Ia5StringRef, PrintableStringRef, Utf8StringRef};
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::oid::db::rfc4519::COMMON_NAME;
use x509_cert::der::{Decode, Encode, Tag, Tagged};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// A certificate, read.
pub(super) struct Certificate(x509_cert::Certificate);

impl Certificate {
    pub(super) fn read(der: &[u8]) -> Option<Self> {
        x509_cert::Certificate::from_der(der).ok().map(Self)
    }

    /// Version 1: without extensions, and refused by webpki.
    pub(super) fn is_version_1(&self) -> bool {
        self.0.tbs_certificate.version == Version::V1
    }

    /// Whether this moment, since 1970, lies within its validity.
    pub(super) fn is_valid_at(&self, now: Duration) -> bool {
        let validity = &self.0.tbs_certificate.validity;
        (validity.not_before.to_unix_duration()..=validity.not_after.to_unix_duration()).contains(&now)
    }

    /// The public key's algorithm and bits, as DER.
    pub(super) fn public_key_info(&self) -> Option<Vec<u8>> {
        self.0.tbs_certificate.subject_public_key_info.to_der().ok()
    }

    /// Whether the holder of `issuer` signed this certificate, by one of these algorithms.
    pub(super) fn is_signed_by(&self, issuer: &Self, algorithms: &[&dyn SignatureVerificationAlgorithm]) -> bool {
        let (ours, theirs) = (&self.0.tbs_certificate, &issuer.0.tbs_certificate);
        let (Ok(signed), Some(signature)) = (ours.to_der(), self.0.signature.as_bytes()) else { return false };
        ours.issuer == theirs.subject
            && algorithms.iter().any(|algorithm| {
                content(self.0.signature_algorithm.to_der().ok()).as_deref()
                    == Some(algorithm.signature_alg_id().as_ref())
                    && issuer.verifies(&signed, signature, *algorithm)
            })
    }

    /// Whether its key made this signature by this algorithm.
    pub(super) fn verifies(
        &self,
        message: &[u8],
        signature: &[u8],
        algorithm: &dyn SignatureVerificationAlgorithm,
    ) -> bool {
        let key = &self.0.tbs_certificate.subject_public_key_info;
        let fits = content(key.algorithm.to_der().ok()).as_deref() == Some(algorithm.public_key_alg_id().as_ref());
        let bits = key.subject_public_key.as_bytes();
        fits && bits.is_some_and(|bits| algorithm.verify_signature(bits, message, signature).is_ok())
    }

    /// Whether its common name is this host's. Counts only where it has no DNS names of its own (`pgtls_verify_peer_name…`).
    pub(super) fn common_name_fits(&self, host: &str) -> bool {
        !self.has_dns_names() && self.common_name().is_some_and(|name| name_fits(&name, host))
    }

    fn has_dns_names(&self) -> bool {
        let names = self.0.tbs_certificate.get::<SubjectAltName>().ok().flatten();
        names.is_some_and(|(_, names)| names.0.iter().any(|name| matches!(name, GeneralName::DnsName(_))))
    }

    fn common_name(&self) -> Option<String> {
        let mut attributes = self.0.tbs_certificate.subject.0.iter().flat_map(|name| name.0.iter());
        let value = &attributes.find(|attribute| attribute.oid == COMMON_NAME)?.value;
        match value.tag() {
            Tag::Utf8String => Utf8StringRef::try_from(value).ok().map(|text| text.as_str().to_owned()),
            Tag::PrintableString => PrintableStringRef::try_from(value).ok().map(|text| text.as_str().to_owned()),
            Tag::Ia5String => Ia5StringRef::try_from(value).ok().map(|text| text.as_str().to_owned()),
            _ => None,
        }
    }
}

/// The content of a DER value shorter than 128 bytes, which is how rustls writes algorithm identifiers.
fn content(der: Option<Vec<u8>>) -> Option<Vec<u8>> {
    der?.split_first_chunk::<2>().map(|(_, content)| content.to_vec())
}

/// libpq's rule: equal without regard to case, or `*.` for exactly one label.
fn name_fits(pattern: &str, host: &str) -> bool {
    let (pattern, host) = (pattern.to_ascii_lowercase(), host.to_ascii_lowercase());
    match pattern.strip_prefix('*').filter(|rest| rest.starts_with('.')) {
        None => pattern == host,
        Some(suffix) => host.strip_suffix(suffix).is_some_and(|label| !label.is_empty() && !label.contains('.')),
    }
}

/// The hash of a certificate that SCRAM binds to (`tls-server-end-point`, RFC 5929): by the hash of the certificate's own
/// signature, SHA-256 in place of MD5 and SHA-1. `None` where the signature names no hash (Ed25519, RSA-PSS).
pub(super) fn end_point_hash(der: &[u8]) -> Option<Vec<u8>> {
    let algorithm = Certificate::read(der)?.0.signature_algorithm.oid;
    let rsa = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1");
    let ecdsa = ObjectIdentifier::new_unwrap("1.2.840.10045.4");
    let arcs: Vec<u32> = algorithm.arcs().collect();
    let below = |parent: ObjectIdentifier| {
        let parent: Vec<u32> = parent.arcs().collect();
        arcs.strip_prefix(parent.as_slice()).map(<[u32]>::to_vec)
    };
    let hash = match (below(rsa).as_deref(), below(ecdsa).as_deref()) {
        (Some([4 | 5 | 11]), _) | (_, Some([1] | [3, 2])) => Sha256::digest(der).to_vec(),
        (Some([12]), _) | (_, Some([3, 3])) => Sha384::digest(der).to_vec(),
        (Some([13]), _) | (_, Some([3, 4])) => Sha512::digest(der).to_vec(),
        (Some([14]), _) | (_, Some([3, 1])) => Sha224::digest(der).to_vec(),
        _ => return None,
    };
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (pattern, host, fits) in [
            ("db", "db", true),
            ("DB.example", "db.Example", true),
            ("*.example", "db.example", true),
            ("*.example", "a.db.example", false),
            ("*.example", "example", false),
            ("*.example", ".example", false),
            ("*", "db", false),
            ("d*.example", "db.example", false),
        ] {
            assert_eq!(name_fits(pattern, host), fits, "{pattern} {host}");
        }
    }

    #[test]
    fn nonsense_is_no_certificate() {
        assert!(Certificate::read(b"").is_none());
        assert!(end_point_hash(b"0\x03abc").is_none());
    }
}
