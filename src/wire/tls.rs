//! TLS as libpq's `sslmode` has it, on rustls.

use super::certificate::{Certificate, end_point_hash};
use super::options::{Address, Host, RootCertificates, SslMode, TlsOptions};
use super::socket::Duplex;
use crate::error::{Error, ErrorKind, Result};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use tokio_rustls::rustls::crypto::{
    WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
};

/// An encrypted stream, and what SCRAM may bind to.
pub(super) struct Secured {
    pub(super) stream: Box<dyn Duplex>,
    pub(super) end_point: Option<Vec<u8>>,
}

/// Encrypts a stream.
pub(super) async fn handshake(stream: Box<dyn Duplex>, host: &Host, options: &TlsOptions) -> Result<Secured> {
    let config = client_config(options)?;
    let Address::Tcp { name, .. } = &host.address else {
        return Err(Error::new(ErrorKind::Bug, "TLS on a Unix socket"));
    };
    let server_name = match ServerName::try_from(name.clone()) {
        Ok(name) => name,
        Err(_) if options.mode == SslMode::VerifyFull => {
            return Err(Error::new(ErrorKind::Config, format!("{name:?} is no name that a certificate could bear")));
        }
        Err(_) => ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into()),
    };
    let connector = TlsConnector::from(Arc::new(config));
    let stream = connector.connect(server_name, stream).await.map_err(|error| failed(host, error))?;
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let end_point = certificates.first().and_then(|certificate| end_point_hash(certificate));
    Ok(Secured { stream: Box::new(stream), end_point })
}

fn failed(host: &Host, error: std::io::Error) -> Error {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<TlsError>());
    let distrusted = matches!(cause, Some(TlsError::InvalidCertificate(_)));
    let kind = if distrusted { ErrorKind::Config } else { ErrorKind::Unavailable };
    let failed = Error::new(kind, format!("TLS with {host} failed")).because(error);
    if distrusted {
        failed.hint(
            "name the authority that signed the server's certificate with PGSSLROOTCERT, and the host as the \
            certificate does",
        )
    } else {
        failed
    }
}

fn client_config(options: &TlsOptions) -> Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Verifier {
        roots: roots(options)?,
        by_name: options.mode == SslMode::VerifyFull,
        algorithms: provider.signature_verification_algorithms,
    };
    let versions = if options.only_tls13 { &[&TLS13][..] } else { &[&TLS13, &TLS12] };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|error| Error::new(ErrorKind::Bug, "TLS cannot be set up").because(error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match client_certificate(options)? {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|error| {
            Error::new(ErrorKind::Config, "the client certificate and its key do not fit").because(error)
        })?,
    };
    config.enable_sni = options.sni;
    if options.direct {
        config.alpn_protocols = vec![b"postgresql".to_vec()];
    }
    Ok(config)
}

/// Whom the mode trusts; `None` is everybody.
fn roots(options: &TlsOptions) -> Result<Option<Roots>> {
    let verifying = matches!(options.mode, SslMode::VerifyCa | SslMode::VerifyFull);
    match &options.root {
        RootCertificates::System => {
            let found = rustls_native_certs::load_native_certs();
            if found.certs.is_empty() {
                return Err(Error::new(
                    ErrorKind::Config,
                    "the system has no trusted certificates (sslrootcert=system)",
                )
                .hint("install the package ca-certificates"));
            }
            Ok(Some(Roots::new(found.certs)))
        }
        // As in libpq, `require` verifies where there is something to verify against, for the sake of old set-ups.
        RootCertificates::File(path) if path.exists() && (verifying || options.mode == SslMode::Require) => {
            let certificates = pem_certificates(path, "root certificates")?;
            Ok(Some(Roots::new(certificates)))
        }
        RootCertificates::File(path) if verifying => {
            Err(Error::new(ErrorKind::Config, format!("the root certificate file {} does not exist", path.display()))
                .hint("name one with PGSSLROOTCERT (or sslrootcert=system), or ask for less with PGSSLMODE=require"))
        }
        RootCertificates::Nowhere if verifying => {
            Err(Error::new(ErrorKind::Config, "no root certificate file, for there is no home directory")
                .hint("name one with PGSSLROOTCERT"))
        }
        RootCertificates::File(_) | RootCertificates::Nowhere => Ok(None),
    }
}

fn pem_certificates(path: &Path, what: &str) -> Result<Vec<CertificateDer<'static>>> {
    let unreadable = |error: tokio_rustls::rustls::pki_types::pem::Error| {
        Error::new(ErrorKind::Config, format!("cannot read {what} from {}", path.display())).because(error)
    };
    let certificates: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(unreadable)?.collect::<Result<_, _>>().map_err(unreadable)?;
    if certificates.is_empty() {
        return Err(Error::new(ErrorKind::Config, format!("{} holds no certificate", path.display())));
    }
    Ok(certificates)
}

