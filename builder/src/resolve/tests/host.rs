//! Against the mirror of this host's own apt sources; skipped without one, or without network.

use std::time::Instant;

use super::world::{chain, content, now, texts};
use crate::progress::Silent;
use crate::resolve::{Resolver, Sources, Update};
use crate::source::fetch::{Downloader, Settings};
use crate::spec::Image;

#[tokio::test(flavor = "multi_thread")]
async fn nginx_light_is_locked_from_the_hosts_mirror() {
    let text = "name = \"web\"\n[debian]\nsuite = \"bookworm\"\npackages = [\"nginx-light\"]\n";
    let image = Image::parse("image.toml".as_ref(), text).unwrap();
    let resolver = Resolver {
        downloader: Downloader::new(Settings { attempts: 1, ..Settings::default() }),
        sources: Sources::new(None, None, "/etc/apt"),
        keyring: None,
        now: now(),
        progress: &Silent,
    };
    let start = Instant::now();
    let first = match resolver.lock_image(&image, &image.platforms, None, &Update::Missing).await {
        Ok(lock) => lock,
        Err(error) if error.exit_code() == 6 => {
            println!("skipped: no mirror can be reached: {error}");
            return;
        }
        Err(error) => panic!("{}", chain(&error)),
    };
    println!("locked in {:?}", start.elapsed());
    let packages = texts(&content(&first, &image).packages);
    println!("image: {packages:#?}");
    let has = |name: &str| packages.iter().any(|text| text.split(' ').next() == Some(name));
    for name in ["nginx-light", "nginx-common", "libc6", "base-files"] {
        assert!(has(name), "{name}");
    }
    for name in ["dpkg", "apt", "debconf", "adduser", "perl", "perl-base", "bash", "dash"] {
        assert!(!has(name), "{name}");
    }
    let essential = &content(&first, &image).essential;
    println!("essential: {:#?}", texts(essential));
    println!("configure: {:#?}", texts(&content(&first, &image).configure));
    assert!(essential.iter().any(|key| key.name.as_str() == "base-passwd"));
    let again = resolver.lock_image(&image, &image.platforms, Some(&first), &Update::All).await;
    assert_eq!(again.unwrap(), first);
}
