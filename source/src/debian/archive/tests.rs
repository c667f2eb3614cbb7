//! Against a repository that apt's own tools made and signed, served from loopback and from disk.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use super::*;
use crate::fetch::testing::{Answer, TestServer};
use crate::fetch::{Settings, Silent};

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// A Release as far as these tests need one.
#[derive(Default, Clone)]
struct Files {
    by_hash: bool,
    files: BTreeMap<String, (BlobDigest, u64)>,
}

impl Files {
    fn parse(text: &str) -> Self {
        let (_, sums) = text.split_once("SHA256:\n").unwrap();
        let mut files = BTreeMap::new();
        for line in sums.lines().take_while(|line| line.starts_with(' ')) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let digest = BlobDigest::from_hex(words[0]).unwrap();
            files.insert(words[2].to_owned(), (digest, words[1].parse().unwrap()));
        }
        Self { by_hash: text.contains("\nAcquire-By-Hash: yes\n"), files }
    }
}

impl ReleaseFiles for Files {
    fn by_hash(&self) -> bool {
        self.by_hash
    }

    fn file(&self, path: &str) -> Option<(BlobDigest, u64)> {
        self.files.get(path).copied()
    }
}

/// A signed repository in a temporary directory, made by tests/support/signed_repository.sh.
struct Repository {
    directory: tempfile::TempDir,
    keyring: Keyring,
}

impl Repository {
    /// None, with a line that says so, when a tool is missing.
    fn make() -> Option<Self> {
        for tool in ["gpg", "apt-ftparchive", "dpkg-deb"] {
            if Command::new(tool).arg("--version").stdout(Stdio::null()).status().is_err() {
                println!("skipped: {tool} is not installed");
                return None;
            }
        }
        // gpg's agent needs a short path.
        let directory = tempfile::Builder::new().prefix("repo").tempdir_in("/tmp").unwrap();
        let (root, keys) = (directory.path().join("r"), directory.path().join("k"));
        fs::create_dir_all(&root).unwrap();
        package(&root, "hello", "1.0-1");
        package(&root, "hello", "1.1-1");
        let script =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/support/signed_repository.sh");
        let output = Command::new("sh").arg(script).args([&root, &keys]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let keyring = Keyring::from_bytes(&fs::read(keys.join("repository.asc")).unwrap()).unwrap();
        Some(Self { directory, keyring })
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("r")
    }

    fn serve(&self) -> TestServer {
        let server = TestServer::start();
        for entry in walkdir::WalkDir::new(self.root()).into_iter().flatten() {
            if entry.file_type().is_file() {
                let path = entry.path().strip_prefix(self.root()).unwrap();
                let content = fs::read(entry.path()).unwrap();
                server.put(&format!("/debian/{}", path.display()), content);
            }
        }
        server
    }
}

fn package(root: &Path, name: &str, version: &str) {
    let tree = root.join("tree");
    fs::create_dir_all(tree.join("DEBIAN")).unwrap();
    let control = format!(
        "Package: {name}\nVersion: {version}\nArchitecture: amd64\n\
         Maintainer: Nobody <nobody@example.com>\nDescription: a test\n"
    );
    fs::write(tree.join("DEBIAN/control"), control).unwrap();
    let file = root.join(format!("{name}_{version}_amd64.deb"));
    let status = Command::new("dpkg-deb")
        .args(["--root-owner-group", "--build"])
        .args([&tree, &file])
        .stdout(Stdio::null())
        .status();
    assert!(status.unwrap().success());
    fs::remove_dir_all(tree).unwrap();
}

fn downloader() -> Downloader {
    Downloader::new(Settings { attempts: 1, proxies: false, ..Settings::default() })
}

async fn index(
    mirror: &Url,
    files: &Files,
    component: &str,
) -> Result<PackagesIndex, ArchiveError> {
    let downloader = downloader();
    let (downloader, suite, release) = (&downloader, "test", files);
    let indexes = Indexes { downloader, mirror, suite, release, observer: &Silent };
    indexes.packages(component, "amd64").await
}

#[tokio::test]
async fn a_release_and_its_index_are_fetched_and_proved() {
    let Some(repository) = Repository::make() else { return };
    let server = repository.serve();
    let file = Url::from_directory_path(repository.root()).unwrap();
    let downloader = downloader();
    for mirror in [server.url("/debian"), file] {
        let release = fetch_release(&downloader, &mirror, "test", &repository.keyring, now());
        let release = release.await.unwrap();
        assert!(release.text.contains("\nCodename: test\n"), "{}", release.text);
        let message = fs::read(repository.root().join("dists/test/InRelease")).unwrap();
        assert_eq!(release.sha256, BlobDigest::of(&message));
        assert_eq!(release.signers, repository.keyring.fingerprints());
        let mut files = Files::parse(&release.text);
        let plain = fs::read(repository.root().join("dists/test/main/binary-amd64/Packages"));
        let plain = plain.unwrap();
        for suffix in [".xz", ".gz", ""] {
            let found = index(&mirror, &files, "main").await.unwrap();
            assert_eq!(found.bytes, plain);
            assert_eq!(found.path, format!("main/binary-amd64/Packages{suffix}"));
            files.files.remove(&found.path);
        }
        assert!(matches!(index(&mirror, &files, "main").await, Err(ArchiveError::NoIndex { .. })));
    }
    let asked: Vec<String> = server.requests().into_iter().map(|request| request.path).collect();
    assert!(asked[1].contains("/by-hash/SHA256/"), "{asked:?}");
    // With the detached form as well.
    let mirror = server.url("/debian");
    server.script("/debian/dists/test/InRelease", [Answer::Status(404, "")]);
    let release = fetch_release(&downloader, &mirror, "test", &repository.keyring, now()).await;
    assert!(release.unwrap().url.ends_with("/Release"));
}

#[tokio::test]
async fn what_is_not_signed_or_not_there_is_refused() {
    let Some(repository) = Repository::make() else { return };
    let server = repository.serve();
    let mirror = server.url("/debian");
    let stranger = fetch_release(&downloader(), &mirror, "test", Keyring::debian(), now()).await;
    assert!(matches!(stranger, Err(ArchiveError::Signature { .. })), "{stranger:?}");
    let absent = fetch_release(&downloader(), &mirror, "none", &repository.keyring, now()).await;
    assert!(matches!(absent, Err(ArchiveError::NoRelease { .. })), "{absent:?}");
    let path = "/debian/dists/test/InRelease";
    let message = fs::read_to_string(repository.root().join("dists/test/InRelease")).unwrap();
    server.put(path, message.replacen("Codename: test", "Codename: evil", 1));
    let changed = fetch_release(&downloader(), &mirror, "test", &repository.keyring, now()).await;
    assert!(matches!(changed, Err(ArchiveError::Signature { .. })), "{changed:?}");
}

#[tokio::test]
async fn indexes_that_lie_are_refused() {
    let gzip = |content: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    };
    let server = TestServer::start();
    let mirror = server.url("/debian");
    let plain = b"Package: a\n".to_vec();
    let path = "main/binary-amd64/Packages";
    let offer = |packed: &[u8], plain: &[u8]| {
        server.put(&format!("/debian/dists/test/{path}.gz"), packed);
        let of = |bytes: &[u8]| (BlobDigest::of(bytes), bytes.len() as u64);
        let files = [(format!("{path}.gz"), of(packed)), (path.to_owned(), of(plain))];
        Files { by_hash: false, files: files.into_iter().collect() }
    };
    let good = offer(&gzip(&plain), &plain);
    assert_eq!(index(&mirror, &good, "main").await.unwrap().bytes, plain);
    // Two members, as some tools write them.
    let members = offer(&[gzip(b"Package:"), gzip(b" a\n")].concat(), &plain);
    assert_eq!(index(&mirror, &members, "main").await.unwrap().bytes, plain);
    // By-hash is announced, but this mirror does not have it.
    let members = Files { by_hash: true, ..members };
    assert_eq!(index(&mirror, &members, "main").await.unwrap().bytes, plain);
    let bomb = offer(&gzip(&vec![0; 10_000_000]), &plain);
    let result = index(&mirror, &bomb, "main").await;
    assert!(matches!(result, Err(ArchiveError::TooLarge { limit: 11, .. })), "{result:?}");
    let other = offer(&gzip(b"Package: b\n"), &plain);
    let result = index(&mirror, &other, "main").await;
    assert!(matches!(result, Err(ArchiveError::Content { .. })), "{result:?}");
    let broken = offer(b"\x1f\x8b\x08 no gzip", &plain);
    let result = index(&mirror, &broken, "main").await;
    assert!(matches!(result, Err(ArchiveError::Decompress { .. })), "{result:?}");
    server.put(&format!("/debian/dists/test/{path}.gz"), b"something else".to_vec());
    let result = index(&mirror, &good, "main").await;
    let Err(ArchiveError::Fetch { source, .. }) = &result else { panic!("{result:?}") };
    assert!(source.is_verification_failure());
}

