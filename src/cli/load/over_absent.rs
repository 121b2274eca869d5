//! A build without the feature `nats`: shares do not agree on their start.

use std::path::Path;

use clap::Args;

use super::super::CliError;
use crate::cli::signals::SignalListener;
use crate::load::shares::over::member::AgreedStart;
use crate::load::shares::over::{MeasurementReporter, MemberEvent, ParticipationSettings};
use crate::load::shares::record::LostShare;

#[derive(Args)]
pub struct OverArgs {}

/// Never made.
pub enum Joined {}

impl OverArgs {
    pub fn is_given(&self) -> bool {
        false
    }

    pub async fn join(
        &self,
        _: ParticipationSettings,
        _: &mut SignalListener,
        _: bool,
    ) -> Result<Option<Joined>, CliError> {
        Ok(None)
    }
}

impl Joined {
    pub fn start(&self) -> &AgreedStart {
        match *self {}
    }

    pub fn reporter(&self) -> MeasurementReporter {
        match *self {}
    }

    pub async fn next_event(&mut self) -> MemberEvent {
        match *self {}
    }

    pub async fn end(self) -> (Vec<LostShare>, Self) {
        match self {}
    }

    pub async fn store(&self, _: &Path, _: bool) {
        match *self {}
    }
}
