//! What stays and what moves when there is a lock.

use std::fs;

use super::world::*;
use crate::lock::Lock;
use crate::resolve::{Update, is_complete};
use crate::spec::ImageName;
use drystone_store::with_causes;

const OLD: &[&str] = &[
    "web 1 Depends: web-data (= 1), libc, lib (>= 1)",
    "web-data 1 Source: web",
    "lib 1 Depends: libc",
    "extra 1 Depends: libc",
];
/// Everything is newer, the old versions are dropped, and `web` needs the newer `lib`.
const NEW: &[&str] = &[
    "web 2 Depends: web-data (= 2), libc, lib (>= 2)",
    "web-data 2 Source: web",
    "lib 2 Depends: libc",
    "extra 2 Depends: libc",
];

fn versions<'a>(lock: &'a Lock, names: &[&str]) -> Vec<&'a str> {
    names.iter().map(|name| version(lock, name)).collect()
}

#[tokio::test]
async fn a_lock_that_answers_is_left_alone_without_any_mirror() {
    let Some(world) = World::with(OLD) else { return };
    let image = world.image("suite = 'rock'\npackages = ['web']");
    let lock = world.first(&image).await;
    fs::remove_dir_all(world.path("r")).unwrap();
    assert!(is_complete(&lock, &image, &image.platforms));
    assert_eq!(world.lock(&image, Some(&lock), Update::Missing).await.unwrap(), lock);
    let reordered = world.image("packages = [{ name = 'web' }]\nsuite = 'rock'\nexclude = []");
    assert!(is_complete(&lock, &reordered, &image.platforms), "the same request in other words");
    for other in [
        "suite = 'sand'\npackages = ['web']",
        "suite = 'rock'\npackages = ['web', 'lib']",
        "suite = 'rock'\npackages = [{ name = 'web', version = '1*' }]",
        "suite = 'rock'\npackages = ['web']\nrecommends = true",
        "suite = 'rock'\npackages = ['web']\nexclude = ['nano']",
        "suite = 'rock'\npackages = ['web']\ncomponents = ['main', 'contrib']",
    ] {
        assert!(!is_complete(&lock, &world.image(other), &image.platforms), "{other}");
    }
}

#[tokio::test]
async fn additions_move_no_pin_even_if_mirrors_dropped_it() {
    let Some(world) = World::with(OLD) else { return };
    let image = world.image("suite = 'rock'\npackages = ['web']");
    let mut lock = world.first(&image).await;
    let locked = lock.images.get_mut(&image.name).unwrap();
    locked.users.insert("web".to_owned(), 101);
    world.publish("r", "rock", &[BASE, NEW].concat(), &[]);
    let more = world.image("suite = 'rock'\npackages = ['web', 'extra']");
    let added = world.lock(&more, Some(&lock), Update::Missing).await.unwrap();
    assert_eq!(versions(&added, &["web", "web-data", "lib", "extra"]), ["1", "1", "1", "2"]);
    for (key, pin) in &lock.packages {
        assert_eq!(added.packages.get(key), Some(pin), "{key} is as it was");
    }
    let (before, after) = (&lock.images[&image.name], &added.images[&image.name]);
    assert_eq!(after.users, before.users, "accounts keep their numbers");
    assert!(after.date >= before.date);

    // Taking something away needs the relations of what was dropped, too.
    let less = world.image("suite = 'rock'\npackages = ['lib']");
    let less = world.lock(&less, Some(&added), Update::Missing).await.unwrap();
    assert_eq!(
        versions(&less, &["web", "web-data", "lib", "extra"]),
        ["none", "none", "1", "none"]
    );
}

#[tokio::test]
async fn an_update_moves_what_it_names_and_what_that_needs() {
    let Some(world) = World::with(OLD) else { return };
    let image = world.image("suite = 'rock'\npackages = ['web', 'extra']");
    let lock = world.first(&image).await;
    world.publish("r", "rock", &[BASE, NEW].concat(), &[]);
    let names = ["web", "web-data", "lib", "extra"];
    let one = world.lock(&image, Some(&lock), only(&["extra"])).await.unwrap();
    assert_eq!(versions(&one, &names), ["1", "1", "1", "2"]);
    let web = world.lock(&image, Some(&lock), only(&["web"])).await.unwrap();
    assert_eq!(versions(&web, &names), ["2", "2", "2", "1"], "siblings and needs follow");
    let all = world.lock(&image, Some(&lock), Update::All).await.unwrap();
    assert_eq!(versions(&all, &names), ["2", "2", "2", "2"]);
    assert!(all.images[&image.name].date >= lock.images[&image.name].date);
    let error = world.lock(&image, Some(&lock), only(&["webb"])).await.unwrap_err();
    assert_eq!(error.exit_code(), 5);
    assert!(error.to_string().contains("did you mean web"), "{error}");
}

