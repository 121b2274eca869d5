//! The options about certificates: which ones hubproof trusts, and which one it presents.

use std::path::PathBuf;

use clap::Args;

use crate::config::TlsOptions;

#[derive(Args, Clone, Default)]
pub struct TlsArgs {
    /// Trust the certificates in this PEM file in addition to the system's
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Present the client certificate in this PEM file to a hub that asks for one
    #[arg(long, value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// Private key of the client certificate (PEM), unless it is in the same file
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// Trust any certificate
    #[arg(long)]
    pub insecure: bool,
}

impl TlsArgs {
    pub fn options(&self) -> TlsOptions {
        let Self { ca, cert, key, insecure } = self.clone();
        TlsOptions { ca, cert, key, insecure }
    }

    /// Returns the files, each with the name of its option.
    fn files(&self) -> impl Iterator<Item = (&'static str, &PathBuf)> {
        let files = [("ca", &self.ca), ("cert", &self.cert), ("key", &self.key)];
        files.into_iter().filter_map(|(name, path)| Some((name, path.as_ref()?)))
    }

    /// Returns the options as overrides of a target.
    pub fn overrides(&self) -> Vec<String> {
        let files = self.files().map(|(name, path)| format!("tls.{name}='{}'", path.display()));
        files.chain(self.insecure.then(|| "tls.insecure=true".to_owned())).collect()
    }

    /// Returns the options again.
    pub fn to_arguments(&self) -> Vec<String> {
        let files = self.files().flat_map(|(name, path)| [format!("--{name}"), path.display().to_string()]);
        files.chain(self.insecure.then(|| "--insecure".to_owned())).collect()
    }
}
