//! What must not be locked, and how that is said.

use super::world::*;
use crate::lock::Lock;
use crate::resolve::{ResolveError, Update};
use crate::spec::Image;
use drystone_store::with_causes;

const DAY: i64 = 86_400;

async fn refused(world: &World, image: &Image, previous: Option<&Lock>) -> (ResolveError, String) {
    let error = world.lock(image, previous, Update::All).await.unwrap_err();
    let text = with_causes(&error);
    (error, text)
}

#[tokio::test]
async fn an_expired_release_is_refused_unless_image_toml_permits() {
    let Some(world) = World::new() else { return };
    world.publish("r", "rock", BASE, &[("VALID_DAYS", "1")]);
    let image = world.image("suite = 'rock'\npackages = ['mawk']");
    let mut resolver = world.resolver();
    let lock = resolver.lock_image(&image, &image.platforms, None, &Update::All).await.unwrap();
    assert!(lock.indexes.values().all(|index| index.valid_until.is_some()));
    resolver.now += 3 * DAY;
    let error =
        resolver.lock_image(&image, &image.platforms, None, &Update::All).await.unwrap_err();
    assert!(matches!(error, ResolveError::Expired { .. }), "{error}");
    assert_eq!(error.exit_code(), 7);
    assert!(error.hint().unwrap().contains("check-valid-until"));
    let frozen = world.image("suite = 'rock'\npackages = ['mawk']\ncheck-valid-until = false");
    resolver.lock_image(&frozen, &frozen.platforms, None, &Update::All).await.unwrap();
}

#[tokio::test]
async fn a_release_older_than_the_locks_is_refused() {
    let Some(world) = World::with(&[]) else { return };
    let image = world.image("suite = 'rock'\npackages = ['mawk']");
    let lock = world.first(&image).await;
    world.publish("r", "rock", BASE, &[("REPOSITORY_DATE", "3 days ago")]);
    let (error, text) = refused(&world, &image, Some(&lock)).await;
    assert!(matches!(error, ResolveError::RolledBack { .. }), "{text}");
    assert_eq!(error.exit_code(), 7);
    assert!(text.contains("the lock was made from one of"), "{text}");
}

#[tokio::test]
async fn a_companion_suite_that_was_locked_may_not_vanish() {
    let Some(world) = World::with(&[]) else { return };
    world.publish("r", "rock-security", &["mawk 2 Provides: awk"], &[]);
    let image = world.image("suite = 'rock'\npackages = ['mawk']");
    let lock = world.first(&image).await;
    assert_eq!(version(&lock, "mawk"), "2", "the main mirror may have the security suite");
    std::fs::remove_dir_all(world.path("r/dists/rock-security")).unwrap();
    let (error, text) = refused(&world, &image, Some(&lock)).await;
    assert_eq!(error.exit_code(), 6);
    assert!(text.contains("rock-security"), "{text}");
}

#[tokio::test]
async fn only_the_right_keys_count() {
    let Some(world) = World::with(&["web 1"]) else { return };
    world.publish("node", "x", &["node 1"], &[]);
    let image = world.image("suite = 'rock'\npackages = ['web']");
    let mut resolver = world.resolver();
    for keyring in [None, Some(world.key("node"))] {
        resolver.keyring = keyring;
        let error =
            resolver.lock_image(&image, &image.platforms, None, &Update::All).await.unwrap_err();
        assert_eq!(error.exit_code(), 7);
        assert!(
            with_causes(&error).contains("not among the trusted keys"),
            "{}",
            with_causes(&error)
        );
        assert!(error.hint().unwrap().contains("keyring"));
    }
    resolver.keyring = Some(world.path("absent.asc"));
    let error =
        resolver.lock_image(&image, &image.platforms, None, &Update::All).await.unwrap_err();
    assert!(error.to_string().contains("absent.asc") && error.exit_code() == 2, "{error}");
    let image = world.image(
        "suite = 'rock'\npackages = [{ name = 'node', from = 'node' }]\n\
         [debian.repository.node]\nurl = 'file:///r'\nsuite = 'x'\nkey = 'absent.asc'",
    );
    let (error, text) = refused(&world, &image, None).await;
    assert!(error.exit_code() == 2 && text.contains("image.toml:8:7"), "{text}");
    // The main archive's key is good for the main archive only.
    let image = world.image(&format!(
        "suite = 'rock'\npackages = [{{ name = 'node', from = 'node' }}]\n\
         [debian.repository.node]\nurl = '{}'\nsuite = 'x'\nkey = '{}'",
        world.url("node"),
        world.key("r").display()
    ));
    let (error, text) = refused(&world, &image, None).await;
    assert_eq!(error.exit_code(), 7);
    assert!(text.contains("node x") && text.contains("trusted"), "{text}");
}

