//! Documents and signatures beside images: attached as referrers, listed by registries that know
//! referrers and those that do not, read by skopeo and checked by openssl.
//!
//! Only other people's clients come from a mirror; the images are of local files.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use common::registry::Registry;
use common::{World, can_run, image, run};
use serde_json::Value;

const IMAGE: &str = "name = \"team/local\"\ntag = \"v1\"\n\
                     platforms = [\"linux/amd64\", \"linux/arm64\"]\n\n[files]\n\"/srv\" = \"site/\"\n";

struct Place {
    folder: tempfile::TempDir,
    public: String,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut place = Self { folder, public: String::new() };
        fs::create_dir(place.path("site")).unwrap();
        fs::write(place.path("site/page"), "It stands.\n").unwrap();
        fs::write(place.path("image.toml"), IMAGE).unwrap();
        place.public = place.key("ci");
        place
    }

    fn key(&self, name: &str) -> String {
        let line = self.succeed(&["key", "generate", name, "--output", &format!("{name}.key")]);
        line.trim_end().to_owned()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_drystone"))
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.folder.path())
            .env("DRYSTONE_STORE", self.path("store"))
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .args(arguments)
            .output()
            .unwrap()
    }

    #[track_caller]
    fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {}: {said}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.succeed(&[arguments, &["--json"]].concat())).unwrap()
    }

    #[track_caller]
    fn refused(&self, arguments: &[&str], code: i32, words: &str) {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(words), "{words:?} in {said}");
    }
}

