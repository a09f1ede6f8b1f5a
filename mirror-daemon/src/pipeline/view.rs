//! One generation of the configuration, as the pipelines see it.

use crate::config::{CaptureConfig, CapturePoint, Config, ShadowConfig, ShadowId};
use crate::rule::GatewaySet;
use crate::telemetry::{Ledger, ShadowLedger};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One generation of the configuration, with the books of its shadows.
#[derive(Clone, Debug)]
pub struct View {
    /// Counts up with each reload.
    pub generation: u64,
    /// The configuration.
    pub config: Arc<Config>,
    /// The books, by [`ShadowId`].
    pub books: Vec<Arc<ShadowLedger>>,
    /// At which gateways each capture point is, by its number; `None`: where rules hold makes no difference.
    gateways: Option<BTreeMap<u32, GatewaySet>>,
}

impl View {
    /// Opens the books of every shadow of `config`.
    #[must_use]
    pub fn new(generation: u64, config: Arc<Config>, ledger: &Ledger) -> Self {
        let books = config.shadows.iter().map(|shadow| ledger.shadow(&shadow.name)).collect();
        Self { generation, config, books, gateways: None }
    }

    /// The same view for these capture points, by their numbers, of which `capture` says the gateways: from now on a route that names gateways holds
    /// only at points that carry one of them. A point that is not told of belongs to no gateway.
    #[must_use]
    pub fn at_points(
        mut self,
        capture: &CaptureConfig,
        points: impl Iterator<Item = (u32, CapturePoint)>,
    ) -> Self {
        let gateways = |point: &CapturePoint| self.config.rules.gateway_set(capture.gateways_at(point));
        self.gateways = Some(points.map(|(number, point)| (number, gateways(&point))).collect());
        self
    }

    /// The gateways at whose capture point requests of this number's flows are seen.
    pub(super) fn gateways_at(&self, capture_point: u32) -> GatewaySet {
        let Some(gateways) = &self.gateways else { return GatewaySet::ALL };
        gateways.get(&capture_point).copied().unwrap_or(GatewaySet::NONE)
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