#[tokio::test]
async fn an_update_without_news_keeps_the_date() {
    let Some(world) = World::new() else { return };
    world.publish("r", "rock", &[BASE, OLD].concat(), &[("REPOSITORY_DATE", "2 days ago")]);
    let image = world.image("suite = 'rock'\npackages = ['web']");
    let mut lock = world.first(&image).await;
    for pin in lock.packages.values_mut() {
        pin.tree = Some(drystone_store::digest::TreeHash::from_bytes([7; 32]));
    }
    world.publish("r", "rock", &[BASE, OLD, &["noise 1"]].concat(), &[]);
    let again = world.lock(&image, Some(&lock), Update::All).await.unwrap();
    assert_eq!(again.packages, lock.packages, "the trees of unchanged files stay known");
    assert_eq!(again.images, lock.images, "its date included");
    assert_ne!(again.indexes, lock.indexes, "but the newer Release is recorded");
}

#[tokio::test]
async fn a_changed_version_pattern_moves_its_package_and_siblings_only() {
    let Some(world) = World::with(&[OLD, &["free 1"]].concat()) else { return };
    let image = world.image("suite = 'rock'\npackages = ['web-data', 'extra']");
    let lock = world.first(&image).await;
    world.publish("r", "rock", &[BASE, NEW].concat(), &[]);
    let image =
        world.image("suite = 'rock'\npackages = [{ name = 'web-data', version = '2*' }, 'extra']");
    let moved = world.lock(&image, Some(&lock), Update::Missing).await.unwrap();
    assert_eq!(versions(&moved, &["web-data", "extra"]), ["2", "1"]);
}

#[tokio::test]
async fn pins_in_the_way_are_explained_with_a_way_out() {
    let Some(world) = World::with(OLD) else { return };
    let image = world.image("suite = 'rock'\npackages = ['lib']");
    let lock = world.first(&image).await;
    world.publish("r", "rock", &[BASE, NEW].concat(), &[]);
    let image = world.image("suite = 'rock'\npackages = ['lib', 'web']");
    let error = world.lock(&image, Some(&lock), Update::Missing).await.unwrap_err();
    assert_eq!(error.exit_code(), 5);
    let text = with_causes(&error);
    assert!(text.contains("the lock pins") && text.contains("lib"), "{text}");
    assert!(error.hint().unwrap().contains("drystone update"));
    let updated = world.lock(&image, Some(&lock), only(&["lib"])).await.unwrap();
    assert_eq!(versions(&updated, &["web", "lib"]), ["2", "2"]);
}

#[tokio::test]
async fn images_that_share_a_lock_share_versions_where_that_works_out() {
    let Some(world) = World::with(OLD) else { return };
    let first = world.image("suite = 'rock'\npackages = ['lib', 'extra']");
    let mut lock = world.first(&first).await;
    world.publish("r", "rock", &[BASE, NEW].concat(), &[]);
    let mut second = world.image("suite = 'rock'\npackages = ['extra']");
    second.name = ImageName::new("second").unwrap();
    let share = world.lock(&second, Some(&lock), Update::Missing).await.unwrap();
    assert_eq!(version(&share, "extra"), "1", "as the first image has it");
    lock.merge(share).unwrap();
    // `web` needs a newer `lib` than the first image has: the second image gets its own.
    let mut third = world.image("suite = 'rock'\npackages = ['web']");
    third.name = ImageName::new("third").unwrap();
    let share = world.lock(&third, Some(&lock), Update::Missing).await.unwrap();
    assert_eq!(versions(&share, &["web", "lib"]), ["2", "2"]);
    lock.merge(share).unwrap();
    assert!(is_complete(&lock, &first, &first.platforms), "the first image is as it was");
}
