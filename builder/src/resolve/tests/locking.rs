//! First locks.

use std::fs;
use std::process::Command;

use super::world::*;
use crate::lock::{Lock, LockedPlatform};
use crate::resolve::{Sources, Update, is_complete};
use crate::spec::Platform;

#[tokio::test]
async fn the_three_sets_are_told_apart() {
    let Some(world) = World::with(&["web 1 Depends: libc, debconf", "other 1"]) else { return };
    let image = world.image("suite = 'rock'\npackages = ['web']");
    let lock = world.first(&image).await;
    let LockedPlatform { packages, essential, configure, .. } = content(&lock, &image);
    assert_eq!(texts(packages), ["base-files 12", "libc 1", "web 1"]);
    assert_eq!(texts(essential), ["base-files 12", "base-passwd 3", "dpkg 1", "libc 1", "mawk 1"]);
    assert_eq!(texts(configure), ["debconf 1"]);
    assert_eq!(lock.packages.len(), 7, "what is not used is not pinned");
    assert!(world.events.texts().contains("rock` has no `-security`"), "{}", world.events.texts());
    let pin = lock.packages.values().next().unwrap();
    assert!(world.path("r").join(pin.path.as_str()).exists(), "{}", pin.path);

    let all = world.image("suite = 'rock'\npackages = ['web']\nessential = true");
    let lock = world.first(&all).await;
    let LockedPlatform { packages, configure, .. } = content(&lock, &all);
    assert_eq!(packages.len(), 7);
    assert!(configure.is_empty());
    assert!(!is_complete(&lock, &image, &image.platforms), "another request");
}

#[tokio::test]
async fn a_version_may_be_asked_of_an_essential_package() {
    let Some(world) = World::with(&["web 1 Depends: libc", "libc 2"]) else { return };
    let newest = world.first(&world.image("suite = 'rock'\npackages = ['web']")).await;
    assert_eq!(version(&newest, "libc"), "2");
    let older = "suite = 'rock'\npackages = ['web', { name = 'libc', version = '1' }]";
    let older = world.image(older);
    let lock = world.first(&older).await;
    assert_eq!(version(&lock, "libc"), "1");
    assert!(texts(&content(&lock, &older).essential).contains(&"libc 1".to_owned()));
}

#[tokio::test]
async fn an_alias_is_locked_as_its_codename_with_updates_and_security() {
    let main = &["web 1", "tool 1", "lib 1"];
    let Some(world) = World::new() else { return };
    let alias = [("CODENAME", "rock"), ("ORIGIN", "Debian")];
    world.publish("r", "stable", &[BASE, main].concat(), &alias);
    let (from, to) = (world.path("r/dists/stable"), world.path("r/dists/rock"));
    assert!(Command::new("cp").arg("-r").args([from, to]).status().unwrap().success());
    world.publish("r", "rock-updates", &["web 2", "tool 3"], &[("ORIGIN", "Debian")]);
    world.publish("r-security", "rock-security", &["web 3", "tool 2"], &[("ORIGIN", "Debian")]);
    let image = world.image("suite = 'stable'\npackages = ['web', 'tool', 'lib']");
    let lock = world.first(&image).await;
    assert_eq!(
        [version(&lock, "web"), version(&lock, "tool"), version(&lock, "lib")],
        ["3", "3", "1"]
    );
    let locked = &lock.images[&image.name];
    assert_eq!(locked.suite.as_ref().unwrap().as_str(), "rock");
    let archives: Vec<String> = locked.archives.iter().map(ToString::to_string).collect();
    assert_eq!(archives, ["debian rock", "debian rock-security", "debian rock-updates"]);
    let from = |name: &str| {
        let pin = lock.packages.iter().find(|(key, _)| key.name.as_str() == name).unwrap().1;
        pin.archive.suite.to_string()
    };
    assert_eq!([from("web"), from("tool"), from("lib")], ["rock-security", "rock-updates", "rock"]);
    assert_eq!(lock.indexes.len(), 3);
    assert!(lock.indexes.values().all(|index| index.signer.as_str().len() == 40));

    // The alias moves on: what is locked stays with its codename until all is updated.
    let moved = [("CODENAME", "sand"), ("ORIGIN", "Debian")];
    world.publish("r", "stable", &[BASE, &["web 9", "tool 9", "lib 9", "more 9"]].concat(), &moved);
    for suite in ["sand", "sand-updates", "sand-security"] {
        world.publish("r", suite, &["nothing 1"], &[("ORIGIN", "Debian")]);
    }
    let more = world.image("suite = 'stable'\npackages = ['web', 'tool', 'lib', 'mawk']");
    let kept = world.lock(&more, Some(&lock), Update::Missing).await.unwrap();
    assert_eq!([version(&kept, "web"), version(&kept, "tool")], ["3", "3"]);
    let updated = world.lock(&more, Some(&lock), Update::All).await.unwrap();
    assert_eq!([version(&updated, "web"), version(&updated, "tool")], ["9", "9"]);
    assert_eq!(updated.images[&more.name].suite.as_ref().unwrap().as_str(), "sand");
}