#[test]
fn apt_accepts_the_repository_too() {
    let Some(repository) = Repository::make() else { return };
    let state = repository.directory.path().join("apt");
    for folder in ["lists/partial", "cache/archives/partial", "parts"] {
        fs::create_dir_all(state.join(folder)).unwrap();
    }
    let line = format!(
        "deb [signed-by={}/k/repository.asc arch=amd64] file:{} test main\n",
        repository.directory.path().display(),
        repository.root().display()
    );
    fs::write(state.join("sources.list"), line).unwrap();
    fs::write(state.join("status"), "").unwrap();
    let option = |name: &str, path: &str| format!("{name}={}", state.join(path).display());
    let output = Command::new("apt-get")
        .args(["-o", &option("Dir::Etc::SourceList", "sources.list")])
        .args(["-o", &option("Dir::Etc::SourceParts", "parts")])
        .args(["-o", &option("Dir::State::Lists", "lists")])
        .args(["-o", &option("Dir::State::Status", "status")])
        .args(["-o", &option("Dir::Cache", "cache")])
        .args(["-o", "APT::Sandbox::User=root", "-o", "APT::Update::Error-Mode=any", "update"])
        .output();
    let Ok(output) = output else {
        println!("skipped: apt-get is not installed");
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
#[ignore = "needs the network: asks the mirror of this host's apt sources"]
async fn the_hosts_mirror_serves_a_release_of_debian() {
    use super::super::{apt_sources::read_apt_sources, mirror::find_mirrors};
    let sources = read_apt_sources(Path::new("/etc/apt")).unwrap();
    let mirrors = find_mirrors("bookworm", None, None, &sources).unwrap();
    let downloader = Downloader::new(Settings::default());
    for (mirror, suite) in
        [(&mirrors.main[0], "bookworm"), (&mirrors.security[0], "bookworm-security")]
    {
        let release = fetch_release(&downloader, mirror, suite, Keyring::debian(), now());
        let release = release.await.unwrap();
        let files = Files::parse(&release.text);
        let start = std::time::Instant::now();
        let (downloader, release) = (&downloader, &files);
        let indexes = Indexes { downloader, mirror, suite, release, observer: &Silent };
        let index = indexes.packages("main", "amd64").await.unwrap();
        println!("{suite}: {} bytes of {} in {:?}", index.bytes.len(), index.path, start.elapsed());
    }
}
