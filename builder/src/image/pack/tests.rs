use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn package(name: &str, class: u8, size: u64) -> PackItem {
    PackItem {
        name: name.to_owned(),
        source: format!("source-of-{name}"),
        class,
        compressed_size: size,
        is_own: false,
    }
}

fn own(name: &str) -> PackItem {
    PackItem { is_own: true, ..package(name, 0, 1000) }
}

fn names(items: &[PackItem], plans: &[LayerPlan]) -> Vec<Vec<String>> {
    let of = |plan: &LayerPlan| plan.members.iter().map(|&item| items[item].name.clone()).collect();
    plans.iter().map(of).collect()
}

fn packed(items: &[PackItem]) -> Vec<Vec<String>> {
    names(items, &plan_layers(items, LayersOption::Packed, 0).unwrap())
}

prop_compose! {
    /// Sizes from 64 bytes to 32 MB, each order of magnitude as likely: as packages are.
    fn some_package()(
        name in "[a-z]{2,6}", class in 0..CLASS_COUNT, power in 6_u32..25, source in 0_u8..20,
    ) -> PackItem {
        PackItem { source: format!("s{source}"), ..package(&name, class, 1 << power) }
    }
}

prop_compose! {
    fn some_packages(most: usize)(items in prop::collection::vec(some_package(), 0..most)) -> Vec<PackItem> {
        let mut seen = BTreeSet::new();
        items.into_iter().filter(|item| seen.insert(item.name.clone())).collect()
    }
}

fn some_option() -> impl Strategy<Value = LayersOption> {
    let count = (1_usize..130).prop_map(|n| LayersOption::Count(NonZeroUsize::new(n).unwrap()));
    prop_oneof![Just(LayersOption::Packed), Just(LayersOption::Each), count]
}

proptest! {
    #[test]
    fn every_item_is_in_one_layer_in_order_within_the_limit(
        packages in some_packages(150), own_count in 0_usize..30, option in some_option(), reserved in 0_usize..100,
    ) {
        let mut items: Vec<_> = (0..own_count).map(|number| own(&format!("z{number}"))).collect();
        items.extend(packages);
        let plans = plan_layers(&items, option, reserved).unwrap();
        let flat: Vec<usize> = plans.iter().flat_map(|plan| plan.members.clone()).collect();
        prop_assert_eq!(flat, stacking_order(&items));
        prop_assert!(plans.iter().all(|plan| !plan.members.is_empty()));
        prop_assert!(plans.len() + reserved <= LAYER_LIMIT);
        let room = LAYER_LIMIT - reserved;
        match option {
            LayersOption::Packed => {}
            LayersOption::Each => prop_assert_eq!(plans.len(), items.len().min(room)),
            LayersOption::Count(n) => prop_assert_eq!(plans.len(), items.len().min(room).min(n.get())),
        }
    }

    #[test]
    fn the_order_of_the_input_does_not_matter(mut items in some_packages(100), seed in any::<u64>()) {
        let before = packed(&items);
        // Sorting by a seeded hash is a shuffle.
        items.sort_by_key(|item| blake3::hash(format!("{seed}{}", item.name).as_bytes()).to_hex().to_string());
        prop_assert_eq!(packed(&items), before);
    }

    /// The reason for the whole scheme: packs are shared by images that differ.
    #[test]
    fn an_added_package_changes_its_own_pack_and_at_most_the_neighbours(
        items in some_packages(100), mut added in some_package(),
    ) {
        added.name = format!("{}0", added.name);
        let joins = items.iter().any(|item| (item.class, &item.source) == (added.class, &added.source));
        let before = packed(&items);
        let mut more = items;
        more.push(added);
        let after: BTreeSet<_> = packed(&more).into_iter().collect();
        let lost = before.iter().filter(|pack| !after.contains(*pack)).count();
        prop_assume!(after.len() < LAYER_LIMIT);
        // A package that joins others of its source may give their unit another weight.
        let bound = if joins { 3 } else { 1 };
        prop_assert!(lost <= bound, "{lost} packs changed");
    }

    /// At a limit, a boundary that gains or loses strength may drive out or let in another elsewhere.
    #[test]
    fn an_added_package_changes_few_packs_at_a_limit(
        items in some_packages(100), mut added in some_package(), count in 2_usize..40,
    ) {
        added.name = format!("{}0", added.name);
        let option = LayersOption::Count(NonZeroUsize::new(count).unwrap());
        let before = names(&items, &plan_layers(&items, option, 0).unwrap());
        let mut more = items;
        more.push(added);
        let after = names(&more, &plan_layers(&more, option, 0).unwrap());
        let after: BTreeSet<_> = after.into_iter().collect();
        let lost = before.iter().filter(|pack| !after.contains(*pack)).count();
        prop_assert!(lost <= 6, "{lost} packs changed");
    }

    #[test]
    fn an_update_of_any_size_changes_only_the_packs_beside_it(
        items in some_packages(100), which in any::<prop::sample::Index>(), power in 6_u32..25,
    ) {
        prop_assume!(!items.is_empty());
        let before = packed(&items);
        let mut updated = items;
        let position = which.index(updated.len());
        updated[position].compressed_size = 1 << power;
        let after: BTreeSet<_> = packed(&updated).into_iter().collect();
        prop_assume!(after.len() < LAYER_LIMIT && before.len() < LAYER_LIMIT);
        let lost = before.iter().filter(|pack| !after.contains(*pack)).count();
        prop_assert!(lost <= 3, "{lost} packs changed");
    }

    #[test]
    fn an_update_within_a_power_of_two_changes_nothing(mut items in some_packages(100), factor in 0_u64..64) {
        // Each is a unit of its own, and its size a power of two: any growth below twice stays within.
        for item in &mut items {
            item.source.clone_from(&item.name);
        }
        let before = packed(&items);
        let grow = |item: PackItem| {
            let size = item.compressed_size;
            PackItem { compressed_size: size + size * factor / 64, ..item }
        };
        let updated: Vec<_> = items.into_iter().map(grow).collect();
        prop_assert_eq!(packed(&updated), before);
    }
}

