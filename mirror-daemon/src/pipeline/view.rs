//! One generation of the configuration, as the pipelines see it.

use crate::config::{Config, ShadowConfig, ShadowId};
use crate::telemetry::{Ledger, ShadowLedger};
use std::sync::Arc;

/// One generation of the configuration, with the books of its shadows.
#[derive(Debug)]
pub struct View {
    /// Counts up with each reload.
    pub generation: u64,
    /// The configuration.
    pub config: Arc<Config>,
    /// The books, by [`ShadowId`].
    pub books: Vec<Arc<ShadowLedger>>,
}

impl View {
    /// Opens the books of every shadow of `config`.
    #[must_use]
    pub fn new(generation: u64, config: Arc<Config>, ledger: &Ledger) -> Self {
        let books = config.shadows.iter().map(|shadow| ledger.shadow(&shadow.name)).collect();
        Self { generation, config, books }
    }

    /// Every shadow with its books, in the order of [`ShadowId`].
    #[must_use]
    pub fn shadows(&self) -> Vec<(Arc<ShadowConfig>, Arc<ShadowLedger>)> {
        self.config.shadows.iter().cloned().zip(self.books.iter().cloned()).collect()
    }

    /// The shadow and its books; `None` for an id of another generation.
    #[must_use]
    pub fn shadow(&self, id: ShadowId) -> Option<(&Arc<ShadowConfig>, &Arc<ShadowLedger>)> {
        let index = usize::from(id.0);
        self.config.shadows.get(index).zip(self.books.get(index))
    }

    pub(super) fn shadow_named(&self, name: &str) -> Option<ShadowId> {
        let index = self.config.shadows.iter().position(|shadow| shadow.name == name)?;
        u16::try_from(index).ok().map(ShadowId)
    }
}
