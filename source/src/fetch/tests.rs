//! Every way in which a server can misbehave, against a real one on loopback.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use drystone_store::digest::BlobDigest;

use url::Url;

use super::testing::{Answer, TestServer};
use super::*;

fn settings() -> Settings {
    Settings {
        attempts: 3,
        idle_timeout: Duration::from_millis(400),
        first_pause: Duration::from_millis(5),
        longest_pause: Duration::from_millis(1500),
        proxies: false,
        ..Settings::default()
    }
}

fn content() -> Vec<u8> {
    (0_u32..60_000).flat_map(u32::to_le_bytes).collect()
}

#[derive(Default)]
struct Recorder(Mutex<BTreeMap<&'static str, u64>>);

impl Recorder {
    fn add(&self, event: &'static str, count: u64) {
        *self.0.lock().unwrap().entry(event).or_default() += count;
    }

    fn count(&self, event: &str) -> u64 {
        self.0.lock().unwrap().get(event).copied().unwrap_or_default()
    }
}

impl DownloadObserver for Recorder {
    fn started(&self, _name: &str, total: Option<u64>) {
        self.add("started", 1);
        self.add("total", total.unwrap_or_default());
    }

    fn advanced(&self, _name: &str, bytes: u64) {
        self.add("bytes", bytes);
    }

    fn restarted(&self, _name: &str) {
        self.add("restarted", 1);
    }

    fn retrying(&self, _name: &str, _reason: &str) {
        self.add("retrying", 1);
    }

    fn finished(&self, _name: &str) {
        self.add("finished", 1);
    }
}

struct Bench {
    server: TestServer,
    directory: tempfile::TempDir,
    recorder: Recorder,
}

impl Bench {
    fn new() -> Self {
        let server = TestServer::start();
        server.put("/file", content());
        let directory = tempfile::tempdir().unwrap();
        Self { server, directory, recorder: Recorder::default() }
    }

    fn destination(&self) -> PathBuf {
        self.directory.path().join("file")
    }

    fn exact(&self, urls: &[Url]) -> Download {
        let bytes = content();
        let (digest, size) = (BlobDigest::of(&bytes), bytes.len() as u64);
        Download::exact("file", urls.to_vec(), digest, size, self.destination())
    }

    async fn fetch(&self, download: &Download) -> Result<Downloaded, FetchError> {
        Downloader::new(settings()).fetch(download, &self.recorder).await
    }

    async fn scripted(
        &self,
        answers: impl IntoIterator<Item = Answer>,
    ) -> Result<Downloaded, FetchError> {
        self.server.script("/file", answers);
        self.fetch(&self.exact(&[self.server.url("/file")])).await
    }

    fn ranges(&self) -> Vec<Option<String>> {
        let requests = self.server.requests();
        requests.iter().map(|request| request.headers.get("range").cloned()).collect()
    }

    fn holds_content(&self) -> bool {
        std::fs::read(self.destination()).unwrap() == content()
    }

    fn is_empty(&self) -> bool {
        std::fs::read(self.destination()).unwrap().is_empty()
    }
}

#[tokio::test]
async fn a_file_is_fetched_and_observed() {
    let bench = Bench::new();
    let downloaded = bench.scripted([]).await.unwrap();
    assert_eq!(downloaded.sha256, BlobDigest::of(&content()));
    assert_eq!((downloaded.size, bench.recorder.count("bytes")), (240_000, 240_000));
    assert!(bench.holds_content());
    assert_eq!((bench.recorder.count("started"), bench.recorder.count("finished")), (1, 1));
    let encoding = bench.server.requests()[0].headers["accept-encoding"].clone();
    assert_eq!(encoding, "identity");
}

#[tokio::test]
async fn broken_transfers_are_continued_where_they_broke() {
    for breakage in [
        Answer::Truncate(100_000),
        Answer::Reset(100_000),
        Answer::Stall(100_000),
        Answer::CloseDelimited(100_000),
    ] {
        let bench = Bench::new();
        bench.scripted([breakage.clone()]).await.unwrap();
        assert!(bench.holds_content(), "{breakage:?}");
        let ranges = bench.ranges();
        assert_eq!(ranges.len(), 2, "{breakage:?}");
        // A reset may discard what was under way.
        if !matches!(breakage, Answer::Reset(_)) {
            assert_eq!(ranges[1].as_deref(), Some("bytes=100000-"), "{breakage:?}");
        }
        assert_eq!(bench.recorder.count("retrying"), 1);
    }
}

#[tokio::test]
async fn a_server_without_ranges_starts_over() {
    let bench = Bench::new();
    bench.scripted([Answer::Truncate(100_000), Answer::IgnoreRange]).await.unwrap();
    assert!(bench.holds_content());
    assert_eq!(bench.recorder.count("restarted"), 1);
    let bench = Bench::new();
    bench.scripted([Answer::Truncate(1000), Answer::Status(416, "")]).await.unwrap();
    assert!(bench.holds_content());
    assert_eq!(bench.ranges()[2], None);
}

#[tokio::test]
async fn passing_failures_are_borne_and_retry_after_is_obeyed() {
    let bench = Bench::new();
    let answers = [Answer::Status(503, ""), Answer::Status(429, "Retry-After: 1\r\n")];
    let start = Instant::now();
    bench.scripted(answers).await.unwrap();
    assert!(bench.holds_content() && start.elapsed() >= Duration::from_secs(1));

    let bench = Bench::new();
    let error = bench.scripted(vec![Answer::Status(500, ""); 9]).await.unwrap_err();
    assert!(matches!(error, FetchError::Status { status: 500, .. }), "{error}");
    assert_eq!(bench.server.requests().len(), 3, "as many attempts as set");

    let bench = Bench::new();
    let start = Instant::now();
    bench.scripted([Answer::Status(503, "Retry-After: 3600\r\n")]).await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(1), "nobody waits for an hour");

    let bench = Bench::new();
    let error = bench.scripted(vec![Answer::Truncate(0); 9]).await.unwrap_err();
    assert!(matches!(error, FetchError::Transport { .. }), "{error}");
}

