//! Runs the reference server as the hub under test: all instances of a protocol, and further hubs for scenarios that
//! need a hub to themselves.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};

use hubproof_reference as reference;
use reference::{HubCertificate, HubConfig, RunningServer, ServeConfig, Settings};
use tokio::sync::Mutex;

use crate::config::HookSpec;
use crate::reference::setup::{InstanceSetup, ReferenceAddresses, ReferenceSetups};

#[derive(Debug, thiserror::Error)]
pub enum EmbeddedHubsError {
    #[error("failed to start the reference server: {0}")]
    Serve(#[from] reference::ServeError),
    #[error("invalid configuration of the reference server: {0}")]
    Settings(#[from] reference::machine::settings::SettingsError),
    #[error("failed to write the reference server's certificate: {0}")]
    Certificate(#[from] std::io::Error),
}

pub struct EmbeddedHubs {
    protocol: String,
    setups: Vec<InstanceSetup>,
    fault: Option<String>,
    running: Mutex<Option<RunningServer>>,
    addresses: ReferenceAddresses,
    /// Keeps the certificate file from being deleted while it is in use.
    _certificate: Option<tempfile::NamedTempFile>,
}

/// A hub that one scenario uses alone.
pub struct DedicatedHub {
    running: RunningServer,
    shared_admin: Option<String>,
}

fn hub_configs(
    protocol: &str,
    setups: &[InstanceSetup],
    fault: Option<&str>,
) -> Result<Vec<HubConfig>, EmbeddedHubsError> {
    setups
        .iter()
        .map(|setup| {
            let mut settings = Settings::default();
            for (name, value) in &setup.serve {
                settings.set(name, value)?;
            }
            Ok(HubConfig {
                settings,
                fault: fault.map(str::to_owned),
                tls: setup.tls.then_some(HubCertificate::SelfSigned),
                ..HubConfig::new(protocol)
            })
        })
        .collect()
}

fn loopback_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

impl EmbeddedHubs {
    /// Starts every instance of a protocol on free loopback ports, with an admin interface and, if given, a fault.
    ///
    /// # Errors
    ///
    /// [`EmbeddedHubsError`]; in that case nothing runs.
    pub async fn start(
        protocol: &str,
        setups: &ReferenceSetups,
        fault: Option<&str>,
    ) -> Result<Self, EmbeddedHubsError> {
        let hubs = hub_configs(protocol, &setups.instances, fault)?;
        let running =
            reference::start_server(ServeConfig { hubs, admin: Some(loopback_address()), admin_token: None }).await?;
        let certificate = match &running.ca {
            None => None,
            Some(pem) => {
                let mut file = tempfile::Builder::new().prefix("hubproof-ca-").suffix(".pem").tempfile()?;
                file.write_all(pem.as_bytes())?;
                Some(file)
            }
        };
        let addresses = ReferenceAddresses {
            urls: running.hubs.iter().map(|hub| hub.url.clone()).collect(),
            admin: running.admin.clone(),
            ca: certificate.as_ref().map(|file| file.path().display().to_string()),
        };
        Ok(Self {
            protocol: protocol.to_owned(),
            setups: setups.instances.clone(),
            fault: fault.map(str::to_owned),
            running: Mutex::new(Some(running)),
            addresses,
            _certificate: certificate,
        })
    }

    pub fn addresses(&self) -> &ReferenceAddresses {
        &self.addresses
    }

    /// Starts a further hub with the configuration of this instance.
    ///
    /// # Errors
    ///
    /// [`EmbeddedHubsError`].
    pub async fn start_one(&self, instance: usize) -> Result<(String, DedicatedHub), EmbeddedHubsError> {
        let hubs = hub_configs(&self.protocol, &self.setups[instance..=instance], self.fault.as_deref())?;
        let running =
            reference::start_server(ServeConfig { hubs, admin: Some(loopback_address()), admin_token: None }).await?;
        let url = running.hubs.first().map(|hub| hub.url.clone()).unwrap_or_default();
        Ok((url, DedicatedHub { running, shared_admin: self.addresses.admin.clone() }))
    }

    pub async fn shutdown(&self) {
        if let Some(running) = self.running.lock().await.take() {
            running.shutdown().await;
        }
    }
}

impl DedicatedHub {
    /// Returns the target's hooks, redirected to this hub's own admin interface.
    pub fn redirect_hooks(&self, hooks: &BTreeMap<String, HookSpec>) -> BTreeMap<String, HookSpec> {
        let (Some(shared), Some(own)) = (&self.shared_admin, &self.running.admin) else { return hooks.clone() };
        hooks
            .iter()
            .map(|(name, spec)| {
                let mut spec = spec.clone();
                if let HookSpec::Http { url, .. } = &mut spec {
                    *url = url.replace(shared.as_str(), own);
                }
                (name.clone(), spec)
            })
            .collect()
    }

    pub async fn shutdown(self) {
        self.running.shutdown().await;
    }
}