/// Updates of packages usually change the size by a few percent: nearly none may move a boundary.
#[test]
fn updates_of_usual_growth_hardly_ever_move_a_boundary() {
    let items: Vec<_> = (0..90_u64)
        .map(|number| {
            let spread = u64::from(name_hash(&format!("size{number}")));
            let class = u8::try_from(number % 8).unwrap();
            package(
                &format!("package{number}"),
                class,
                (4096 + spread % 4096) << (spread / 4096 % 10),
            )
        })
        .collect();
    let before: BTreeSet<_> = packed(&items).into_iter().collect();
    let mut changed = 0;
    for position in 0..items.len() {
        let mut updated = items.clone();
        updated[position].compressed_size += updated[position].compressed_size / 33;
        let after: BTreeSet<_> = packed(&updated).into_iter().collect();
        changed += usize::from(after != before);
    }
    assert!(changed <= 2, "{changed} of 90 updates by 3 % moved a boundary");
}

#[test]
fn a_large_or_restless_package_has_its_own_layer() {
    let items = [
        package("a", 3, 20_000),
        package("b", 3, 40_000_000),
        package("c", 3, 20_000),
        package("d", 6, 20_000),
        package("e", 6, 20_000_000),
        package("f", 6, 20_000),
    ];
    let plan = packed(&items);
    assert!(plan.contains(&vec!["b".to_owned()]), "{plan:?}");
    assert!(plan.contains(&vec!["e".to_owned()]), "{plan:?}");
}

#[test]
fn what_is_updated_together_stays_together() {
    let items: Vec<_> = (0..30)
        .map(|number| PackItem {
            source: format!("source{}", number / 3),
            ..package(&format!("p{number}"), 5, 900_000)
        })
        .collect();
    for pack in packed(&items) {
        assert_eq!(pack.len() % 3, 0, "{pack:?} splits a source");
    }
}

#[test]
fn small_quiet_packages_share_layers() {
    let items: Vec<_> = (0..60).map(|number| package(&format!("p{number}"), 3, 30_000)).collect();
    let layers = packed(&items).len();
    assert!((1..=8).contains(&layers), "{layers} layers for 60 packages of 30 kB");
}

#[test]
fn own_items_stay_last_and_in_the_order_given() {
    let items = [own("finish"), package("b", 1, 10), own("configure"), package("a", 1, 10)];
    let plan = packed(&items);
    assert_eq!(plan[plan.len() - 2..], [vec!["finish".to_owned()], vec!["configure".to_owned()]]);
    let one = plan_layers(&items, LayersOption::Count(NonZeroUsize::MIN), 0).unwrap();
    assert_eq!(names(&items, &one), [["a", "b", "finish", "configure"]]);
}

#[test]
fn a_base_without_room_is_refused_and_nothing_needs_no_room() {
    assert!(matches!(
        plan_layers(&[own("files")], LayersOption::Packed, LAYER_LIMIT),
        Err(ImageError::TooManyBaseLayers { reserved: LAYER_LIMIT, .. })
    ));
    assert_eq!(plan_layers(&[], LayersOption::Each, LAYER_LIMIT).unwrap(), []);
}

/// Freezes the decision: a change here moves packages between layers in all images.
#[test]
fn golden_name_hashes() {
    let hashes: BTreeMap<_, _> =
        ["libc6", "nginx", "zlib1g"].map(|name| (name, name_hash(name))).into();
    insta::assert_debug_snapshot!(hashes);
}
