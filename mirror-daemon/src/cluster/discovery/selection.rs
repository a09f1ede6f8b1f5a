//! PURE. Which pods are wanted, and how they are attached.

use super::pod::Pod;
use crate::config::{Config, PodAttach};
use crate::kube::LabelSelector;

/// Which pods are wanted: those of `[capture] kubernetes`, and those of every `[[kubernetes.gateway]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    wanted: Vec<Wanted>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    namespace: String,
    selector: LabelSelector,
    attach: PodAttach,
    /// `namespace/name` of the Gateway whose pods these are.
    gateway: Option<String>,
}

/// What becomes of a pod that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) attach: PodAttach,
    /// The gateways that its capture point carries, `namespace/name`, in ascending order.
    pub(super) gateways: Vec<String>,
}

impl Selection {
    /// What the configuration wants.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let chosen = config.pods.selections.iter().map(|one| Wanted {
            namespace: one.namespace.clone(),
            selector: one.selector.clone(),
            attach: one.attach.clone(),
            gateway: None,
        });
        let bound = config.kubernetes.gateways.iter().map(|bound| Wanted {
            namespace: bound.pod_namespace.clone(),
            selector: bound.pod_selector.clone(),
            attach: config.pods.gateway_attach.clone(),
            gateway: Some(bound.gateway.clone()),
        });
        Self { wanted: chosen.chain(bound).collect() }
    }

    /// Whether no pod can be wanted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// The namespace of all wanted pods, where they have only one: then only its pods need to be watched.
    pub(super) fn only_namespace(&self) -> Option<&str> {
        let (first, rest) = self.wanted.split_first()?;
        rest.iter().all(|one| one.namespace == first.namespace).then_some(first.namespace.as_str())
    }

    /// What becomes of a pod; `None` when it is not wanted. Of several that choose it the first says how it is
    /// attached, and all say which gateways it carries.
    pub(super) fn target(&self, pod: &Pod) -> Option<Target> {
        let chooses = |one: &&Wanted| one.namespace == pod.namespace && one.selector.selects(&pod.labels);
        let mut choosing = self.wanted.iter().filter(chooses).peekable();
        let attach = choosing.peek()?.attach.clone();
        let mut gateways: Vec<String> = choosing.filter_map(|one| one.gateway.clone()).collect();
        gateways.sort_unstable();
        gateways.dedup();
        Some(Target { attach, gateways })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(toml: &str) -> Selection {
        Selection::of(&Config::from_toml(toml, "t").unwrap_or_else(|faults| panic!("{faults}")))
    }

    fn pod(namespace: &str, labels: &[(&str, &str)]) -> Pod {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        Pod { namespace: namespace.to_owned(), labels: labels.iter().map(owned).collect(), ..Pod::default() }
    }

    const TWO: &str = "
        [capture]
        ports = [80]
        kubernetes = { namespace = 'infra', selector = 'app=gw', attach = 'interface' }
        [[kubernetes.gateway]]
        name = 'b'
        namespace = 'infra'
        pods = { selector = 'tier=front' }
        [[kubernetes.gateway]]
        name = 'a'
        namespace = 'team'
        pods = { selector = 'app=gw', namespace = 'infra' }";

    #[test]
    fn pod_carries_every_gateway_that_is_bound_to_it() {
        let selection = selection(TWO);
        let gateways = |labels| selection.target(&pod("infra", labels)).map(|target| target.gateways);
        assert_eq!(gateways(&[("app", "gw"), ("tier", "front")]).unwrap(), ["infra/b", "team/a"]);
        assert_eq!(gateways(&[("tier", "front")]).unwrap(), ["infra/b"]);
        assert_eq!(gateways(&[("app", "other")]), None);
        assert_eq!(selection.target(&pod("team", &[("app", "gw")])), None, "another namespace");
    }

    #[test]
    fn first_that_chooses_a_pod_says_how_it_is_attached() {
        let selection = selection(TWO);
        let target = selection.target(&pod("infra", &[("app", "gw")])).unwrap();
        assert_eq!(target.attach, PodAttach::Interface("eth0".to_owned()));
    }

    #[test]
    fn one_namespace_needs_no_watch_of_all() {
        assert_eq!(selection(TWO).only_namespace(), Some("infra"));
        let more = format!(
            "{TWO}\n[[kubernetes.gateway]]\nname = 'c'\nnamespace = 'x'\npods = {{ selector = 'y' }}"
        );
        assert_eq!(selection(&more).only_namespace(), None);
        assert!(selection("").is_empty() && selection("").only_namespace().is_none());
    }
}
