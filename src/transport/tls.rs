//! Certificates trusted for `wss://` and `https://`: the system's roots and those of `--ca`, or all with `--insecure`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// A failed TLS configuration.
use super::files::read_bytes;

/// The most bytes of a file of certificates.
const MAX_FILE: usize = 16 << 20;

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("failed to read certificates from {}: {reason}; --ca takes a PEM file", .file.display())]
    Read { file: PathBuf, reason: String },
    #[error("{} contains no certificate; --ca takes a PEM file (-----BEGIN CERTIFICATE-----)", .0.display())]
    Empty(PathBuf),
    #[error("certificate {number} in {} cannot be used as a root: {reason}", .file.display())]
    Root { file: PathBuf, number: usize, reason: String },
    #[error("failed to set up TLS: {0}")]
    Setup(#[from] rustls::Error),
}

/// Creates the TLS configuration for all connections of a run; share it, because creating it reads the system's roots.
///
/// `ca` is a PEM file with certificates to trust in addition to the system's. `insecure` accepts any certificate for
/// any name.
///
/// # Errors
/// `ca` cannot be read or contains no usable certificate. System roots that cannot be read are left out; a handshake
/// that needs one of them fails.
pub fn client_config(ca: Option<&Path>, insecure: bool) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    if insecure {
        let verifier = Arc::new(AnyCertificateVerifier(provider));
        return Ok(Arc::new(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()));
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(trusted_roots(ca)?);
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// Returns the system's roots that can be read, and the certificates of `ca`.
///
/// # Errors
/// `ca` cannot be read or contains no usable certificate.
pub fn trusted_roots(ca: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let mut certificates = rustls_native_certs::load_native_certs().certs;
    if let Some(file) = ca {
        certificates.extend(read_certificates(file)?);
    }
    Ok(certificates)
}

/// Returns all certificates of a file; each is usable as a root.
fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable =
        |error: rustls::pki_types::pem::Error| TlsError::Read { file: file.to_owned(), reason: error.to_string() };
    let mut certificates = Vec::new();
    let bytes = read_bytes(file, MAX_FILE).map_err(|error| unreadable(rustls::pki_types::pem::Error::Io(error)))?;
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate = certificate.map_err(unreadable)?;
        let number = certificates.len() + 1;
        let usable = RootCertStore::empty().add(certificate.clone());
        usable.map_err(|error| TlsError::Root { file: file.to_owned(), number, reason: error.to_string() })?;
        certificates.push(certificate);
    }
    if certificates.is_empty() { Err(TlsError::Empty(file.to_owned())) } else { Ok(certificates) }
}

/// Explains a failed TLS handshake to the user.
pub fn explain_handshake_error(error: &std::io::Error) -> String {
    let Some(cause) = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) else {
        return format!("TLS: the handshake failed: {error}");
    };
    match cause {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "TLS: certificate not trusted: its issuer is unknown (use --ca FILE or --insecure)".to_owned()
        }
        rustls::Error::InvalidCertificate(why) => {
            format!("TLS: certificate not trusted: {why} (use --ca FILE or --insecure)")
        }
        rustls::Error::InvalidMessage(_) => {
            "TLS: the answer is not TLS: should the address be ws:// instead of wss://?".to_owned()
        }
        rustls::Error::AlertReceived(alert) => format!(
            "TLS: the hub aborted the handshake with the alert {alert:?}: does it expect another host name or TLS version, or a client certificate?"
        ),
        rustls::Error::PeerIncompatible(why) => {
            format!("TLS: no common version or cipher suite ({why:?}): hubproof supports TLS 1.2 and 1.3")
        }
        other => format!("TLS: the handshake failed: {other}"),
    }
}

/// A verifier that accepts any certificate, as long as the peer has its private key.
#[derive(Debug)]
struct AnyCertificateVerifier(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificateVerifier {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::io::Write as _;

    #[rstest]
    #[case("", "contains no certificate; --ca takes a PEM file")]
    #[case("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "certificate 1 in ")]
    #[case("-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n", "failed to read certificates from ")]
    fn a_ca_file_without_certificates_is_an_error(#[case] content: &str, #[case] about: &str) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content.as_bytes()).unwrap();
        let error = client_config(Some(file.path()), false).unwrap_err().to_string();
        assert!(error.contains(about), "{error}");
    }

    #[test]
    fn a_missing_ca_file_is_an_error() {
        let error = client_config(Some(Path::new("no/such.pem")), false).unwrap_err().to_string();
        assert!(error.starts_with("failed to read certificates from no/such.pem: "), "{error}");
    }
}