#[tokio::test]
async fn lasting_failures_are_not_repeated() {
    for (status, hint) in [(404, "does not exist"), (403, "auth.conf")] {
        let bench = Bench::new();
        let error = bench.scripted([Answer::Status(status, "")]).await.unwrap_err();
        assert!(error.to_string().contains(hint), "{error}");
        assert_eq!(bench.server.requests().len(), 1);
    }
}

#[tokio::test]
async fn wrong_bytes_are_an_error_of_their_own_and_nothing_is_kept() {
    let bench = Bench::new();
    let lie = vec![7; 240_000];
    let error = bench.scripted([Answer::Lie(lie.clone())]).await.unwrap_err();
    let FetchError::HashMismatch { expected, actual, .. } = &error else { panic!("{error}") };
    assert_eq!((*expected, *actual), (BlobDigest::of(&content()), BlobDigest::of(&lie)));
    assert!(error.is_verification_failure() && bench.is_empty());

    for wrong in [1, 300_000] {
        let bench = Bench::new();
        let error = bench.scripted([Answer::Lie(vec![7; wrong])]).await.unwrap_err();
        assert!(matches!(error, FetchError::SizeMismatch { .. }), "{error}");
        assert!(error.is_verification_failure() && bench.is_empty());
    }
}

#[tokio::test]
async fn pieces_that_do_not_fit_together_are_fetched_anew() {
    let bench = Bench::new();
    let mut other = content();
    other[5] ^= 1;
    bench.server.put("/old", other);
    bench.server.script("/old", [Answer::Truncate(1000), Answer::Status(404, "")]);
    let urls = [bench.server.url("/old"), bench.server.url("/file")];
    bench.fetch(&bench.exact(&urls)).await.unwrap();
    assert!(bench.holds_content());
}

