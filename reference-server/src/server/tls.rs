//! Certificates: from files, or made for the local machine on the spot.

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

/// How a hub proves who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    /// PEM files: the certificate chain and its private key.
    Files {
        /// The chain, the hub's own certificate first.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// A certificate for `localhost`, 127.0.0.1 and ::1, made at start under an authority made with it.
    SelfSigned,
}

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is not PEM.
    #[error("failed to read {what} from {}: {source}", path.display())]
    Pem {
        /// Certificate or key.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: rustls::pki_types::pem::Error,
    },
    /// The certificate and the key do not make a server.
    #[error("failed to use the certificate with its key: {0}")]
    Rustls(#[from] rustls::Error),
    /// No certificate could be made.
    #[error("failed to make a certificate: {0}")]
    Generate(#[from] rcgen::Error),
}

/// A certificate from files.
///
/// # Errors
/// [`TlsError`] names the file.
pub(crate) fn from_files(cert: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
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
    acceptor(chain, key)
}

/// A certificate for the local machine and the authority that vouches for it.
pub(crate) struct SelfSigned {
    acceptor: TlsAcceptor,
    /// The authority's certificate, PEM.
    pub ca_pem: String,
}

impl SelfSigned {
    /// Makes both.
    ///
    /// # Errors
    /// [`TlsError::Generate`] or [`TlsError::Rustls`], neither of which depends on the caller.
    pub fn generate() -> Result<SelfSigned, TlsError> {
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
        Ok(SelfSigned { acceptor: acceptor(vec![cert.der().clone()], key)?, ca_pem })
    }

    /// The acceptor.
    pub fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.clone()
    }
}

fn acceptor(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<TlsAcceptor, TlsError> {
    // The provider is named, so that the process need not have a default one.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