/// A document of a registry, by curl: nothing of ours reads it.
fn get(url: &str) -> Vec<u8> {
    let accept = "Accept: application/vnd.oci.image.index.v1+json, \
                  application/vnd.oci.image.manifest.v1+json, */*";
    let output = Command::new("curl").args(["-fsSL", "-H", accept, url]).output().unwrap();
    assert!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn json(url: &str) -> Value {
    serde_json::from_slice(&get(url)).unwrap()
}

#[test]
fn documents_and_signatures_stand_beside_an_index() {
    let Some(registry) = Registry::start() else { return };
    if !can_run(&["curl", "openssl"], false) {
        return;
    }
    let place = Place::new();
    let image = registry.reference("team/image");
    let attach = ["--attach", "spdx,cyclonedx,provenance", "--sign", "--signing-key", "ci.key"];
    let answer = place.json(&[&["push", &image][..], &attach].concat());
    let digest = answer["digest"].as_str().unwrap();
    let hex = digest.strip_prefix("sha256:").unwrap();
    let plain = place.json(&["push", &registry.reference("team/plain")]);
    assert_eq!(plain["digest"], digest, "attachments are no part of the image");

    let base = format!("http://{}/v2/team/image", registry.host());
    let index = json(&format!("{base}/manifests/v1"));
    let entries = index["manifests"].as_array().unwrap();
    assert_eq!(entries.len(), 2, "never an entry of the index");

    // This registry has no API for referrers: they are under the tag.
    let types = |digest: &str| -> Vec<String> {
        let list = json(&format!("{base}/manifests/{}", digest.replace(':', "-")));
        let mut types: Vec<String> = list["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["artifactType"].as_str().unwrap().to_owned())
            .collect();
        types.sort();
        types
    };
    let signature = "application/vnd.dev.cosign.artifact.sig.v1+json";
    let provenance = "application/vnd.in-toto.provenance+dsse";
    assert_eq!(types(digest), [signature, provenance]);
    for entry in entries {
        let expected = ["application/spdx+json", "application/vnd.cyclonedx+json", signature];
        assert_eq!(types(entry["digest"].as_str().unwrap()), expected);
    }
    // As cosign's users look for it, and check it with its public key.
    let signatures = json(&format!("{base}/manifests/sha256-{hex}.sig"));
    let layer = &signatures["layers"][0];
    assert_eq!(layer["mediaType"], "application/vnd.dev.cosign.simplesigning.v1+json");
    let payload = get(&format!("{base}/blobs/{}", layer["digest"].as_str().unwrap()));
    let said: Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(said["critical"]["image"]["docker-manifest-digest"], digest);
    assert_eq!(said["critical"]["identity"]["docker-reference"], image);
    fs::write(place.path("payload"), &payload).unwrap();
    let annotation = layer["annotations"]["dev.cosignproject.cosign/signature"].as_str().unwrap();
    fs::write(place.path("signature.txt"), format!("{annotation}\n")).unwrap();
    fs::write(place.path("key.pem"), place.succeed(&["key", "public", "ci.key", "--pem"])).unwrap();
    let script = "base64 -d signature.txt > signature && \
                  openssl pkeyutl -verify -pubin -inkey key.pem -rawin -in payload -sigfile signature";
    let checked = Command::new("sh").args(["-c", script]).current_dir(place.folder.path()).output();
    let checked = checked.unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    if can_run(&["skopeo"], false) {
        let all = std::iter::once(format!("sha256-{hex}.sig")).chain([format!("sha256-{hex}")]);
        for tag in all {
            let reference = format!("docker://{image}:{tag}");
            run("skopeo", &["inspect", "--raw", "--tls-verify=false", &reference]);
        }
        let reference = format!("docker://{image}:sha256-{hex}.sig");
        run("skopeo", &["inspect", "--tls-verify=false", &reference]);
    }

    let verified = place.json(&["verify", &format!("{image}:v1"), "--trusted-key", &place.public]);
    let manifests = verified["manifests"].as_array().unwrap();
    assert_eq!(manifests.len(), 3);
    assert!(manifests.iter().all(|it| it["signers"][0]["name"] == "ci"), "{verified}");
    let attached = &manifests[0]["attached"];
    assert_eq!(attached[0]["artifact_type"], provenance);
    assert_eq!(attached[0]["signers"][0]["name"], "ci", "{attached}");
    // The same again changes nothing.
    place.json(&[&["push", &image][..], &attach].concat());
    assert_eq!(json(&format!("{base}/manifests/sha256-{hex}.sig")), signatures);
    assert_eq!(types(digest), [signature, provenance]);
}

/// cosign itself, a policy of skopeo as hosts of containers have it, and oras, which lists what is
/// attached. They come from Debian 13, in an image of ours.
#[test]
fn other_peoples_clients_know_our_signatures() {
    if !can_run(&["chroot"], true) {
        return;
    }
    let (Some(registry), Some(world)) = (Registry::start(), World::shared()) else { return };
    let clients = "name = \"clients\"\n[debian]\nsuite = \"trixie\"\n\
                   packages = [\"cosign\", \"oras\", \"skopeo\"]\n";
    let built = world.build(&world.project("clients", clients), &[]);
    let root = world.path("root");
    image::unpack(&built.tarball, &root);
    let run = |words: &[&str]| {
        let mut command = Command::new("chroot");
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin")
            .env("HOME", "/")
            .arg(&root)
            .args(words);
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    };

    let place = Place::new();
    place.key("other");
    let folder = root.join("policy");
    fs::create_dir(&folder).unwrap();
    for name in ["ci", "other"] {
        let pem = place.succeed(&["key", "public", &format!("{name}.key"), "--pem"]);
        fs::write(folder.join(format!("{name}.pem")), pem).unwrap();
        let required = serde_json::json!([{
            "type": "sigstoreSigned",
            "keyPath": format!("/policy/{name}.pem"),
            "signedIdentity": { "type": "matchRepository" },
        }]);
        let policy = serde_json::json!({
            "default": [{ "type": "reject" }],
            "transports": { "docker": { registry.host(): required } },
        });
        fs::write(folder.join(format!("{name}.json")), policy.to_string()).unwrap();
    }
    fs::create_dir(folder.join("registries.d")).unwrap();
    let attachments =
        format!("docker:\n  {}:\n    use-sigstore-attachments: true\n", registry.host());
    fs::write(folder.join("registries.d/registry.yaml"), attachments).unwrap();

    let skopeo_copies = |image: &str, key: &str| {
        let policy = format!("/policy/{key}.json");
        let from = format!("docker://{image}");
        let to = format!("dir:/policy/{key}.copy");
        let settings = ["skopeo", "--policy", &policy, "--registries.d", "/policy/registries.d"];
        let copy = ["copy", "--all", "--src-tls-verify=false", "--remove-signatures", &from, &to];
        run(&[&settings[..], &copy].concat())
    };
    let cosign_verifies = |image: &str, key: &str| {
        let key = format!("/policy/{key}.pem");
        let log = "--insecure-ignore-tlog=true";
        run(&["cosign", "verify", "--key", &key, log, "--allow-insecure-registry", image])
    };
    let signed = registry.reference("team/signed:v1");
    let attach = ["--attach", "spdx,provenance", "--sign", "--signing-key", "ci.key"];
    place.succeed(&[&["push", &signed][..], &attach].concat());
    let unsigned = registry.reference("team/unsigned:v1");
    place.succeed(&["push", &unsigned]);

    let (success, said) = skopeo_copies(&signed, "ci");
    assert!(success, "{said}");
    let (success, said) = skopeo_copies(&signed, "other");
    assert!(!success && said.contains("signature verification failed"), "{said}");
    let (success, said) = skopeo_copies(&unsigned, "ci");
    assert!(!success && said.contains("no signature exists"), "{said}");

    let (success, said) = cosign_verifies(&signed, "ci");
    assert!(success && said.contains("verified against the specified public key"), "{said}");
    let (success, said) = cosign_verifies(&signed, "other");
    assert!(!success && said.contains("no matching signatures"), "{said}");
    let (success, said) = cosign_verifies(&unsigned, "ci");
    assert!(!success && said.contains("no signatures found"), "{said}");

    // Each platform's documents are its own.
    for (platform, expected) in [("linux/amd64", "application/spdx+json"), ("", "provenance")] {
        let platform: &[&str] = if platform.is_empty() { &[] } else { &["--platform", platform] };
        let (success, said) =
            run(&[&["oras", "discover", "--plain-http", &signed][..], platform].concat());
        assert!(success && said.contains(expected), "{said}");
        assert!(said.contains("application/vnd.dev.cosign.artifact.sig.v1+json"), "{said}");
    }
}

#[test]
fn only_enough_trusted_signatures_verify() {
    let Some(registry) = Registry::start() else { return };
    let place = Place::new();
    let other = place.key("other");
    let layout = format!("file:{}:v1", place.path("layout").display());
    for target in [registry.reference("team/image:v1"), layout] {
        place.succeed(&["push", &target]);
        let trusted = ["verify", target.as_str(), "--trusted-key", &place.public];
        place.refused(&trusted, 7, "it is not signed");
        place.refused(&["verify", &target], 2, "no key is trusted");
        place.refused(&["sign", &target], 2, "there is no signing key");
        let signed = place.json(&["sign", &target, "--signing-key", "ci.key"]);
        assert_eq!(signed["signed"].as_array().unwrap().len(), 3);
        place.succeed(&trusted);
        place.refused(&["verify", &target, "--trusted-key", &other], 7, "no trusted key");
        let both = [&trusted[..], &["--trusted-key", &other, "--threshold", "2"]].concat();
        place.refused(&both, 7, "1 of the 2 trusted keys");
        place.succeed(&["sign", &target, "--signing-key", "other.key"]);
        let verified = place.json(&both);
        assert_eq!(verified["manifests"][0]["signers"].as_array().unwrap().len(), 2);
        // A signature is of one image: the next one under the same tag has none.
        fs::write(place.path("site/page"), format!("Now for {target}.\n")).unwrap();
        place.succeed(&["push", &target]);
        place.refused(&trusted, 7, "it is not signed");
    }
    place.refused(&["verify", "127.0.0.1:1/team/x", "--trusted-key", &place.public], 6, "");
    place.refused(&["build", "--sign", "--signing-key", "ci.key"], 2, "--push");
    place.refused(&["push", "127.0.0.1:1/x", "--sign"], 2, "need a signing key");
}