#[tokio::test]
async fn unknown_packages_are_named_at_their_places() {
    let Some(world) =
        World::with(&["nginx-light 1", "smtp-a 1 Provides: smtp", "smtp-b 1 Provides: smtp"])
    else {
        return;
    };
    let image =
        world.image("suite = 'rock'\npackages = [\n  'ngnix-light',\n  'mawk',\n  'nosuch',\n]");
    let (error, text) = refused(&world, &image, None).await;
    assert_eq!(error.exit_code(), 5);
    assert!(text.contains("image.toml:5:3") && text.contains("image.toml:7:3"), "{text}");
    assert!(text.contains("did you mean `nginx-light`?"), "{text}");
    let image = world.image("suite = 'rock'\npackages = [{ name = 'mawk', version = '7.*' }]");
    let (error, text) = refused(&world, &image, None).await;
    assert_eq!(error.exit_code(), 5);
    assert!(text.contains("version 7.*") && text.contains("1 (from debian rock)"), "{text}");
    let image = world.image("suite = 'rock'\npackages = ['smtp']");
    let (_, text) = refused(&world, &image, None).await;
    assert!(text.contains("ask for one of `smtp-a`, `smtp-b`"), "{text}");
}

#[tokio::test]
async fn an_unsolvable_set_says_why() {
    let packages =
        ["aa 1 Depends: cc", "bb 1 Conflicts: cc", "cc 1", "dd 1 Depends: absent (>= 2)"];
    let Some(world) = World::with(&packages) else { return };
    let image = world.image("suite = 'rock'\npackages = ['aa', 'bb']");
    let (error, text) = refused(&world, &image, None).await;
    assert!(matches!(error, ResolveError::Unsolvable { .. }), "{text}");
    assert_eq!(error.exit_code(), 5);
    assert!(text.contains("bb 1 conflicts with cc"), "{text}");
    let image = world.image("suite = 'rock'\npackages = ['dd']");
    let (_, text) = refused(&world, &image, None).await;
    assert!(text.contains("dd 1 depends on absent (>= 2)"), "{text}");
    let image = world.image("suite = 'rock'\npackages = ['aa']\nexclude = ['cc']");
    let (_, text) = refused(&world, &image, None).await;
    assert!(text.contains("excluded"), "{text}");
    let image =
        world.image("suite = 'rock'\npackages = ['aa']\nessential = true\nexclude = ['dpkg']");
    let (error, text) = refused(&world, &image, None).await;
    assert_eq!(error.exit_code(), 5);
    assert!(text.contains("brings `dpkg`, which `exclude` keeps out"), "{text}");
}

#[tokio::test]
async fn mirrors_that_are_not_there_or_not_right_are_named() {
    let Some(world) = World::with(&["web 1"]) else { return };
    let image = world.image("suite = 'nosuch'\npackages = ['web']");
    let (error, text) = refused(&world, &image, None).await;
    assert_eq!(error.exit_code(), 6);
    assert!(text.contains("no signed Release for suite `nosuch`"), "{text}");
    // A signed Release in the wrong place proves nothing.
    let (from, to) = (world.path("r/dists/rock"), world.path("r/dists/sand"));
    std::fs::rename(from, to).unwrap();
    let image = world.image("suite = 'sand'\npackages = ['web']");
    let (error, text) = refused(&world, &image, None).await;
    assert!(matches!(error, ResolveError::WrongSuite { .. }), "{text}");
    assert_eq!(error.exit_code(), 7);
    // An index that is not what the Release says.
    std::fs::rename(world.path("r/dists/sand"), world.path("r/dists/rock")).unwrap();
    for entry in walkdir::WalkDir::new(world.path("r/dists")).into_iter().flatten() {
        let name = entry.file_name().to_string_lossy();
        if entry.file_type().is_file() && !name.contains("Release") {
            std::fs::write(entry.path(), "Package: evil\n").unwrap();
        }
    }
    let image = world.image("suite = 'rock'\npackages = ['web']");
    let (error, text) = refused(&world, &image, None).await;
    assert_eq!(error.exit_code(), 7, "{text}");
    let image = world.image("suite = 'rock'\npackages = ['web']\ncomponents = ['universe']");
    let (error, text) = refused(&world, &image, None).await;
    assert_eq!(error.exit_code(), 5);
    assert!(text.contains("component `universe`"), "{text}");
}
