//! Whom to trust.

use crate::error::{Error, ErrorKind, Result};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::Arc;

/// The TLS configuration. `needed` is false where no connection will use it: then no certificate is loaded.
pub(super) fn config(needed: bool, ca_file: Option<&Path>) -> Result<ClientConfig> {
    let roots = match (needed, ca_file) {
        (false, _) => RootCertStore::empty(),
        (true, Some(file)) => private_roots(file)?,
        (true, None) => system_roots()?,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|cause| Error::new(ErrorKind::Bug, "cannot set TLS up").because(cause))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn private_roots(file: &Path) -> Result<RootCertStore> {
    let wrong = |cause: String| {
        Error::new(ErrorKind::Config, format!("s3_ca_file {}: {cause}", file.display()))
            .hint("it must hold the PEM certificates (BEGIN CERTIFICATE) of the authorities to trust")
    };
    let pem = std::fs::read(file).map_err(|cause| wrong(cause.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|cause| wrong(cause.to_string()))?;
        roots.add(certificate).map_err(|cause| wrong(cause.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong("no certificate in it".to_owned()));
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    // Systems carry the odd certificate that does not parse; the others count.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(Error::new(ErrorKind::Config, "this system has no certificate authorities to trust")
            .hint("install ca-certificates, or name a PEM file with s3_ca_file (or SSL_CERT_FILE)"));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_holds_no_certificate_is_told_before_any_request() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca.pem");
        let told = |file: &Path| config(true, Some(file)).unwrap_err().to_string();
        assert!(told(&file).contains("ca.pem: No such file"), "{}", told(&file));
        std::fs::write(&file, "no pem").unwrap();
        assert!(told(&file).contains("no certificate in it"), "{}", told(&file));
        for body in ["AAAA", "!"] {
            std::fs::write(&file, format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")).unwrap();
            assert!(told(&file).contains("s3_ca_file"), "{}", told(&file));
        }
        config(false, Some(&file)).unwrap();
    }
}
