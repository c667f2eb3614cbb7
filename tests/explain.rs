//! Locking, planning and explaining over a repository that the test makes, signs and serves on
//! loopback: a whole suite of four packages without scripts.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use common::repository::{Deb, Repository};

const PASSWD: &str =
    "root:*:0:0:root:/root:/bin/bash\nnobody:*:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
const GROUP: &str = "root:*:0:\nnogroup:*:65534:\n";

/// The base that every image needs, and three packages of which one needs another.
const SUITE: [Deb<'static>; 5] = [
    Deb {
        name: "base-files",
        version: "1",
        fields: "Essential: yes\n",
        files: &[("etc/debian_version", "test\n")],
        control: &[],
    },
    Deb {
        name: "base-passwd",
        version: "1",
        fields: "Essential: yes\n",
        files: &[
            ("usr/share/base-passwd/passwd.master", PASSWD),
            ("usr/share/base-passwd/group.master", GROUP),
        ],
        control: &[],
    },
    Deb {
        name: "web",
        version: "1.0",
        fields: "Depends: library (>= 1), shell\n",
        files: &[("usr/bin/web", "#!/bin/sh\necho web\n"), ("etc/web.conf", "port = 80\n")],
        control: &[],
    },
    Deb {
        name: "library",
        version: "1.2",
        fields: "",
        files: &[("usr/lib/library/data", "data\n")],
        control: &[],
    },
    Deb {
        name: "small-shell",
        version: "3",
        fields: "Provides: shell\n",
        files: &[("usr/bin/sh", "#!/bin/true\n")],
        control: &[],
    },
];

/// A project beside its repository.
struct Project {
    folder: tempfile::TempDir,
    repository: Repository,
    mirror: String,
}

impl Project {
    fn new() -> Option<Self> {
        let folder = tempfile::Builder::new().prefix("drystone-explain-").tempdir().unwrap();
        let repository = Repository::new(&folder.path().join("repository"))?;
        SUITE.iter().for_each(|deb| drop(repository.add(deb)));
        repository.publish(&[]);
        let mirror = repository.serve();
        let project = Self { folder, repository, mirror };
        project.write(&["web"]);
        Some(project)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, packages: &[&str]) {
        let text = format!(
            "name = \"hello\"\n\n[debian]\nsuite = \"test\"\nkeyring = \"{}\"\npackages = {packages:?}\n\n\
             [files]\n\"/etc/web.conf\" = {{ text = \"port = 8080\\n\" }}\n",
            self.repository.key().display()
        );
        fs::write(self.path("image.toml"), text).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_drystone"))
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.folder.path())
            .env("DRYSTONE_STORE", self.path("store"))
            .env("DRYSTONE_MIRROR", &self.mirror)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .args(arguments)
            .output()
            .unwrap()
    }

    #[track_caller]
    fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", show(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let value: serde_json::Value = serde_json::from_str(&self.succeed(arguments)).unwrap();
        assert_eq!(value["version"], 1);
        value
    }

    #[track_caller]
    fn fails(&self, arguments: &[&str], code: i32, said: &[&str]) {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", show(&output));
        let stderr = String::from_utf8_lossy(&output.stderr);
        said.iter().for_each(|words| assert!(stderr.contains(words), "{words:?} in\n{stderr}"));
    }

    fn lock_text(&self) -> String {
        fs::read_to_string(self.path("image.lock")).unwrap()
    }
}

