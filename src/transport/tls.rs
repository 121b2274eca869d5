//! Certificates for `wss://` and `https://`. hubproof trusts the system's roots and the certificates in the file of
//! `--ca`; with `--insecure` it trusts any certificate. It presents the client certificate of `--cert`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::files::read_bytes;
use crate::config::TlsOptions;

/// The most bytes of a file of certificates.
const MAX_FILE: usize = 16 << 20;

/// A failed TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("failed to read certificates from {}: {reason}; --ca and --cert take PEM files", .file.display())]
    Read { file: PathBuf, reason: String },
    #[error("{} contains no certificate; --ca and --cert take PEM files (-----BEGIN CERTIFICATE-----)", .0.display())]
    Empty(PathBuf),
    #[error("{} is a PKCS#12 file, but --cert takes a PEM file: convert it with `openssl pkcs12 -in {} -nodes -out client.pem`", .0.display(), .0.display())]
    Pkcs12(PathBuf),
    #[error("certificate {number} in {} cannot be used as a root: {reason}", .file.display())]
    Root { file: PathBuf, number: usize, reason: String },
    #[error("failed to read the private key in {}: {reason}; --key takes a PEM file without a password", .file.display())]
    Key { file: PathBuf, reason: String },
    #[error("failed to set up TLS: {0}")]
    Setup(#[from] rustls::Error),
}

/// Creates the TLS configuration for all connections of a run; share it, because creating it reads the system's roots.
///
/// # Errors
/// A file cannot be read or contains no usable certificate or key. System roots that cannot be read are left out; a
/// handshake that needs one of them fails.
pub fn client_config(options: &TlsOptions) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let lenient = |strict, given| Arc::new(LenientVerifier { provider: provider.clone(), strict, given });
    let builder = if options.insecure {
        builder.dangerous().with_custom_certificate_verifier(lenient(None, Vec::new()))
    } else {
        let given = given_certificates(options.ca.as_deref())?;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(system_roots().into_iter().chain(given.clone()));
        // Without any root, no verifier can be built.
        match WebPkiServerVerifier::builder_with_provider(Arc::new(roots.clone()), provider.clone()).build() {
            Ok(strict) => builder.dangerous().with_custom_certificate_verifier(lenient(Some(strict), given)),
            Err(_) => builder.with_root_certificates(roots),
        }
    };
    Ok(Arc::new(match client_certificate(options)? {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key.key)?,
        None => builder.with_no_client_auth(),
    }))
}

/// A client certificate with its chain, and its private key.
pub type ClientIdentity = (Vec<CertificateDer<'static>>, PrivateKeyText);

/// A private key as its file has it.
pub struct PrivateKeyText {
    pub text: Vec<u8>,
    key: PrivateKeyDer<'static>,
}

/// Returns the client certificate; `None` if the options name none.
///
/// # Errors
/// A file cannot be read or contains no usable certificate or key.
pub fn client_certificate(options: &TlsOptions) -> Result<Option<ClientIdentity>, TlsError> {
    let Some(file) = &options.cert else { return Ok(None) };
    let chain = read_pem_certificates(file)?;
    let file = options.key.as_ref().unwrap_or(file);
    let wrong = |reason: String| TlsError::Key { file: file.clone(), reason };
    let bytes = read_bytes(file, MAX_FILE).map_err(|error| wrong(error.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
        pem::Error::NoItemsFound => wrong("it contains no private key".to_owned()),
        other => wrong(other.to_string()),
    })?;
    Ok(Some((chain, PrivateKeyText { text: bytes, key })))
}

/// Returns a configuration for one connection, and a flag that is set when the hub asks for a client certificate.
pub fn watch_requests(config: &Arc<ClientConfig>) -> (Arc<ClientConfig>, CertificateRequest) {
    let request = CertificateRequest::default();
    let mut watched = ClientConfig::clone(config);
    let inner = Arc::clone(&config.client_auth_cert_resolver);
    watched.client_auth_cert_resolver = Arc::new(WatchingResolver { inner, request: request.clone() });
    (Arc::new(watched), request)
}

/// Whether the hub has asked for a client certificate.
#[derive(Clone, Debug, Default)]
pub struct CertificateRequest(Arc<Mutex<Option<bool>>>);

impl CertificateRequest {
    /// Explains an end of the connection before an answer, with this error if there is one, by the hub's request; `None`
    /// if the hub did not ask, or if hubproof ended the connection. Servers check the certificate only after the
    /// handshake of the client is complete.
    pub fn explain_end(&self, error: Option<&std::io::Error>) -> Option<&'static str> {
        let cause = error.and_then(|error| error.get_ref()?.downcast_ref::<rustls::Error>());
        if cause.is_some_and(|cause| !matches!(cause, rustls::Error::AlertReceived(_))) {
            return None;
        }
        (*self.0.lock()).map(|presented| match presented {
            true => "TLS: the hub does not accept the client certificate of --cert",
            false => "TLS: the hub asks for a client certificate: give it with --cert FILE and --key FILE",
        })
    }
}