#[tokio::test]
async fn addresses_are_tried_in_order() {
    let bench = Bench::new();
    let closed = Url::parse("http://127.0.0.1:1/file").unwrap();
    let lying = bench.server.put("/lie", vec![7; 240_000]);
    let urls = [bench.server.url("/none"), closed, lying, bench.server.url("/file")];
    let downloaded = bench.fetch(&bench.exact(&urls)).await.unwrap();
    assert!(downloaded.url.ends_with("/file") && bench.holds_content());
    let error = bench.fetch(&bench.exact(&urls[..3])).await.unwrap_err();
    assert!(error.is_verification_failure() && !error.is_not_found(), "{error}");
    let text = error.to_string();
    assert!(text.contains("/none does not exist") && text.contains("refused"), "{text}");
    let error = bench.fetch(&bench.exact(&[])).await.unwrap_err();
    assert!(matches!(error, FetchError::NoAddress { .. }));
}

#[tokio::test]
async fn sizes_are_bounded_whether_announced_or_not() {
    for answer in [Answer::Whole, Answer::CloseDelimited(240_000)] {
        let bench = Bench::new();
        bench.server.script("/file", [answer.clone(), answer]);
        let urls = vec![bench.server.url("/file")];
        let download = Download::bounded("file", urls, None, 1000, bench.destination());
        let error = bench.fetch(&download).await.unwrap_err();
        assert!(matches!(error, FetchError::TooLarge { limit: 1000, .. }), "{error}");
        assert!(bench.is_empty());
        let url = bench.server.url("/file");
        let result = Downloader::new(settings()).fetch_bytes(&url, 1000).await;
        assert!(matches!(result, Err(FetchError::TooLarge { .. })));
    }
}

#[tokio::test]
async fn without_a_digest_only_the_same_file_is_continued() {
    let bench = Bench::new();
    bench.server.script("/file", [Answer::Truncate(1000)]);
    let urls = vec![bench.server.url("/file")];
    let download = Download::bounded("file", urls, None, 1 << 20, bench.destination());
    bench.fetch(&download).await.unwrap();
    assert!(bench.holds_content());
    let last = bench.server.requests().remove(1);
    assert_eq!(last.headers["if-range"], "\"one\"");
}

#[tokio::test]
async fn small_files_come_as_bytes_and_missing_ones_as_none() {
    let bench = Bench::new();
    let downloader = Downloader::new(settings());
    bench.server.script("/file", [Answer::Reset(10)]);
    let bytes = downloader.fetch_bytes(&bench.server.url("/file"), 1 << 20).await.unwrap();
    assert_eq!(bytes.unwrap(), content());
    assert_eq!(downloader.fetch_bytes(&bench.server.url("/none"), 9).await.unwrap(), None);
}

#[tokio::test]
async fn local_files_are_fetched_too() {
    let bench = Bench::new();
    let source = bench.directory.path().join("a source");
    std::fs::write(&source, content()).unwrap();
    let url = Url::from_file_path(&source).unwrap();
    bench.fetch(&bench.exact(std::slice::from_ref(&url))).await.unwrap();
    assert!(bench.holds_content());
    std::fs::write(&source, b"short").unwrap();
    let error = bench.fetch(&bench.exact(&[url])).await.unwrap_err();
    assert!(matches!(error, FetchError::SizeMismatch { .. }), "{error}");
    let missing = Url::from_file_path(Path::new("/nonexistent/file")).unwrap();
    assert!(bench.fetch(&bench.exact(&[missing])).await.unwrap_err().is_not_found());
    let strange = Url::parse("ftp://example.com/file").unwrap();
    let error = bench.fetch(&bench.exact(&[strange])).await.unwrap_err();
    assert!(matches!(error, FetchError::Scheme { .. }));
}

#[tokio::test]
async fn a_full_disk_ends_it_at_once() {
    let bench = Bench::new();
    let mut download = bench.exact(&[bench.server.url("/file"), bench.server.url("/file")]);
    download.destination = PathBuf::from("/dev/full");
    if !download.destination.exists() {
        println!("skipped: there is no /dev/full");
        return;
    }
    let error = bench.fetch(&download).await.unwrap_err();
    assert!(matches!(error, FetchError::File { .. }), "{error}");
    assert!(error.to_string().contains("/dev/full"));
    assert_eq!(bench.server.requests().len(), 1);
}