#[tokio::test]
async fn a_repository_gives_what_is_asked_from_it_and_what_that_needs() {
    let Some(world) = World::with(&["web 1", "node 18 Depends: libnode", "libnode 18"]) else {
        return;
    };
    let third =
        ["node 22 Depends: libnode (>= 22), libc", "libnode 22", "libc 99", "web 99", "only 22"];
    world.publish("node", "nodistro", &third, &[]);
    let repository = format!(
        "[debian.repository.node]\nurl = '{}'\nsuite = 'nodistro'\nkey = '{}'\n\
         [debian.repository.unused]\nurl = 'file:///nonexistent'\nsuite = 'x'\nkey = 'nokey'",
        world.url("node"),
        world.key("node").display()
    );
    let image = world.image(&format!(
        "suite = 'rock'\npackages = ['web', {{ name = 'node', version = '22*', from = 'node' }}]\n{repository}"
    ));
    let lock = world.first(&image).await;
    let got = ["node", "libnode", "libc", "web"].map(|name| version(&lock, name));
    assert_eq!(got, ["22", "22", "1", "1"], "libc and web of the main archive are good enough");
    let node = lock.packages.iter().find(|(key, _)| key.name.as_str() == "node").unwrap().1;
    assert_eq!(node.archive.to_string(), "node nodistro");
    let request = lock.images[&image.name].request.as_ref().unwrap();
    assert_eq!(request.repositories.len(), 1, "an unused repository is not even asked");

    // When nothing is asked from the repository any more, its pins hold nothing back.
    let back = world.image("suite = 'rock'\npackages = ['web', 'node']");
    let back = world.lock(&back, Some(&lock), Update::Missing).await.unwrap();
    assert_eq!(["node", "libnode"].map(|name| version(&back, name)), ["18", "18"]);

    // Without `from` it does not count, and the message says where it is.
    let image = world.image(&format!(
        "suite = 'rock'\npackages = ['only', {{ name = 'node', from = 'node' }}]\n{repository}"
    ));
    let error = world.lock(&image, None, Update::Missing).await.unwrap_err();
    assert_eq!(error.exit_code(), 5);
    assert!(error.to_string().contains("22 (from node)"), "{error}");
}

#[tokio::test]
async fn platforms_are_added_one_by_one() {
    let packages =
        ["web:amd64 1 Depends: lib", "web:arm64 1 Depends: lib", "lib:amd64 1", "lib:arm64 1"];
    let Some(world) = World::with(&packages) else { return };
    let mut image = world.image("suite = 'rock'\npackages = ['web']");
    let lock = world.first(&image).await;
    // A newer version appears, but the pins hold, and the new platform follows them.
    let newer = ["lib:amd64 2", "lib:arm64 2"];
    world.publish("r", "rock", &[BASE, &packages, &newer].concat(), &[]);
    image.platforms =
        vec![Platform::new("linux/amd64").unwrap(), Platform::new("linux/arm64").unwrap()];
    assert!(!is_complete(&lock, &image, &image.platforms));
    let both = world.lock(&image, Some(&lock), Update::Missing).await.unwrap();
    assert!(is_complete(&both, &image, &image.platforms));
    assert_eq!(content(&both, &image), content(&lock, &image), "the first platform stays");
    let versions: Vec<_> = both
        .packages
        .keys()
        .filter(|key| key.name.as_str() == "lib")
        .map(ToString::to_string)
        .collect();
    assert_eq!(versions, ["lib 1 amd64", "lib 1 arm64"]);
    let mut merged = lock.clone();
    merged.merge(both.clone()).unwrap();
    assert_eq!(merged.images, both.images);
}

#[tokio::test]
async fn the_hosts_apt_sources_are_used_if_they_prove_to_be_debian() {
    let Some(world) = World::new() else { return };
    let apt = world.path("apt");
    fs::create_dir_all(&apt).unwrap();
    let (main, security) = (world.url("r"), world.url("r-security"));
    let list = format!("deb {main} rock main\ndeb {security} rock-security main\n");
    fs::write(apt.join("sources.list"), list).unwrap();
    world.publish("r", "rock", BASE, &[]);
    let image = world.image("suite = 'rock'\npackages = ['mawk']");
    let mut resolver = world.resolver();
    resolver.sources = Sources::new(None, None, &apt);
    let lock = async |previous: Option<&Lock>| {
        resolver.lock_image(&image, &image.platforms, previous, &Update::Missing).await
    };
    let error = lock(None).await.unwrap_err();
    assert!(error.to_string().contains("expected Debian"), "{error}");
    assert_eq!(error.exit_code(), 7);
    for (repository, suite) in [("r", "rock"), ("r", "rock-updates")] {
        world.publish(repository, suite, BASE, &[("ORIGIN", "Debian")]);
    }
    // Debian without its security archive: someone may hold it back.
    let error = lock(None).await.unwrap_err();
    assert!(error.to_string().contains("rock-security"), "{error}");
    world.publish(
        "r-security",
        "rock-security",
        &["mawk 2 Provides: awk"],
        &[("ORIGIN", "Debian")],
    );
    assert_eq!(version(&lock(None).await.unwrap(), "mawk"), "2");
}
