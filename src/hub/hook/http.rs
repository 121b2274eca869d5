//! Hooks that send an HTTP request. Redirects are not followed and no proxy is used.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use ureq::Agent;
use ureq::http::header::CONTENT_TYPE;
use ureq::http::{HeaderName, HeaderValue, Method, Uri};
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

use super::{HookCall, HookError, MAX_ANSWER, TemplateFiller, parse_answer};
use crate::config::TlsOptions;
use crate::transport::tls::{self, TlsError};

/// The certificates that hooks trust for `https://`: the same as for `wss://`. Shared, because creating it reads files.
#[derive(Clone, Debug)]
pub struct TrustedCertificates(TlsConfig);

impl TrustedCertificates {
    /// # Errors
    /// A certificate file is not readable or not valid.
    pub fn new(options: &TlsOptions) -> Result<Self, TlsError> {
        let client = tls::client_certificate(options)?.map(|(chain, key)| {
            let chain: Vec<_> = chain.iter().map(|one| Certificate::from_der(one).to_owned()).collect();
            // ureq reads keys only as text.
            let key = PrivateKey::from_pem(&key.text).map_err(|error| {
                let file = options.key.clone().or_else(|| options.cert.clone()).unwrap_or_default();
                TlsError::Key { file, reason: error.to_string() }
            })?;
            Ok::<_, TlsError>(ClientCert::new_with_certs(&chain, key))
        });
        let client = client.transpose()?;
        let builder = TlsConfig::builder().disable_verification(options.insecure).client_cert(client);
        if options.insecure {
            return Ok(Self(builder.build()));
        }
        let roots = tls::trusted_roots(options.ca.as_deref())?;
        let roots = roots.iter().map(|root| Certificate::from_der(root).to_owned()).collect();
        Ok(Self(builder.root_certs(RootCerts::Specific(Arc::new(roots))).build()))
    }
}

/// A request with its templates filled in.
pub(super) struct HookRequest {
    trust: Option<TrustedCertificates>,
    hook: String,
    url: String,
    request: ureq::http::Request<Vec<u8>>,
}

impl HookRequest {
    pub(super) fn new(
        call: &HookCall<'_>,
        method: &str,
        url: &str,
        headers: &BTreeMap<String, String>,
        body: Option<&str>,
    ) -> Result<Self, HookError> {
        let filler = TemplateFiller::new(call);
        let refuse = |reason: String| HookError::Request { hook: call.name.to_owned(), reason };
        let url = filler.fill("url", url)?;
        let method: Method = method.parse().map_err(|_| refuse(format!("`{method}` is not an HTTP method")))?;
        let uri: Uri =
            url.parse().map_err(|e| refuse(format!("`{url}` is not a URL ({e}); escape values with `| urlencode`")))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(refuse(format!("`{url}` does not begin with http:// or https://")));
        }
        let carries_body = !matches!(method, Method::GET | Method::DELETE);
        let body = match body {
            Some(body) => Some(filler.fill("body", body)?),
            None => carries_body.then(|| call.message.unwrap_or(call.args).to_string()),
        };
        let mut request = ureq::http::Request::new(body.unwrap_or_default().into_bytes());
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        if !request.body().is_empty() {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        for (name, value) in headers {
            let value = filler.fill("headers", value)?;
            // Neither message shows the value, which may be a secret.
            let name: HeaderName = name.parse().map_err(|_| refuse(format!("`{name}` is not a header name")))?;
            let value = HeaderValue::from_str(&value)
                .map_err(|_| refuse(format!("the value of `{name}` is not a valid header value")))?;
            request.headers_mut().insert(name, value);
        }
        Ok(Self { trust: call.trust.cloned(), hook: call.name.to_owned(), url, request })
    }

    pub(super) async fn send(self, timeout: Duration) -> Result<Value, HookError> {
        let hook = self.hook.clone();
        // The timeout bounds every wait of the thread, so the thread ends even if this future is dropped.
        match tokio::task::spawn_blocking(move || self.send_blocking(timeout)).await {
            Ok(answer) => answer,
            Err(error) => Err(HookError::Request { hook, reason: error.to_string() }),
        }
    }

    fn send_blocking(self, timeout: Duration) -> Result<Value, HookError> {
        let Self { trust, hook, url, request } = self;
        let method = request.method().to_string();
        let failed = |error| to_hook_error(&hook, &url, timeout, error);
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .timeout_global(Some(timeout))
            .user_agent(concat!("hubproof/", env!("CARGO_PKG_VERSION")));
        let agent: Agent = match trust {
            Some(TrustedCertificates(config_of_tls)) => config.tls_config(config_of_tls),
            None => config,
        }
        .build()
        .into();
        let response = match request.body().is_empty() {
            true => agent.run(request.map(drop)),
            false => agent.run(request),
        };
        let response = response.map_err(failed)?;
        let status = response.status();
        let mut body = Vec::new();
        let read = response.into_body().into_reader().take(MAX_ANSWER as u64 + 1).read_to_end(&mut body);
        if !status.is_success() {
            // As much of the body as could be read.
            let body = String::from_utf8_lossy(&body).chars().take(super::MAX_SHOWN_CHARS + 1).collect();
            return Err(HookError::Status { hook, method, url, status: status.as_u16(), body });
        }
        read.map_err(|error| failed(ureq::Error::from(error)))?;
        if body.len() > MAX_ANSWER {
            return Err(HookError::TooLong { hook });
        }
        Ok(parse_answer(&body))
    }
}

fn to_hook_error(hook: &str, url: &str, timeout: Duration, error: ureq::Error) -> HookError {
    let hook = hook.to_owned();
    match error {
        ureq::Error::Timeout(_) => HookError::TimedOut { hook, after: timeout },
        error => HookError::Unreachable { hook, url: url.to_owned(), reason: error.to_string() },
    }
}
