//! Two runners share builds through a registry or a folder: the second has an empty store and no
//! mirror, and builds nothing. What was tampered with, lost or signed by nobody is not believed.
//!
//! Every test needs packages, so without a Debian mirror it says so and passes.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use common::registry::Registry;
use common::{World, can_run};
use drystone_store::digest::BlobDigest;
use serde_json::Value;

/// Nobody listens there.
const DEAD_MIRROR: &str = "http://127.0.0.1:1/debian";
/// Neither package nor dependency has a script, so nothing needs a sandbox.
const PLAIN: &str = "name = \"team/plain\"\n[debian]\nsuite = \"bookworm\"\npackages = [\"hello\"]\n\
                     [files]\n\"/srv/page\" = { text = \"It stands.\\n\" }\n\
                     [config]\ncmd = [\"hello\"]\n";
/// original-awk registers an alternative: the Essential set is configured, and it over that.
const SCRIPTED: &str = "name = \"team/scripted\"\n[debian]\nsuite = \"bookworm\"\n\
                        packages = [\"original-awk\"]\n";

/// Its recipe makes something else each time.
const RANDOM: &str = "name = \"team/random\"\n[debian]\nsuite = \"bookworm\"\n\
                      [recipe.dice]\nscript = \"head -c 16 /dev/urandom > $out/dice\"\n\
                      [image]\nrecipes = [\"dice\"]\n";

/// A CI runner: a checkout of the project, and a store.
struct Runner<'a> {
    world: &'a World,
    project: PathBuf,
    store: PathBuf,
    mirror: Option<&'static str>,
    is_apart: bool,
    /// Whether user namespaces are refused to it.
    is_plain: bool,
}

/// Refuses user namespaces to a command, in one where that can be done.
const PLAIN_RUNNER: &str = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$0\" \"$@\"";

impl<'a> Runner<'a> {
    /// With the store that all tests share, so that packages need not be imported again.
    fn first(world: &'a World, image: &str) -> Self {
        let project = world.project("first", image).folder;
        Self {
            world,
            project,
            store: world.store.clone(),
            mirror: None,
            is_apart: false,
            is_plain: false,
        }
    }

    /// With an empty store, without the mirror, and with the first one's lock.
    fn next(&self, name: &str) -> Self {
        let project = self.world.path(name);
        fs::create_dir(&project).unwrap();
        for file in ["image.toml", "image.lock"] {
            fs::copy(self.project.join(file), project.join(file)).unwrap();
        }
        let store = self.world.path(&format!("{name}-store"));
        Self { project, store, mirror: Some(DEAD_MIRROR), ..*self }
    }

    fn with_mirror(mut self) -> Self {
        self.mirror = None;
        self
    }

    /// In a network namespace of its own, where nothing can be reached.
    fn apart(mut self) -> Self {
        self.is_apart = true;
        self
    }

    /// On a host that runs no sandbox.
    fn plain(mut self) -> Self {
        self.is_plain = true;
        self
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let program = env!("CARGO_BIN_EXE_drystone");
        let mut command = match self.is_apart || self.is_plain {
            true => Command::new("unshare"),
            false => Command::new(program),
        };
        self.world.environment(&mut command);
        command.env("DRYSTONE_STORE", &self.store).current_dir(&self.project);
        if let Some(mirror) = self.mirror {
            command.env("DRYSTONE_MIRROR", mirror).env("DRYSTONE_SECURITY_MIRROR", mirror);
        }
        if self.is_apart {
            command.args(["--net", program]);
        }
        if self.is_plain {
            command.args(["--user", "--map-root-user", "sh", "-c", PLAIN_RUNNER, program]);
        }
        command.args(arguments).output().unwrap()
    }

