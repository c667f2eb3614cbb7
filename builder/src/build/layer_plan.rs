//! The layer plan that the lock records. While an image's members stay the same, so does its plan,
//! though sizes moved or this program's order table is another one: digests change for reasons
//! that show in the lock, and an update changes only the layers of what it moved.

use std::collections::BTreeMap;

use crate::image::{LayerPlan, OrderTable};
use crate::lock::{LayerMember, LockedPlatform};
use crate::spec::Layers;

/// What a plan was made by: `OPTION-TABLE`, where the table is the first 16 digits of its BLAKE3
/// hash, or `none` for a suite without one.
pub fn order(layers: &Layers, suite: Option<&str>) -> String {
    let table = suite.and_then(OrderTable::built_in_text).map_or_else(
        || "none".to_owned(),
        |text| blake3::hash(text.as_bytes()).to_hex()[..16].to_owned(),
    );
    format!("{}-{table}", option(layers))
}

fn option(layers: &Layers) -> String {
    match layers {
        Layers::Packed => "packed".to_owned(),
        Layers::Each => "each".to_owned(),
        Layers::Count(count) => count.to_string(),
    }
}

/// The recorded plan with what it was made by, if it was made for the same members and the same
/// `[image] layers`.
pub fn recorded(
    locked: &LockedPlatform,
    layers: &Layers,
    members: &[LayerMember],
) -> Option<(String, Vec<LayerPlan>)> {
    let order = locked.order.as_ref()?;
    let (made_for, _) = order.split_once('-')?;
    if made_for != option(layers) {
        return None;
    }
    let mut positions: BTreeMap<&LayerMember, usize> =
        members.iter().enumerate().map(|(position, member)| (member, position)).collect();
    let mut plan = Vec::new();
    for layer in &locked.layers {
        // Each member once: what is planned is taken away.
        let members = layer.iter().map(|member| positions.remove(member)).collect::<Option<_>>()?;
        plan.push(LayerPlan { members });
    }
    positions.is_empty().then(|| (order.clone(), plan))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(names: &[&str]) -> Vec<LayerMember> {
        names.iter().map(|name| LayerMember::new(name).unwrap()).collect()
    }

    fn locked(order: &str, layers: &[&[&str]]) -> LockedPlatform {
        let layers = layers.iter().map(|names| members(names)).collect();
        LockedPlatform { order: Some(order.to_owned()), layers, ..LockedPlatform::default() }
    }

    fn positions(
        locked: &LockedPlatform,
        layers: &Layers,
        now: &[&str],
    ) -> Option<Vec<Vec<usize>>> {
        let (_, plan) = recorded(locked, layers, &members(now))?;
        Some(plan.into_iter().map(|layer| layer.members).collect())
    }

    #[test]
    fn the_same_members_keep_their_plan() {
        let locked = locked("packed-0123", &[&["libc6"], &["zlib1g", "bash"], &["@files"]]);
        let now = ["bash", "libc6", "zlib1g", "@files"];
        let plan = positions(&locked, &Layers::Packed, &now).unwrap();
        assert_eq!(plan, [vec![1], vec![2, 0], vec![3]]);
        assert_eq!(recorded(&locked, &Layers::Packed, &members(&now)).unwrap().0, "packed-0123");
    }

    #[test]
    fn other_members_or_another_option_are_planned_anew() {
        let locked = locked("packed-0123", &[&["libc6"], &["bash"]]);
        for now in [&["libc6"][..], &["libc6", "bash", "@files"], &["libc6", "dash"]] {
            assert_eq!(positions(&locked, &Layers::Packed, now), None, "{now:?}");
        }
        for option in [Layers::Each, Layers::Count(2)] {
            assert_eq!(positions(&locked, &option, &["libc6", "bash"]), None);
        }
        let twice = LockedPlatform { layers: vec![members(&["libc6", "libc6"])], ..locked };
        assert_eq!(positions(&twice, &Layers::Packed, &["libc6", "bash"]), None);
    }

    #[test]
    fn plans_name_what_made_them() {
        assert_eq!(order(&Layers::Count(7), None), "7-none");
        assert_eq!(order(&Layers::Packed, Some("no-suite")), "packed-none");
        assert!(order(&Layers::Each, Some("bookworm")).starts_with("each-"));
    }
}
