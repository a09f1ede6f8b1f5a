//! What of rules that run still holds, when those that should follow them can't be taken.

use super::resolve::{Resolved, Route, Rule};

impl Resolved {
    /// These rules without the mirrors that `now` does not have in the same place. Each request keeps its rule, so that
    /// nothing is mirrored that was not; what has become of its route in any other way takes the mirror away, too.
    #[must_use]
    pub fn cut_to(&self, now: &Self) -> Self {
        let mut cut = self.clone();
        for route in &mut cut.routes {
            let same = now.routes.iter().find(|other| is_same_place(other, route));
            for rule in &mut route.rules {
                let twin = same.and_then(|same| same.rules.iter().find(|other| is_same_rule(other, rule)));
                rule.mirrors.retain(|mirror| twin.is_some_and(|twin| twin.mirrors.contains(mirror)));
            }
        }
        cut.drop_idle_shadows();
        cut
    }

    /// Leaves out shadows that no rule mirrors to.
    pub(super) fn drop_idle_shadows(&mut self) {
        let mirrors = self.routes.iter().flat_map(|route| &route.rules).flat_map(|rule| &rule.mirrors);
        let used: std::collections::BTreeSet<&String> = mirrors.map(|(shadow, _)| shadow).collect();
        self.shadows.retain(|_, name| used.contains(name));
    }
}

fn is_same_place(left: &Route, right: &Route) -> bool {
    (&left.object, &left.hosts, &left.gateways) == (&right.object, &right.hosts, &right.gateways)
}

fn is_same_rule(left: &Rule, right: &Rule) -> bool {
    (left.index, &left.matches) == (right.index, &right.matches)
}