fn show(output: &Output) -> String {
    format!(
        "{}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn a_lock_is_made_once_proved_and_moved_only_by_update() {
    let Some(project) = Project::new() else { return };
    project.fails(&["lock", "--locked"], 3, &["image.lock", "drystone lock"]);
    let pinned = "+ base-files 1 all\n+ base-passwd 1 all\n+ library 1.2 all\n\
                  + small-shell 3 all\n+ web 1.0 all\n";
    assert_eq!(project.succeed(&["lock"]), pinned);
    let text = project.lock_text();
    assert_eq!(project.succeed(&["lock", "--locked"]), "");
    let object = project.json(&["lock", "--json"]);
    assert_eq!((&object["changed"], &object["changes"]), (&false.into(), &serde_json::json!([])));
    assert_eq!(project.succeed(&["lock", "--verify"]), "");

    project.repository.add(&Deb { version: "1.3", ..copy("library") });
    project.repository.add(&Deb { version: "1.1", ..copy("web") });
    project.repository.publish(&[]);
    assert_eq!(project.succeed(&["lock"]), "", "only update moves pins");
    let moves = "~ library 1.2 -> 1.3 all\n~ web 1.0 -> 1.1 all\n";
    assert_eq!(project.succeed(&["update", "--dry-run"]), moves);
    assert_eq!(project.lock_text(), text);
    assert_eq!(project.succeed(&["update", "web"]), "~ web 1.0 -> 1.1 all\n");
    assert_eq!(project.succeed(&["update"]), "~ library 1.2 -> 1.3 all\n");
    assert_eq!(project.json(&["update", "--json"])["changed"], false);
    project.fails(&["update", "wbe"], 5, &["wbe", "web"]);

    fs::write(project.path("old.lock"), &text).unwrap();
    let difference = project.succeed(&["diff", "old.lock", "image.toml"]);
    // The last line holds the archives' sizes, which are dpkg-deb's.
    let (known, _) = difference.split_once("bytes: ").unwrap();
    insta::assert_snapshot!("diff_locks", known);

    project.write(&["web", "small-shell"]);
    project.fails(&["build", "--locked"], 3, &["image.lock"]);
    project.fails(&["plan", "--offline"], 6, &["--offline"]);
    project.write(&["web", "libary"]);
    project.fails(&["build"], 5, &["libary", "library"]);
}

/// A package of the suite, to be changed.
fn copy(name: &str) -> Deb<'static> {
    let deb = SUITE.iter().find(|deb| deb.name == name).unwrap();
    Deb { name: deb.name, version: deb.version, fields: deb.fields, files: deb.files, control: &[] }
}

#[test]
fn what_is_in_an_image_is_explained() {
    let Some(project) = Project::new() else { return };
    let plan = project.succeed(&["plan"]);
    assert!(plan.contains("4 packages, 0 reused, 5 to fetch"), "{plan}");
    assert!(!project.path("image.lock").exists() && !project.path("store/db.sqlite").exists());
    project.fails(&["why", "library"], 2, &["drystone lock"]);
    let reference = project.succeed(&["build"]);
    assert!(reference.starts_with("hello:latest@sha256:"), "{reference}");
    assert_eq!(project.succeed(&["build", "--locked", "--offline"]), reference);
    let plan = project.succeed(&["plan", "--offline"]);
    assert!(plan.contains("0 to fetch"), "{plan}");
    assert!(plan.contains("/etc/web.conf replaces the file of web"), "{plan}");
    let plan = project.json(&["plan", "--json", "--offline"]);
    assert_eq!(plan["platforms"][0]["packages"], 4);

    insta::assert_snapshot!("tree", project.succeed(&["tree"]));
    insta::assert_snapshot!("tree_inverted", project.succeed(&["tree", "--invert", "library"]));
    insta::assert_snapshot!("why_library", project.succeed(&["why", "library"]));
    insta::assert_snapshot!("why_provided", project.succeed(&["why", "small-shell"]));
    insta::assert_snapshot!("why_path", project.succeed(&["why", "/bin/sh"]));
    insta::assert_snapshot!("why_overridden", project.succeed(&["why", "/etc/web.conf"]));
    assert_eq!(project.json(&["why", "--json", "library"])["chain"][0]["package"], "web");
    assert_eq!(project.json(&["tree", "--json"])["packages"].as_array().map(Vec::len), Some(4));
    project.fails(&["why", "absent"], 2, &["absent"]);

    let trees = project.json(&["store", "ls", "--json"]);
    let path = trees["trees"][0]["path"].as_str().unwrap();
    let info = project.json(&["store", "path-info", "--json", path]);
    let id = info["makers"][0]["derivation"].as_str().unwrap();
    let shown = project.json(&["derivation", "show", id]);
    assert_eq!(shown["derivations"][0]["id"], id);
    assert_eq!(project.json(&["derivation", "show", &path[..20]]), shown);
    project.fails(&["log", id], 2, &["has no log"]);
    project.fails(&["derivation", "show", "zzz"], 2, &["zzz"]);
    let packages = project.json(&["diff", "image.lock", "hello.tar", "--json"]);
    assert_eq!(packages["packages"], serde_json::json!([]), "the image says what the lock says");
    let freed = project.json(&["gc", "--json"]);
    assert_eq!(freed["roots"], serde_json::json!([]));
    assert_eq!(project.succeed(&["build", "--offline", "-o", "again.tar"]), reference);
    project.succeed(&["store", "verify"]);
}

