//! Certificates, good and bad, of a private authority that is made once a run.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::sync::{Arc, OnceLock};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;

/// What a server's certificate is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Certificate {
    /// For localhost and 127.0.0.1, of the authority in `FakeS3::ca_file`.
    Good,
    /// The same, ten years ago.
    Expired,
    /// For another name.
    WrongName,
    /// Of an authority that nobody has.
    UnknownAuthority,
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "walhalla tests");
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }
}

fn authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(Authority::new)
}

/// The authority's own certificate.
pub(super) fn pem() -> &'static str {
    &authority().pem
}

/// The server's side of TLS with such a certificate.
pub(super) fn acceptor(certificate: Certificate) -> TlsAcceptor {
    let names: &[&str] = match certificate {
        Certificate::WrongName => &["elsewhere.example"],
        Certificate::Good | Certificate::Expired | Certificate::UnknownAuthority => &["localhost", "127.0.0.1"],
    };
    let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    if certificate == Certificate::Expired {
        params.not_before = rcgen::date_time_ymd(2015, 1, 1);
        params.not_after = rcgen::date_time_ymd(2016, 1, 1);
    }
    let key = KeyPair::generate().unwrap();
    let signed = match certificate {
        Certificate::UnknownAuthority => params.signed_by(&key, &Authority::new().issuer),
        Certificate::Good | Certificate::Expired | Certificate::WrongName => {
            params.signed_by(&key, &authority().issuer)
        }
    };
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.unwrap().der().clone()], key.serialize_der().try_into().unwrap())
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}
