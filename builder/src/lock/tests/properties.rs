//! parse(write(x)) == x, whatever x; and no text makes the reader panic.

use proptest::prelude::*;

use super::*;
use crate::document::Style;

/// Names that collide often, so that references need versions and architectures.
fn keys() -> impl Strategy<Value = Vec<PackageKey>> {
    let name = prop::sample::select(vec!["libc6", "perl", "g++", "libssl3"]);
    let version = prop::sample::select(vec!["1", "1:2.0-3~x", "2.0+b1"]);
    let architecture = prop::sample::select(vec!["all", "amd64", "arm64"]);
    let key = (name, version, architecture)
        .prop_map(|(name, version, architecture)| key(name, version, architecture));
    prop::collection::vec(key, 0..14)
}

fn platform() -> impl Strategy<Value = Platform> {
    prop::sample::select(vec!["linux/amd64", "linux/arm64"])
        .prop_map(|text| Platform::new(text).unwrap())
}

type Picks = (Platform, Vec<prop::sample::Index>, Vec<prop::sample::Index>);

fn picks() -> impl Strategy<Value = Picks> {
    let indexes = || prop::collection::vec(any::<prop::sample::Index>(), 0..6);
    (platform(), indexes(), indexes())
}

fn chosen(
    keys: &[PackageKey],
    platform: Platform,
    picks: &[prop::sample::Index],
) -> Vec<PackageKey> {
    let native: Vec<_> = keys
        .iter()
        .filter(|key| ["all", platform.debian_name()].contains(&key.architecture.as_str()))
        .collect();
    match native.is_empty() {
        true => Vec::new(),
        false => picks.iter().map(|pick| native[pick.index(native.len())].clone()).collect(),
    }
}

prop_compose! {
    fn request()(
        component in "[a-z]{1,3}(/[a-z]{1,3})?",
        packages in prop::collection::vec(("[a-z0-9]{2,5}", prop::option::of("[a-z0-9.*]{1,4}"), any::<bool>()), 0..4),
        essential in any::<bool>(),
        recommends in any::<bool>(),
        repository in prop::option::of("[a-z]{1,4} [a-z]{1,4}( [a-z]{1,4}){0,2}"),
        recipes in prop::collection::vec("[a-z]{1,4}( [a-z]{2,4}){0,2}", 0..2),
    ) -> LockedRequest {
        let packages = packages.into_iter().map(|(name, version, from)| {
            let version = version.map(|version| format!(" {version}")).unwrap_or_default();
            let from = if from { " from node" } else { "" };
            RequestedPackage::new(&format!("{name}{version}{from}")).unwrap()
        });
        LockedRequest {
            suite: Suite::new("stable").unwrap(),
            components: [Component::new(&component).unwrap()].into(),
            packages: packages.collect(),
            essential,
            recommends,
            exclude: Default::default(),
            repositories: repository.iter().map(|text| RequestedRepository::new(text).unwrap()).collect(),
            recipes: recipes.iter().map(|text| RequestedRecipe::new(text).unwrap()).collect(),
        }
    }
}

prop_compose! {
    fn locked_image(keys: Vec<PackageKey>)(
        seconds in prop::option::of(0_i64..4_000_000_000),
        ids in prop::collection::btree_map("\\PC{0,8}", 0_u32..=u32::MAX - 1, 0..4),
        sources in prop::collection::btree_map(".{0,8}", any::<[u8; 32]>(), 0..3),
        order in prop::option::of(".{0,10}"),
        special in "[a-z:\"\\\\é]{1,6}",
        picks in prop::collection::vec(picks(), 0..3),
        request in prop::option::of(request()),
        base in prop::option::of(any::<[u8; 32]>()),
    ) -> LockedImage {
        let mut image = LockedImage {
            date: seconds.map(|seconds| jiff::Timestamp::from_second(seconds).unwrap()),
            users: ids.clone(),
            groups: ids,
            request,
            base: base.map(|hash| LockedBase {
                from: "registry.example.com/team/base:1".to_owned(),
                digest: BlobDigest::from_bytes(hash),
            }),
            ..LockedImage::default()
        };
        let sources = sources.into_iter().map(|(name, hash)| (name, BlobDigest::from_bytes(hash)));
        let recipe = LockedRecipe { sources: sources.collect() };
        image.recipes.insert(Name::new("a.b").unwrap(), recipe);
        image.archives.insert(archive("debian", "bookworm-security"));
        for (platform, first, second) in picks {
            let packages = chosen(&keys, platform, &first);
            let members = packages.iter().map(|key| LayerMember::Package(key.name.clone()));
            let layers = vec![members.collect(), vec![LayerMember::Special(special.clone())], vec![]];
            let content = LockedPlatform {
                found_by: packages.iter().map(|key| (key.name.clone(), Name::new("x").unwrap())).collect(),
                packages: packages.into_iter().collect(),
                essential: chosen(&keys, platform, &second).into_iter().collect(),
                configure: Default::default(),
                recipes: [
                    (Name::new("a.b").unwrap(), chosen(&keys, platform, &second).into_iter().collect()),
                    (Name::new("none").unwrap(), Default::default()),
                ]
                .into(),
                order: order.clone(),
                layers,
            };
            image.platforms.insert(platform, content);
        }
        image
    }
}