#[derive(Debug)]
struct WatchingResolver {
    inner: Arc<dyn ResolvesClientCert>,
    request: CertificateRequest,
}

impl ResolvesClientCert for WatchingResolver {
    fn resolve(&self, issuers: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let found = self.inner.resolve(issuers, schemes);
        *self.request.0.lock() = Some(found.is_some());
        found
    }

    fn has_certs(&self) -> bool {
        self.inner.has_certs()
    }
}

/// Returns the system's roots that can be read, and the certificates of `ca`.
///
/// # Errors
/// `ca` cannot be read or contains no usable certificate.
pub fn trusted_roots(ca: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let mut certificates = system_roots();
    certificates.extend(given_certificates(ca)?);
    Ok(certificates)
}

fn system_roots() -> Vec<CertificateDer<'static>> {
    rustls_native_certs::load_native_certs().certs
}

/// Returns all certificates of a file; each is usable as a root.
fn given_certificates(file: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let Some(file) = file else { return Ok(Vec::new()) };
    let certificates = read_pem_certificates(file)?;
    for (index, certificate) in certificates.iter().enumerate() {
        RootCertStore::empty().add(certificate.clone()).map_err(|error| {
            let reason = error.to_string();
            TlsError::Root { file: file.to_owned(), number: index + 1, reason }
        })?;
    }
    Ok(certificates)
}

fn read_pem_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |error: pem::Error| TlsError::Read { file: file.to_owned(), reason: error.to_string() };
    let bytes = read_bytes(file, MAX_FILE).map_err(|error| unreadable(pem::Error::Io(error)))?;
    if is_pkcs12(&bytes) {
        return Err(TlsError::Pkcs12(file.to_owned()));
    }
    let certificates = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    if certificates.is_empty() { Err(TlsError::Empty(file.to_owned())) } else { Ok(certificates) }
}

/// Whether the bytes are a DER sequence that begins with the version of PKCS#12.
fn is_pkcs12(bytes: &[u8]) -> bool {
    let Some([0x30, length]) = bytes.first_chunk::<2>() else { return false };
    let more = if *length < 0x80 { 0 } else { usize::from(length & 0x7f) };
    bytes.get(2 + more..).is_some_and(|content| content.starts_with(&[2, 1, 3]))
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
            format!("TLS: certificate not trusted: {} (use --ca FILE or --insecure)", describe_certificate_error(why))
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

fn describe_certificate_error(error: &CertificateError) -> String {
    match error {
        CertificateError::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "it is the certificate of a certificate authority, not of a server".to_owned()
        }
        CertificateError::Other(other) if format!("{other:?}").contains("UnsupportedCertVersion") => {
            "its format is older than X.509 version 3".to_owned()
        }
        CertificateError::BadEncoding => "it cannot be decoded".to_owned(),
        CertificateError::Expired => "it has expired".to_owned(),
        CertificateError::NotValidYet => "it is not valid yet".to_owned(),
        CertificateError::Revoked => "it was revoked".to_owned(),
        CertificateError::BadSignature => "its signature is wrong".to_owned(),
        CertificateError::NotValidForName => "it is for another host name".to_owned(),
        CertificateError::InvalidPurpose => "it is not for servers".to_owned(),
        other => other.to_string(),
    }
}

/// A verifier that also accepts the certificates of `--ca` themselves, as curl does: `openssl req -x509` makes
/// certificates of a certificate authority, which others do not accept from a server, and without the names of hosts.
/// Whatever it accepts, the peer must have the private key.
#[derive(Debug)]
struct LenientVerifier {
    provider: Arc<CryptoProvider>,
    /// Verifies other certificates; `None` accepts all of them.
    strict: Option<Arc<WebPkiServerVerifier>>,
    given: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for LenientVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use CertificateError::{NotValidForName, NotValidForNameContext, Other};
        let Some(strict) = &self.strict else { return Ok(ServerCertVerified::assertion()) };
        let verified = strict.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match &verified {
            // The verifier checks the time of validity before the kind of certificate, and the name last.
            Err(rustls::Error::InvalidCertificate(Other(_) | NotValidForName | NotValidForNameContext { .. }))
                if self.given.iter().any(|given| given == end_entity) =>
            {
                Ok(ServerCertVerified::assertion())
            }
            _ => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::io::Write as _;

    #[rstest]
    #[case("", "contains no certificate; --ca and --cert take PEM files")]
    #[case("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "certificate 1 in ")]
    #[case("-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n", "failed to read certificates from ")]
    fn a_ca_file_without_certificates_is_an_error(#[case] content: &str, #[case] about: &str) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content.as_bytes()).unwrap();
        let error = client_config(&TlsOptions { ca: Some(file.path().to_owned()), ..TlsOptions::default() })
            .unwrap_err()
            .to_string();
        assert!(error.contains(about), "{error}");
    }

    #[test]
    fn a_missing_ca_file_is_an_error() {
        let error = client_config(&TlsOptions { ca: Some("no/such.pem".into()), ..TlsOptions::default() })
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("failed to read certificates from no/such.pem: "), "{error}");
    }
}
