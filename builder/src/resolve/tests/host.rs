//! Against the mirror of this host's own apt sources; skipped without one, or without network.

use std::sync::Arc;
use std::time::Instant;

use drystone_store::layer::Compression;
use drystone_store::store::Store;
use drystone_store::with_causes;
use url::Url;

use super::world::{content, now, texts};
use crate::progress::Silent;
use crate::resolve::{Imports, Resolver, Sources, Update, import_packages};
use crate::spec::Image;
use drystone_source::fetch::{Downloader, Settings, Silent as NoObserver};

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
        Err(error) => panic!("{}", with_causes(&error)),
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

/// Seconds of processor time that this process has used (proc_pid_stat(5), fields 14 and 15).
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the network: imports a whole image from the mirror of this host's apt sources"]
async fn a_cold_import_keeps_the_processors_busy() {
    let text = "name = \"web\"\n[debian]\nsuite = \"bookworm\"\npackages = [\"nginx-light\"]\n";
    let image = Image::parse("image.toml".as_ref(), text).unwrap();
    let downloader = Downloader::new(Settings::default());
    let sources = Sources::new(None, None, "/etc/apt");
    let resolver = Resolver { downloader, sources, keyring: None, now: now(), progress: &Silent };
    let lock = resolver.lock_image(&image, &image.platforms, None, &Update::Missing).await.unwrap();
    let keys: Vec<_> = lock.packages.keys().cloned().collect();
    let directory = tempfile::tempdir().unwrap();
    let pool = directory.path().join("r");
    for (round, mirror) in [("network", None), ("disk", Some(&pool))] {
        let store = directory.path().join(round);
        let store = Arc::new(Store::open(&store).unwrap());
        let mirror = mirror.map(|path| Url::from_directory_path(path).unwrap());
        let sources = Sources::new(mirror.clone(), mirror, "/etc/apt");
        let imports = Imports {
            store: &store,
            downloader: &resolver.downloader,
            sources: &sources,
            compression: Compression::Gzip1,
            jobs: std::thread::available_parallelism().unwrap().get(),
            offline: false,
            progress: &Silent,
        };
        let (start, before) = (Instant::now(), processor_seconds());
        let imported = import_packages(imports, &lock, &keys).await.unwrap();
        let (wall, processor) = (start.elapsed().as_secs_f64(), processor_seconds() - before);
        let size: u64 = lock.packages.values().map(|pin| pin.size).sum();
        println!(
            "{round}: {} packages of {size} bytes in {wall:.2} s, {processor:.2} s of processors",
            imported.len()
        );
        for pin in lock.packages.values() {
            let path = pool.join(pin.path.as_str());
            if round == "network" {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                let urls = sources.addresses(pin).unwrap();
                let bytes = resolver
                    .downloader
                    .fetch_verified("x", &urls, pin.sha256, pin.size, &NoObserver)
                    .await;
                std::fs::write(path, bytes.unwrap()).unwrap();
            }
        }
    }
}
