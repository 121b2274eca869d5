//! Certificates: from files, or generated for the local machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// The certificate of a hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HubCertificate {
    /// PEM files: the certificate chain and its private key.
    Files {
        /// The chain, the hub's own certificate first.
        cert: PathBuf,
        key: PathBuf,
    },
    /// A certificate for `localhost`, 127.0.0.1 and ::1, generated at start together with its CA.
    SelfSigned,
}

/// A certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("failed to read {what} from {}: {source}", path.display())]
    Pem { what: &'static str, path: PathBuf, source: rustls::pki_types::pem::Error },
    #[error("failed to use the certificate with its key: {0}")]
    Rustls(#[from] rustls::Error),
    #[error("failed to generate a certificate: {0}")]
    Generate(#[from] rcgen::Error),
}

/// Reads a certificate from files.
pub(crate) fn acceptor_from_files(cert: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let chain = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect).map_err(|source| TlsError::Pem {
        what: "a certificate",
        path: cert.to_owned(),
        source,
    })?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::Pem {
        what: "a private key",
        path: key.to_owned(),
        source,
    })?;
    build_acceptor(chain, key)
}

/// A certificate for the local machine and its CA.
pub(crate) struct SelfSignedCertificate {
    acceptor: TlsAcceptor,
    /// The CA certificate, PEM.
    pub ca_pem: String,
}

impl SelfSignedCertificate {
    /// Generates a certificate and its CA.
    pub fn generate() -> Result<SelfSignedCertificate, TlsError> {
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.distinguished_name.push(DnType::CommonName, "hubproof reference authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let authority_key = KeyPair::generate()?;
        let ca_pem = authority.self_signed(&authority_key)?.pem();
        let issuer = Issuer::new(authority, authority_key);

        let mut hub = CertificateParams::new(vec!["localhost".to_owned()])?;
        for ip in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
            hub.subject_alt_names.push(SanType::IpAddress(ip));
        }
        hub.distinguished_name.push(DnType::CommonName, "hubproof reference hub");
        hub.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        hub.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let cert = hub.signed_by(&key, &issuer)?;
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        Ok(SelfSignedCertificate { acceptor: build_acceptor(vec![cert.der().clone()], key)?, ca_pem })
    }

    pub fn tls_acceptor(&self) -> TlsAcceptor {
        self.acceptor.clone()
    }
}

fn build_acceptor(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<TlsAcceptor, TlsError> {
    // The provider is explicit, so that the process needs no default one.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
