//! Errors for the user to fix, and how they are shown: what failed, then `help:` and what to do.

use std::fmt::Display;

use super::uses_color;
use crate::hub::prepare::SetupError;
use crate::hub::process::HubStartError;
use crate::load::engine::EngineError;
use crate::load::machine::measure::RoundTripError;
use crate::load::pages::PageServerError;
use crate::load::plan::PlanOverrideError;
use crate::load::report::json::LoadReportError;
use crate::redact::mask_credentials;
use crate::reference::hubs::EmbeddedHubsError;
use crate::report::html::HtmlError;
use crate::syntax::diagnostic::{Diagnostic, ValueError, render_all};
use crate::syntax::source::Sources;
use crate::transport::tls::TlsError;

/// Most diagnostics that are printed; `packs lint` shows all.
const MAX_DIAGNOSTICS: usize = 10;

pub type BoxedError = Box<dyn std::error::Error + Send + Sync>;

/// An error for the user to fix; the exit code is 2.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// A mistake in options or arguments, or a file that is not what a command needs.
    #[error("{message}")]
    Usage { message: String, help: Option<String> },
    /// Mistakes in the user's files, rendered with their places.
    #[error("{0}")]
    Diagnostics(String),
    /// Something that a command needs failed: a file, a socket, a library.
    #[error("{what}: {source}")]
    Failed { what: String, help: Option<String>, source: BoxedError },
    #[error("hubproof failed: {0}; please report this")]
    Panic(#[from] tokio::task::JoinError),
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error(transparent)]
    HubStart(#[from] HubStartError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    RoundTrips(#[from] RoundTripError),
    #[error(transparent)]
    PlanOverride(#[from] PlanOverrideError),
    #[error("failed to compare: {0}")]
    Comparison(#[from] LoadReportError),
    #[error(transparent)]
    Page(#[from] HtmlError),
    #[error(transparent)]
    PageServer(#[from] PageServerError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    EmbeddedHubs(#[from] EmbeddedHubsError),
    #[error(transparent)]
    ReferenceServer(#[from] hubproof_reference::ServeError),
    #[error("{}", .0.iter().map(Self::to_string).collect::<Vec<_>>().join("\n"))]
    Several(Vec<Self>),
}

impl From<ValueError> for CliError {
    fn from(error: ValueError) -> Self {
        Self::usage(error.message, error.help)
    }
}

impl CliError {
    /// Returns an error whose message alone says what to do.
    pub fn new(message: impl Display) -> Self {
        Self::Usage { message: message.to_string(), help: None }
    }

    pub fn usage(message: impl Display, help: impl Display) -> Self {
        Self::Usage { message: message.to_string(), help: Some(help.to_string()) }
    }

    /// Returns the error of an action; `what` says which, such as "failed to read FILE".
    pub fn failed(what: impl Display, source: impl Into<BoxedError>) -> Self {
        Self::Failed { what: what.to_string(), help: None, source: source.into() }
    }

    /// Returns the error of an action, with what to do.
    pub fn failed_with_help(what: impl Display, source: impl Into<BoxedError>, help: impl Display) -> Self {
        Self::Failed { what: what.to_string(), help: Some(help.to_string()), source: source.into() }
    }

    /// Returns one error for several; `None` for none.
    pub fn from_all(errors: Vec<Self>) -> Option<Self> {
        (!errors.is_empty()).then_some(Self::Several(errors))
    }

    /// Renders diagnostics, which begin with their own `error:`.
    pub fn from_diagnostics(diagnostics: &[Diagnostic], sources: &Sources) -> Self {
        let shown = &diagnostics[..diagnostics.len().min(MAX_DIAGNOSTICS)];
        let mut text = render_all(shown, sources, uses_color());
        if shown.len() < diagnostics.len() {
            text.push_str(&format!("\n\n... and {} more", diagnostics.len() - shown.len()));
        }
        Self::Diagnostics(text)
    }

    fn help(&self) -> Option<&str> {
        match self {
            Self::Usage { help, .. } | Self::Failed { help, .. } => help.as_deref(),
            Self::HubStart(error) => error.help(),
            Self::Engine(error) => error.help(),
            Self::PlanOverride(error) => error.help(),
            _ => None,
        }
    }

    /// Returns the text for stderr.
    pub fn render(&self) -> String {
        match self {
            Self::Diagnostics(text) => mask_credentials(text).into_owned(),
            Self::Several(errors) => errors.iter().map(Self::render).collect::<Vec<_>>().join("\n"),
            _ => match self.help() {
                Some(help) => mask_credentials(&format!("error: {self}\n  help: {help}")).into_owned(),
                None => mask_credentials(&format!("error: {self}")).into_owned(),
            },
        }
    }
}