#[tokio::test]
async fn many_files_come_in_parallel_but_not_too_many() {
    let bench = Bench::new();
    let mut downloads = Vec::new();
    for number in 0..40_u8 {
        let body = vec![number; 5000];
        let url = bench.server.put(&format!("/{number}"), body.clone());
        bench.server.script(&format!("/{number}"), [Answer::Truncate(100)]);
        let path = bench.directory.path().join(number.to_string());
        let digest = BlobDigest::of(&body);
        downloads.push(Download::exact(number.to_string(), vec![url], digest, 5000, path));
    }
    let downloader = Downloader::new(Settings { parallel: 4, ..settings() });
    let fetched = downloader.fetch_all(&downloads, &bench.recorder).await.unwrap();
    let expected: Vec<_> = downloads.iter().map(|download| download.sha256.unwrap()).collect();
    assert_eq!(fetched.iter().map(|one| one.sha256).collect::<Vec<_>>(), expected);
    // The server may count a request whose client has its answer and asks for the next file.
    let most = bench.server.most_at_once();
    assert!((2..=8).contains(&most), "{most} at once");
    assert_eq!(bench.recorder.count("finished"), 40);

    downloads[20].urls = vec![bench.server.url("/none")];
    let error = downloader.fetch_all(&downloads, &Silent).await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
}

#[tokio::test]
async fn a_dropped_download_is_over() {
    let bench = Bench::new();
    bench.server.script("/file", [Answer::Stall(10)]);
    let download = bench.exact(&[bench.server.url("/file")]);
    let running = bench.fetch(&download);
    let outcome = tokio::time::timeout(Duration::from_millis(100), running).await;
    assert!(outcome.is_err());
    assert_eq!(bench.recorder.count("finished"), 1);
}

#[tokio::test]
async fn credentials_reach_their_host_only_and_no_message() {
    let bench = Bench::new();
    let other = TestServer::start();
    let target = other.put("/file", content());
    let mut url = bench.server.url("/file");
    url.set_username("annika").unwrap();
    url.set_password(Some("s%40cret")).unwrap();
    bench.server.script("/file", [Answer::Redirect(target.to_string())]);
    let downloaded = bench.fetch(&bench.exact(std::slice::from_ref(&url))).await.unwrap();
    assert!(!downloaded.url.contains("annika") && !downloaded.url.contains("cret"));
    let sent = bench.server.requests()[0].headers["authorization"].clone();
    assert_eq!(sent, format!("Basic {}", data_encoding::BASE64.encode(b"annika:s@cret")));
    let followed = other.requests().remove(0);
    assert!(!followed.headers.contains_key("authorization"));
    assert!(!followed.headers.contains_key("referer"));
    for answers in [
        vec![Answer::Status(403, ""); 9],
        vec![Answer::Status(404, ""); 9],
        vec![Answer::Truncate(9); 9],
        vec![Answer::Lie(vec![7; 240_000]); 9],
        vec![Answer::Lie(vec![7]); 9],
        vec![Answer::Redirect("/file".to_owned()); 40],
    ] {
        bench.server.script("/file", answers);
        let error = bench.fetch(&bench.exact(&[url.clone(), url.clone()])).await.unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(!text.contains("annika") && !text.contains("cret"), "{text}");
    }
}

#[tokio::test]
async fn credentials_come_from_files_as_well() {
    let bench = Bench::new();
    let url = bench.server.url("/file");
    let port = url.port().unwrap();
    let text = format!("machine http://127.0.0.1:{port}/ login bob password two\n");
    let settings = Settings { credentials: Credentials::parse(&text), ..settings() };
    let download = bench.exact(&[url]);
    Downloader::new(settings).fetch(&download, &Silent).await.unwrap();
    let sent = bench.server.requests()[0].headers["authorization"].clone();
    assert_eq!(sent, format!("Basic {}", data_encoding::BASE64.encode(b"bob:two")));
}
