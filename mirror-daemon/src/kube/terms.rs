//! What rules are made by, besides objects.

use crate::config::{Config, KubernetesConfig, MAX_SHADOWS};
use std::collections::BTreeSet;

/// What the configuration says that rules are added to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// `[kubernetes]`.
    pub settings: KubernetesConfig,
    /// Names of its own shadows: they come first, and rules get the room that is left.
    pub own_shadows: BTreeSet<String>,
}

impl Terms {
    /// Those of a configuration to which no such rules were added yet.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let own_shadows = config.shadows.iter().map(|shadow| shadow.name.clone()).collect();
        Self { settings: config.kubernetes.clone(), own_shadows }
    }

    /// Most shadows of rules.
    pub(super) fn most_shadows(&self) -> usize {
        MAX_SHADOWS.saturating_sub(self.own_shadows.len())
    }
}