    /// A build with `--json`, which must succeed.
    #[track_caller]
    fn build(&self, arguments: &[&str]) -> Answer {
        let output = self.run(&[&["build", "--json"], arguments].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{}: {said}", output.status);
        Answer { report: serde_json::from_slice(&output.stdout).unwrap(), said }
    }

    /// `store verify` finds nothing wrong.
    #[track_caller]
    fn verify(&self) {
        let output = self.run(&["store", "verify"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// How many scripts ran.
    fn logs(&self) -> usize {
        fs::read_dir(self.store.join("logs")).map_or(0, Iterator::count)
    }
}

struct Answer {
    report: Value,
    said: String,
}

impl Answer {
    fn digest(&self) -> &str {
        self.report["digest"].as_str().unwrap()
    }

    fn cache(&self, member: &str) -> u64 {
        self.report["cache"][member].as_u64().unwrap()
    }

    fn requests(&self, kind: &str) -> u64 {
        self.report["registry"][kind]["requests"].as_u64().unwrap_or(0)
    }

    fn shared(&self, member: &str) -> u64 {
        self.report["cache"]["shared"][0][member].as_u64().unwrap()
    }

    /// Digests of the image's layers.
    fn layers(&self) -> Vec<String> {
        let layers = self.report["platforms"][0]["layers"].as_array().unwrap();
        let hex = |layer: &Value| layer["digest"].as_str().unwrap()["sha256:".len()..].to_owned();
        layers.iter().map(hex).collect()
    }
}

/// A signing key below the world's folder; its file and its public line.
fn key(world: &World, name: &str) -> (String, String) {
    let file = world.path(&format!("{name}.key")).display().to_string();
    let line =
        common::succeed(&mut world.drystone(&["key", "generate", name, "--output", file.as_str()]));
    (file, line.trim_end().to_owned())
}

#[test]
fn a_second_runner_builds_nothing_and_moves_no_layers() {
    let Some(registry) = Registry::start() else { return };
    let Some(world) = World::shared() else { return };
    let (secret, public) = key(&world, "runner");
    let first = Runner::first(&world, SCRIPTED);
    let (image, cache) = (registry.reference("team/image"), registry.reference("team/cache"));
    let built = first.build(&["--push", &image, "--cache", &cache, "--signing-key", &secret]);
    assert_eq!(built.report["cache"]["shared"][0]["failed"], serde_json::json!([]));
    assert!(built.shared("written") > 20, "{}", built.report["cache"]);

    let second = first.next("second");
    let arguments = ["--locked", "--push", &image, "--cache", &cache, "--trusted-key", &public];
    let answer = second.build(&arguments);
    assert_eq!(answer.digest(), built.digest());
    assert_eq!((answer.cache("missed"), second.logs()), (0, 0), "{}", answer.report["cache"]);
    // The image's layers are in the target: only the config could be sent, and is there too.
    assert_eq!(answer.report["outputs"][0]["blobs"]["pushed"], 0);
    assert_eq!(answer.requests("blob-write"), 0);
    // Nobody changed the image, so one request answers all: no blob is read.
    assert_eq!(answer.report["cache"]["whole"], true, "{}", answer.report["cache"]);
    assert_eq!((answer.requests("manifest-read"), answer.requests("blob-read")), (1, 0));
    assert_eq!(fs::read_dir(second.store.join("trees")).map_or(0, Iterator::count), 0);

    // Another command makes another image of the same trees: the bundle has them all.
    let changed = first.next("changed");
    let text = format!("{SCRIPTED}[config]\ncmd = [\"awk\"]\n");
    fs::write(changed.project.join("image.toml"), text).unwrap();
    let answer = changed.build(&arguments);
    assert_eq!(answer.report["cache"]["whole"], false);
    assert_eq!((answer.cache("missed"), changed.logs()), (0, 0), "{}", answer.report["cache"]);
    assert_eq!(answer.report["outputs"][0]["blobs"]["pushed"], 1, "the config");
    // The whole image's, the bundle's; the others are of the registry's own protocol.
    assert!(answer.requests("manifest-read") <= 4, "{}", answer.report["registry"]);
    let received = answer.report["registry"]["blob-read"]["received"].as_u64();
    // The bundle, listings, and what is asked which interpreters the image's programs need.
    assert!(received.unwrap() < 8 << 20, "{}", answer.report["registry"]);

    // Into another repository everything is mounted from the cache.
    let third = first.next("third");
    let other = registry.reference("team/other");
    let answer = third.build(&["--push", &other, "--cache", &cache, "--trusted-key", &public]);
    let blobs = &answer.report["outputs"][0]["blobs"];
    assert_eq!(answer.digest(), built.digest());
    assert_eq!(blobs["mounted"], answer.layers().len(), "{blobs}");
    second.verify();
}

#[test]
fn without_a_sandbox_what_caches_have_is_enough_and_the_rest_is_listed() {
    let Some(world) = World::shared() else { return };
    let (secret, public) = key(&world, "runner");
    let first = Runner::first(&world, SCRIPTED);
    let cache = format!("file:{}", world.path("cache").display());
    let built = first.build(&["--cache", &cache, "--signing-key", &secret]);
    let mut second = first.next("second");
    if can_run(&["unshare"], true) {
        second = second.plain();
    }
    let read = ["--locked", "--cache", &cache, "--trusted-key", &public, "--substitute-only"];
    let answer = second.build(&read);
    assert_eq!((answer.digest(), answer.cache("missed")), (built.digest(), 0));
    // Nobody vouches for what was configured: packages are pinned, and imported all the same.
    let third = first.next("third");
    let output = third.run(&["build", "--locked", "--cache", &cache, "--substitute-only"]);
    let said = common::expect_failure(&output, 1, &["1 derivation would have to be built"]);
    assert!(said.contains("configure configured-essential"), "{said}");
    assert_eq!(third.logs(), 0);
}

/// What a recipe makes of random numbers differs by builder: who trusts both is told, and gets neither.
#[test]
fn builders_that_disagree_are_told_with_a_code_of_their_own() {
    let Some(world) = World::shared() else { return };
    let ((one_key, one), (other_key, other)) = (key(&world, "one"), key(&world, "other"));
    let first = Runner::first(&world, RANDOM);
    let cache = format!("file:{}", world.path("cache").display());
    first.build(&["--cache", &cache, "--signing-key", &one_key]);
    let second = first.next("second").with_mirror();
    let built =
        second.build(&["--no-project-caches", "--cache", &cache, "--signing-key", &other_key]);
    let both = ["--locked", "--cache", &cache, "--trusted-key", &one, "--trusted-key", &other];
    let third = first.next("third");
    let output = third.run(&[&["build", "--substitute-only"], &both[..]].concat());
    let said = common::expect_failure(&output, 4, &["builders disagree about derivation"]);
    assert!(said.contains("one") && said.contains("other"), "{said}");
    // Who trusts one of them gets what that one built.
    let only = ["--locked", "--cache", &cache, "--trusted-key", &other, "--substitute-only"];
    let answer = first.next("fourth").build(&only);
    assert_eq!(answer.digest(), built.digest());
}

#[test]
fn a_folder_is_a_cache_even_where_there_is_no_network() {
    let Some(world) = World::shared() else { return };
    let (secret, public) = key(&world, "runner");
    let first = Runner::first(&world, PLAIN);
    let cache = format!("file:{}", world.path("cache").display());
    let built = first.build(&["--cache", &cache, "--signing-key", &secret]);
    assert!(built.shared("written") > 5, "{}", built.report["cache"]);
    // The same again writes nothing.
    let again = first.build(&["--cache", &cache, "--signing-key", &secret]);
    assert_eq!((again.shared("written"), again.shared("blobs")), (0, 0));
    assert_eq!(again.shared("existed"), built.shared("written"));

    let mut second = first.next("second");
    if can_run(&["unshare"], true) {
        second = second.apart();
    }
    let answer = second.build(&["--locked", "--cache", &cache, "--trusted-key", &public]);
    assert_eq!(answer.digest(), built.digest());
    assert_eq!((answer.cache("missed"), second.logs()), (0, 0), "{}", answer.report["cache"]);
    let tarballs = [&first, &second].map(|it| fs::read(it.project.join("plain.tar")).unwrap());
    assert!(tarballs[0] == tarballs[1], "the tarballs differ");
    second.verify();
    // What came from the cache is handed on with the signatures of those who built it.
    let copy = format!("file:{}", world.path("copy").display());
    let (own, _) = key(&world, "other");
    let handed = second.build(&["--cache", &copy, "--cache", &cache, "--signing-key", &own]);
    // All but the image as a whole: here nobody is trusted who vouches for its steps.
    assert_eq!(handed.shared("written") + 1, built.shared("written"), "{}", handed.said);
    let last = first.next("last");
    let answer = last.build(&["--cache", &copy, "--trusted-key", &public]);
    assert_eq!((answer.digest(), answer.cache("missed")), (built.digest(), 0));
}

#[test]
fn without_a_trusted_key_only_what_the_lock_pins_is_believed() {
    let Some(world) = World::shared() else { return };
    let (secret, public) = key(&world, "runner");
    let (_, stranger) = key(&world, "stranger");
    let first = Runner::first(&world, PLAIN);
    let cache = format!("file:{}", world.path("cache").display());
    let built = first.build(&["--cache", &cache, "--signing-key", &secret]);
    let packages = Layout(world.path("cache")).packages();
    assert!(packages > 2 && packages < built.shared("written"));
    let line = |name: &str| format!("{name}-line");
    let both = [public.as_str(), &stranger];
    let ways: [(&str, Vec<&str>); 3] = [
        ("nobody", vec![]),
        ("stranger", vec!["--trusted-key", both[1]]),
        ("threshold", vec!["--trusted-key", both[0], "--trusted-key", both[1], "--threshold", "2"]),
    ];
    for (name, keys) in ways {
        // The mirror is gone, and the packages are not.
        let runner = first.next(name);
        let answer = runner.build(&[&["--locked", "--cache", &cache][..], &keys].concat());
        assert_eq!(answer.digest(), built.digest(), "{}", line(name));
        assert_eq!(answer.cache("found"), packages, "{name}: {}", answer.report["cache"]);
        assert!(answer.cache("missed") > 0, "{name}");
        runner.verify();
    }
}

/// A folder as a cache, opened by hand.
struct Layout(PathBuf);

impl Layout {
    fn blob(&self, hex: &str) -> PathBuf {
        self.0.join("blobs/sha256").join(hex)
    }

    fn index(&self) -> Value {
        serde_json::from_slice(&fs::read(self.0.join("index.json")).unwrap()).unwrap()
    }

    /// Adds a blob; its digest and size.
    fn add(&self, text: &str) -> (String, usize) {
        let digest = BlobDigest::of(text.as_bytes());
        fs::write(self.blob(&digest.to_hex()), text).unwrap();
        (digest.to_string(), text.len())
    }

    fn write_index(&self, index: &Value) {
        fs::write(self.0.join("index.json"), index.to_string()).unwrap();
    }

    fn tag(entry: &Value) -> &str {
        entry["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap_or_default()
    }

    /// How many realisations are found without keys.
    fn packages(&self) -> u64 {
        let index = self.index();
        let tags = index["manifests"].as_array().unwrap().iter().map(Self::tag);
        tags.filter(|tag| tag.starts_with("drv-") && tag.matches('-').count() == 1).count() as u64
    }

    /// The layers of an image that are in it; those of local files are not.
    fn layers(&self, answer: &Answer) -> Vec<String> {
        let layers: Vec<String> =
            answer.layers().into_iter().filter(|layer| self.blob(layer).exists()).collect();
        assert!(layers.len() > 1, "{}", answer.report);
        layers
    }

    /// Leaves single realisations only.
    fn without_bundles(&self) -> Value {
        let mut index = self.index();
        let entries = index["manifests"].as_array_mut().unwrap();
        entries.retain(|entry| !Self::tag(entry).starts_with("bundle-"));
        self.write_index(&index);
        index
    }
}

/// A cache that was filled, by whom, and what was built.
struct Filled<'a> {
    layout: Layout,
    cache: String,
    secret: String,
    public: String,
    first: Runner<'a>,
    built: Answer,
}

impl<'a> Filled<'a> {
    fn new(world: &'a World) -> Self {
        let (secret, public) = key(world, "runner");
        let first = Runner::first(world, PLAIN);
        let layout = Layout(world.path("cache"));
        let cache = format!("file:{}", layout.0.display());
        let built = first.build(&["--cache", &cache, "--signing-key", &secret]);
        Self { layout, cache, secret, public, first, built }
    }

    /// Another runner, which trusts the first one's key, gets the same image whatever happened.
    #[track_caller]
    fn again(&self, name: &str, more: &[&str]) -> Answer {
        let runner = self.first.next(name).with_mirror();
        let arguments = ["--locked", "--cache", &self.cache, "--trusted-key", &self.public];
        let answer = runner.build(&[&arguments[..], more].concat());
        assert_eq!(answer.digest(), self.built.digest(), "{}", answer.said);
        runner.verify();
        answer
    }
}

#[test]
fn a_realisation_under_anothers_tag_is_not_believed() {
    let Some(world) = World::shared() else { return };
    let filled = Filled::new(&world);
    let mut index = filled.layout.without_bundles();
    let entries = index["manifests"].as_array_mut().unwrap();
    // Each realisation is shown as the next one: signed, and about something else.
    let digests: Vec<(Value, Value)> =
        entries.iter().map(|it| (it["digest"].clone(), it["size"].clone())).collect();
    let count = entries.len();
    for (at, entry) in entries.iter_mut().enumerate() {
        let mut next = (at + 1) % count;
        while digests[next] == digests[at] {
            next = (next + 1) % count;
        }
        (entry["digest"], entry["size"]) = digests[next].clone();
    }
    filled.layout.write_index(&index);
    let answer = filled.again("second", &[]);
    assert_eq!(answer.cache("found"), 0, "{}", answer.report["cache"]);
    // Whoever has the key puts it right.
    let signing = ["--signing-key", filled.secret.as_str()];
    let mended = filled.first.build(&[&["--cache", &filled.cache][..], &signing].concat());
    assert!(mended.shared("written") > 0);
    let answer = filled.again("third", &[]);
    assert_eq!(answer.cache("missed"), 0, "{}", answer.report["cache"]);
}

#[test]
fn a_changed_envelope_is_not_believed() {
    let Some(world) = World::shared() else { return };
    let filled = Filled::new(&world);
    let mut seen = BTreeSet::new();
    let mut index = filled.layout.without_bundles();
    for entry in index["manifests"].as_array_mut().unwrap() {
        let manifest = filled.layout.blob(&entry["digest"].as_str().unwrap()[7..]);
        let mut manifest: Value = serde_json::from_slice(&fs::read(manifest).unwrap()).unwrap();
        // What the manifest carries along is changed too, and says that it is not.
        let data = manifest["layers"][0]["data"].as_str().unwrap();
        manifest["layers"][0]["data"] = format!("Q{}", &data[1..]).into();
        let (digest, size) = filled.layout.add(&manifest.to_string());
        (entry["digest"], entry["size"]) = (digest.into(), size.into());
        let envelope = filled.layout.blob(&manifest["layers"][0]["digest"].as_str().unwrap()[7..]);
        if seen.insert(envelope.clone()) {
            let mut bytes = fs::read(&envelope).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(&envelope, bytes).unwrap();
        }
    }
    assert!(seen.len() > 5);
    filled.layout.write_index(&index);
    let answer = filled.again("second", &[]);
    assert_eq!(answer.cache("found"), 0, "{}", answer.report["cache"]);
    assert!(answer.said.contains("it is not asked any more"), "{}", answer.said);
}

#[test]
fn a_replaced_layer_is_built_again() {
    let Some(world) = World::shared() else { return };
    let filled = Filled::new(&world);
    for layer in filled.layout.layers(&filled.built) {
        let path = filled.layout.blob(&layer);
        let size = fs::metadata(&path).unwrap().len();
        fs::write(&path, vec![b'x'; usize::try_from(size).unwrap()]).unwrap();
    }
    let answer = filled.again("second", &[]);
    assert!(answer.said.contains("is not taken from a cache"), "{}", answer.said);
    assert!(answer.report["warnings"].to_string().contains("lost"), "{}", answer.report);
}

#[test]
fn a_layer_that_a_cache_has_lost_is_built_reported_and_shared_again() {
    let Some(world) = World::shared() else { return };
    let filled = Filled::new(&world);
    let lost = filled.layout.layers(&filled.built).pop().unwrap();
    fs::remove_file(filled.layout.blob(&lost)).unwrap();
    let target = format!("file:{}", world.path("target").display());
    let more = ["--push", target.as_str(), "--signing-key", &filled.secret];
    let answer = filled.again("second", &more);
    assert!(answer.report["warnings"].to_string().contains("lost"), "{}", answer.report);
    assert!(filled.layout.blob(&lost).exists(), "it is in the cache again");
    let answer = filled.again("third", &more);
    assert_eq!(answer.report["warnings"], serde_json::json!([]), "{}", answer.said);
    assert_eq!(answer.cache("missed"), 0);
}

#[test]
fn a_whole_image_is_believed_with_the_keys_behind_its_steps() {
    let Some(world) = World::shared() else { return };
    let filled = Filled::new(&world);
    let (secret, public) = key(&world, "other");
    let target = format!("file:{}", world.path("target").display());
    let build = |name: &str, trusted: &[&String], more: &[&str]| {
        let runner = filled.first.next(name).with_mirror();
        let text = format!("{PLAIN}entrypoint = [\"env\"]\n");
        fs::write(runner.project.join("image.toml"), text).unwrap();
        let mut arguments = vec!["--locked", "--cache", &filled.cache, "--push", &target];
        for key in trusted {
            arguments.extend(["--trusted-key", key]);
        }
        runner.build(&[&arguments[..], more].concat())
    };
    // Another builder takes the steps from the first, and signs what it made of them.
    let built = build("second", &[&filled.public], &["--signing-key", &secret]);
    assert_eq!((&built.report["cache"]["whole"], built.cache("missed")), (&false.into(), 0));
    for (trusted, is_whole) in [
        (vec![&filled.public, &public], true),
        // Nobody that is trusted here vouches for the steps, or for the whole.
        (vec![&public], false),
        (vec![&filled.public], false),
    ] {
        let answer = build(&format!("reader-{is_whole}-{}", trusted.len()), &trusted, &[]);
        assert_eq!(answer.digest(), built.digest());
        assert_eq!(answer.report["cache"]["whole"], is_whole, "{}", answer.report["cache"]);
        fs::remove_dir_all(world.path(&format!("reader-{is_whole}-{}", trusted.len()))).unwrap();
        fs::remove_dir_all(world.path(&format!("reader-{is_whole}-{}-store", trusted.len())))
            .unwrap();
    }
    // More keys must agree than signed it.
    let both = [&filled.public, &public];
    let answer = build("threshold", &both, &["--threshold", "2"]);
    assert_eq!(
        (answer.digest(), &answer.report["cache"]["whole"]),
        (built.digest(), &false.into())
    );
}

#[test]
fn a_projects_cache_is_read_and_never_written() {
    let Some(registry) = Registry::start() else { return };
    let Some(world) = World::shared() else { return };
    let (secret, public) = key(&world, "runner");
    let cache = registry.reference("team/cache");
    let image = format!("{PLAIN}[cache]\nread = [\"{cache}\"]\n");
    let first = Runner::first(&world, &image);
    let tried = first.build(&["--signing-key", &secret]);
    assert_eq!(tried.report["cache"]["shared"], serde_json::json!([]));
    assert_eq!((tried.requests("manifest-write"), tried.requests("blob-write")), (0, 0));
    // The user names it: now it may be written.
    let built = first.build(&["--cache", &cache, "--signing-key", &secret]);
    assert!(built.shared("written") > 5, "{}", built.report["cache"]);
    let answer = first.next("second").build(&["--locked", "--trusted-key", &public]);
    assert_eq!((answer.digest(), answer.cache("missed")), (built.digest(), 0));
    // Neither read where the user does not want it.
    let third = first.next("third").with_mirror();
    let answer = third.build(&["--no-project-caches", "--trusted-key", &public]);
    assert_eq!((answer.digest(), answer.cache("found")), (built.digest(), 0));
    assert_eq!(answer.report["registry"], serde_json::json!({}));
}

#[test]
fn a_cache_that_cannot_be_reached_fails_no_build() {
    let Some(world) = World::shared() else { return };
    let (secret, _) = key(&world, "runner");
    let first = Runner::first(&world, PLAIN);
    fs::create_dir(world.path("mine")).unwrap();
    fs::write(world.path("mine/notes"), "mine").unwrap();
    let mine = format!("file:{}", world.path("mine").display());
    for cache in ["127.0.0.1:1/team/cache", &mine] {
        let answer = first.build(&["--cache", cache, "--signing-key", &secret]);
        let failed = answer.report["cache"]["shared"][0]["failed"].as_array().unwrap();
        assert!(!failed.is_empty(), "{}", answer.report["cache"]);
        assert_eq!(answer.shared("written"), 0);
        assert!(answer.said.contains("warning"), "{}", answer.said);
    }
    let arguments = ["--offline", "--cache", "127.0.0.1:1/team/cache", "--signing-key", &secret];
    let answer = first.build(&arguments);
    assert_eq!(answer.report["cache"]["shared"], serde_json::json!([]), "nobody is asked");
    assert_eq!(fs::read_dir(world.path("mine")).unwrap().count(), 1, "nothing is written there");
}

impl Runner<'_> {
    /// A command with `--json`, which must succeed.
    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {}: {said}", output.status);
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

#[test]
fn a_store_is_filled_from_a_cache_without_building_and_builds_offline() {
    let Some(world) = World::shared() else { return };
    let (secret, public) = key(&world, "runner");
    let first = Runner::first(&world, PLAIN);
    let built = first.build(&[]);
    // Built without a cache; shared afterwards.
    let cache = format!("file:{}", world.path("cache").display());
    let refused = first.run(&["cache", "push", "--cache", &cache]);
    assert_eq!(refused.status.code(), Some(2), "without a key nothing is signed");
    let pushed = first.json(&["cache", "push", "--cache", &cache, "--signing-key", &secret]);
    let written = pushed["shared"][0]["written"].as_u64().unwrap();
    assert!(written > 5 && pushed["derivations"] == written, "{pushed}");
    let again = first.json(&["cache", "push", "--cache", &cache, "--signing-key", &secret]);
    assert_eq!(again["shared"][0]["existed"], written);

    let info = &first.json(&["cache", "info", "--cache", &cache, "--trusted-key", &public]);
    let info = &info["caches"][0];
    assert_eq!((&info["derivations"], &info["missing"]), (&written.into(), &serde_json::json!([])));
    assert_eq!(info["signers"][0]["name"], "runner", "{info}");

    let second = first.next("second").apart_if_possible();
    let pulled =
        second.json(&["cache", "pull", "--layers", "--cache", &cache, "--trusted-key", &public]);
    assert_eq!((&pulled["known"], &pulled["missing"]), (&written.into(), &serde_json::json!([])));
    second.verify();
    let output = second.run(&["store", "gc"]);
    assert!(output.status.success());
    let answer = second.build(&["--locked", "--offline"]);
    assert_eq!((answer.digest(), second.logs()), (built.digest(), 0));
    // Whoever trusts nobody gets what the lock pins.
    let third = first.next("third");
    let pulled = third.json(&["cache", "pull", "--cache", &cache]);
    let packages = Layout(world.path("cache")).packages();
    assert_eq!(pulled["known"], packages, "{pulled}");
}

impl Runner<'_> {
    fn apart_if_possible(self) -> Self {
        if can_run(&["unshare"], true) { self.apart() } else { self }
    }
}

#[test]
fn a_cache_is_copied_checked_mended_and_pruned() {
    let Some(registry) = Registry::start() else { return };
    let Some(world) = World::shared() else { return };
    let filled = Filled::new(&world);
    let first = &filled.first;
    let (cache, public) = (filled.cache.as_str(), filled.public.as_str());
    let checked = |runner: &Runner<'_>, cache: &str| {
        let output =
            runner.run(&["cache", "verify", "--cache", cache, "--trusted-key", public, "--json"]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), report["caches"][0].clone())
    };
    let (code, report) = checked(first, cache);
    assert_eq!((code, &report["problems"]), (Some(0), &serde_json::json!([])));
    assert!(report["signatures"].as_u64().unwrap() > 5 && report["unchecked_signatures"] == 0);

    // Into a registry, and from there into another folder: byte for byte.
    let there = registry.reference("team/cache");
    let copied = first.json(&["cache", "sync", cache, &there]);
    assert_eq!(copied["failed"], serde_json::json!([]), "{copied}");
    let again = first.json(&["cache", "sync", cache, &there]);
    assert_eq!((&again["written"], &again["blobs"]), (&0.into(), &0.into()));
    assert_eq!(again["existed"], copied["written"]);
    let other = registry.reference("team/mirror");
    let mounted = first.json(&["cache", "sync", &there, &other, "-f", "image.toml"]);
    assert_eq!(mounted["blobs"], 0, "within a registry nothing is sent: {mounted}");
    let (code, _) = checked(first, &other);
    assert_eq!(code, Some(0));
    let mut copy = first.next("copy");
    copy.mirror = None;
    let answer = copy.build(&["--locked", "--cache", &there, "--trusted-key", public]);
    assert_eq!((answer.digest(), answer.cache("missed")), (filled.built.digest(), 0));

    // A layer is damaged: it is named, removed, and shared again.
    let layer = filled.layout.layers(&filled.built).pop().unwrap();
    let path = filled.layout.blob(&layer);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (code, report) = checked(first, cache);
    assert_eq!(code, Some(7));
    let problems = report["problems"].as_array().unwrap();
    assert!(problems.iter().all(|it| it["blob"] == format!("sha256:{layer}")), "{report}");
    first.json(&["cache", "verify", "--repair", "--cache", cache, "--trusted-key", public]);
    assert!(!path.exists());
    let signing = ["--signing-key", filled.secret.as_str()];
    first.json(&[&["cache", "push", "--cache", cache][..], &signing].concat());
    assert_eq!(checked(first, cache).0, Some(0));
    assert!(path.exists());

    // Another image leaves the cache, and this one stays.
    let more = Runner {
        project: world
            .project(
                "more",
                &PLAIN
                    .replace("team/plain", "team/more")
                    .replace("\"hello\"]\n[", "\"hello\", \"tzdata\"]\n["),
            )
            .folder,
        ..Runner::first(&world, PLAIN)
    };
    let built = more.build(&[&["--cache", cache][..], &signing].concat());
    assert!(built.shared("written") > 0, "{}", built.report["cache"]);
    let image = first.project.join("image.toml").display().to_string();
    let wrong = first.run(&[
        "cache",
        "prune",
        cache,
        "--keep",
        &more.project.join("image.toml").display().to_string().replace("more", "first"),
        "--keep",
        "none.toml",
    ]);
    assert_eq!(wrong.status.code(), Some(2));
    let plan = first.json(&["cache", "prune", cache, "--keep", &image, "--dry-run"]);
    let pruned = first.json(&["cache", "prune", cache, "--keep", &image]);
    assert_eq!(plan["removed"], pruned["removed"]);
    assert!(!pruned["removed"].as_array().unwrap().is_empty(), "{pruned}");
    assert_eq!(pruned["blobs"], 0, "what is younger than a day stays");
    assert_eq!(checked(first, cache).0, Some(0));
    let answer = filled.again("last", &[]);
    assert_eq!(answer.cache("missed"), 0);
}