type ClientCertificate = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn client_certificate(options: &TlsOptions) -> Result<Option<ClientCertificate>> {
    let Some((path, named)) = &options.certificate else { return Ok(None) };
    if !named && !path.exists() {
        return Ok(None);
    }
    let chain = pem_certificates(path, "the client certificate")?;
    let Some((path, _)) = &options.key else {
        return Err(Error::new(ErrorKind::Config, "a client certificate without a key").hint("name it with PGSSLKEY"));
    };
    let metadata =
        std::fs::metadata(path).map_err(|error| Error::local("read", path, error).with_kind(ErrorKind::Config))?;
    // libpq's rule: 0600, or 0640 where root owns it.
    let open = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    if metadata.mode() & open != 0 {
        return Err(Error::new(ErrorKind::Config, format!("the key file {} is open to others", path.display()))
            .hint("chmod it to 0600, or 0640 where root owns it"));
    }
    let key = PrivateKeyDer::from_pem_file(path).map_err(|error| {
        Error::new(ErrorKind::Config, format!("cannot read the client's key from {}", path.display())).because(error)
    })?;
    Ok(Some((chain, key)))
}

/// Certificates that are trusted.
#[derive(Debug)]
struct Roots {
    /// As trust anchors for chains.
    store: RootCertStore,
    /// As they are: OpenSSL trusts a server that shows one of these itself.
    certificates: Vec<CertificateDer<'static>>,
}

impl Roots {
    fn new(certificates: Vec<CertificateDer<'static>>) -> Self {
        let mut store = RootCertStore::empty();
        // System stores hold relics that cannot be read; they trust nobody then.
        store.add_parsable_certificates(certificates.iter().cloned());
        Self { store, certificates }
    }
}

/// Checks a server's certificate as the mode demands. The handshake's signature is always checked.
#[derive(Debug)]
struct Verifier {
    roots: Option<Roots>,
    by_name: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

const UNREADABLE: TlsError = TlsError::InvalidCertificate(CertificateError::BadEncoding);

impl Verifier {
    fn trusts(
        &self,
        roots: &Roots,
        shown: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), TlsError> {
        let certificate = Certificate::read(shown).ok_or(UNREADABLE)?;
        let itself = roots.certificates.iter().any(|root| root == shown);
        let read = || roots.certificates.iter().filter_map(|root| Certificate::read(root));
        if itself
            || (certificate.is_version_1() && read().any(|root| certificate.is_signed_by(&root, self.algorithms.all)))
        {
            let valid = certificate.is_valid_at(std::time::Duration::from_secs(now.as_secs()));
            return if valid { Ok(()) } else { Err(TlsError::InvalidCertificate(CertificateError::Expired)) };
        }
        if certificate.is_version_1() {
            return Err(TlsError::InvalidCertificate(CertificateError::UnknownIssuer));
        }
        let parsed = ParsedCertificate::try_from(shown)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots.store, between, now, self.algorithms.all)
    }

    fn bears_name(&self, shown: &CertificateDer<'_>, name: &ServerName<'_>) -> Result<(), TlsError> {
        let certificate = Certificate::read(shown).ok_or(UNREADABLE)?;
        if certificate.common_name_fits(&name.to_str()) {
            return Ok(());
        }
        if certificate.is_version_1() {
            return Err(TlsError::InvalidCertificate(CertificateError::NotValidForName));
        }
        verify_server_name(&ParsedCertificate::try_from(shown)?, name)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        if let Some(roots) = &self.roots {
            self.trusts(roots, end_entity, intermediates, now)?;
            if self.by_name {
                self.bears_name(end_entity, server_name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let certificate = Certificate::read(cert).ok_or(UNREADABLE)?;
        if !certificate.is_version_1() {
            return verify_tls12_signature(message, cert, dss, &self.algorithms);
        }
        let candidates = self.algorithms.mapping.iter().filter(|(scheme, _)| *scheme == dss.scheme);
        let verified = candidates
            .flat_map(|(_, algorithms)| algorithms.iter())
            .any(|algorithm| certificate.verifies(message, dss.signature(), *algorithm));
        match verified {
            true => Ok(HandshakeSignatureValid::assertion()),
            false => Err(TlsError::InvalidCertificate(CertificateError::BadSignature)),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let certificate = Certificate::read(cert).ok_or(UNREADABLE)?;
        if !certificate.is_version_1() {
            return verify_tls13_signature(message, cert, dss, &self.algorithms);
        }
        let key = certificate.public_key_info().ok_or(UNREADABLE)?;
        verify_tls13_signature_with_raw_key(message, &SubjectPublicKeyInfoDer::from(key), dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