const COPYRIGHT: &str = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n\
     Files: *\nCopyright: 2026 A Test\nLicense: GPL-2+ or Expat\n\n\
     Files: data\nCopyright: 2026 A Test\nLicense: own-terms\n Do what you like.\n";

#[test]
fn a_bill_of_materials_needs_no_build() {
    let Some(project) = Project::new() else { return };
    project.repository.add(&Deb {
        name: "licensed",
        version: "2.0-1+b1",
        fields: "Source: things (2.0-1)\nHomepage: https://example.org/\nDepends: library\n",
        files: &[("usr/share/doc/licensed/copyright", COPYRIGHT)],
        control: &[],
    });
    project.repository.publish(&[]);
    project.write(&["web", "licensed"]);
    let spdx = project.succeed(&["sbom"]);
    assert!(!project.path("image.lock").exists(), "looking pins nothing");
    project.succeed(&["lock"]);
    assert_eq!(project.succeed(&["sbom", "--offline"]), spdx, "the same image, the same bytes");
    let document: serde_json::Value = serde_json::from_str(&spdx).unwrap();
    let packages = document["packages"].as_array().unwrap();
    let find = |name: &str| packages.iter().find(|it| it["name"] == name).unwrap();
    let licensed = find("licensed");
    assert_eq!(
        licensed["licenseDeclared"],
        "(GPL-2.0-or-later OR MIT) AND LicenseRef-Debian-own-terms"
    );
    assert_eq!(licensed["sourceInfo"], "built from source package things 2.0-1");
    assert_eq!(licensed["homepage"], "https://example.org/");
    assert_eq!(find("web")["licenseDeclared"], "NOASSERTION");
    let lock = project.lock_text();
    let archive = licensed["checksums"][0]["checksumValue"].as_str().unwrap();
    assert!(lock.contains(archive), "the archive's digest is the lock's");
    let file = drystone_store::digest::BlobDigest::of(b"port = 8080\n").to_hex();
    assert_eq!(find("/etc/web.conf")["checksums"][0]["checksumValue"], file.as_str());
    let relations = document["relationships"].as_array().unwrap();
    let needs = |from: &str, to: &str| {
        relations.iter().any(|it| {
            it["relationshipType"] == "DEPENDS_ON"
                && it["spdxElementId"] == find(from)["SPDXID"]
                && it["relatedSpdxElement"] == find(to)["SPDXID"]
        })
    };
    assert!(needs("web", "library") && needs("licensed", "library") && needs("web", "small-shell"));
    assert!(!needs("library", "web"));
    let text = project.succeed(&["sbom", "--format", "cyclonedx", "-o", "bill.json"]);
    assert!(text.is_empty());
    let text = fs::read_to_string(project.path("bill.json")).unwrap();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let components = document["components"].as_array().unwrap();
    let component = components.iter().find(|it| it["name"] == "library").unwrap();
    assert_eq!(component["purl"], "pkg:deb/debian/library@1.2?arch=all&distro=test");
    project.fails(&["sbom", "--format", "other"], 2, &["spdx", "cyclonedx"]);
}
