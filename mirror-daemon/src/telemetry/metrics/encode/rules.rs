//! The rules that are taken from the cluster.

use super::super::{self as metrics, Family};
use super::{FamilyEncoder, open, sums_of};
use crate::telemetry::snapshot::{RulesStatus, WatchState, WatchStatus};
use prometheus_client::encoding::DescriptorEncoder;
use std::fmt;

/// Writes the families; without samples of a kind where no rules are taken.
pub(super) fn rules(
    encoder: &mut DescriptorEncoder<'_>,
    found: Option<&RulesStatus>,
) -> Result<(), fmt::Error> {
    let none = RulesStatus::default();
    let found = found.unwrap_or(&none);
    let mut family = open(encoder, &metrics::RULES_WATCH)?;
    for kind in &found.kinds {
        for state in WatchState::ALL {
            let labels = [("kind", kind.kind), ("state", state.label())];
            family.gauge(&labels, u64::from(state == kind.state))?;
        }
    }
    open(encoder, &metrics::RULES_SYNCED)?.gauge(&[], u64::from(found.is_synced))?;
    let mut family = open(encoder, &metrics::RULES_SILENCE)?;
    for kind in &found.kinds {
        if let Some(silence) = kind.silence {
            family.gauge(&[("kind", kind.kind)], silence.as_secs_f64())?;
        }
    }
    let mut family = open(encoder, &metrics::RULES_OBJECTS)?;
    for kind in &found.kinds {
        for (used, count) in [("held", kind.objects), ("refused", kind.refused)] {
            family.gauge(&[("kind", kind.kind), ("use", used)], count)?;
        }
    }
    open(encoder, &metrics::RULES_OBJECT)?.gauge(&[], found.object_bytes)?;
    counters(encoder, &found.kinds)?;
    sums_of(encoder, &metrics::RULES_FINDINGS, "reason", &found.findings)?;
    sums_of(encoder, &metrics::RULES_EVENTS, "outcome", &found.events)
}

fn counters(encoder: &mut DescriptorEncoder<'_>, kinds: &[WatchStatus]) -> Result<(), fmt::Error> {
    type Reading = fn(&WatchStatus) -> u64;
    let counters: [(&Family, Reading); 3] = [
        (&metrics::RULES_CHANGES, |kind| kind.changes),
        (&metrics::RULES_LISTS, |kind| kind.lists),
        (&metrics::RULES_WATCHES, |kind| kind.watches),
    ];
    for (definition, reading) in counters {
        let mut family = open(encoder, definition)?;
        for kind in kinds {
            family.counter(&[("kind", kind.kind)], reading(kind))?;
        }
    }
    let mut family: FamilyEncoder<'_> = open(encoder, &metrics::RULES_FAILURES)?;
    for kind in kinds {
        for (cause, count) in &kind.failures {
            family.counter(&[("kind", kind.kind), ("cause", cause)], *count)?;
        }
    }
    Ok(())
}