fn lock() -> impl Strategy<Value = Lock> {
    keys()
        .prop_flat_map(|keys| {
            let names = prop::sample::select(vec!["web", "team/a.b", "x--y"]);
            let images = prop::collection::btree_map(names, locked_image(keys.clone()), 0..3);
            (Just(keys), images, any::<bool>())
        })
        .prop_map(|(keys, images, indexed)| {
            let mut lock = Lock::default();
            let main = archive("debian", "bookworm");
            for key in &keys {
                pin(&mut lock, key, &main);
            }
            if indexed {
                index(&mut lock, &main, "amd64", "2026-10-03T09:12:00Z");
            }
            for (name, image) in images {
                lock.images.insert(ImageName::new(name).unwrap(), image);
            }
            lock
        })
}

proptest! {
    #[test]
    fn reading_what_was_written_gives_the_same_lock(lock in lock()) {
        let text = lock.to_text();
        let read = Lock::parse(Path::new("x"), &text).map_err(|problems| {
            TestCaseError::fail(format!("{problems}\n{text}"))
        })?;
        prop_assert_eq!(&read, &lock);
        prop_assert_eq!(read.to_text(), text);
    }

    #[test]
    fn the_order_of_blocks_in_the_text_means_nothing(lock in lock(), seed in any::<u64>()) {
        let text = lock.to_text();
        let (head, blocks) = text.split_once("\n\n").unwrap_or((&text, ""));
        let mut blocks: Vec<_> = blocks.split("\n\n").collect();
        // Any fixed shuffle does: sorting by a hash that the seed salts.
        blocks.sort_by_key(|block| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&seed.to_le_bytes()).update(block.as_bytes());
            *hasher.finalize().as_bytes()
        });
        let shuffled = format!("{}\n\n{}\n", head.trim_end(), blocks.join("\n\n"));
        prop_assert_eq!(parse(&shuffled), lock);
    }

    #[test]
    fn images_merge_in_any_order(lock in lock()) {
        let parts: Vec<Lock> = lock.images.iter().map(|(name, image)| {
            let images = [(name.clone(), image.clone())].into();
            Lock { images, ..lock.clone() }
        }).collect();
        let merge = |parts: &mut dyn Iterator<Item = &Lock>| {
            let mut all = Lock::default();
            parts.for_each(|part| all.merge(part.clone()).unwrap());
            all
        };
        prop_assert_eq!(merge(&mut parts.iter()), merge(&mut parts.iter().rev()));
    }

    #[test]
    fn arbitrary_text_is_answered(text in any::<String>()) {
        if let Err(problems) = Lock::parse(Path::new("image.lock"), &text) {
            prop_assert!(!problems.render(Style::Plain).is_empty());
        }
    }

    #[test]
    fn mutated_locks_are_answered(
        at in any::<prop::sample::Index>(),
        length in 0_usize..60,
        put in prop_oneof![any::<String>(), "[\\[\\]{}\"'=.,\n#\\\\0-9a-z]{0,6}"],
    ) {
        let text = sample("web", "1").to_text();
        let start = at.index(text.len());
        let end = (start + length).min(text.len());
        prop_assume!(text.is_char_boundary(start) && text.is_char_boundary(end));
        let text = format!("{}{put}{}", &text[..start], &text[end..]);
        match Lock::parse(Path::new("image.lock"), &text) {
            Ok(lock) => prop_assert_eq!(parse(&lock.to_text()), lock),
            Err(problems) => prop_assert!(!problems.render(Style::Plain).is_empty()),
        }
    }
}
