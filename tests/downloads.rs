//! Files that `[files]` fetches, from a server on loopback: neither root nor a mirror is needed.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use common::image::Content;
use common::{RootTree, expect_failure, http, succeed};
use sha2::{Digest as _, Sha256};

/// A store, a project and a server of files.
struct Place {
    folder: tempfile::TempDir,
    address: String,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("served")).unwrap();
        fs::create_dir(folder.path().join("project")).unwrap();
        let address = http::serve(folder.path().join("served"));
        Self { folder, address }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Serves a file; its digest.
    fn serve(&self, name: &str, content: &[u8]) -> String {
        fs::write(self.path("served").join(name), content).unwrap();
        digest(content)
    }

    fn write(&self, files: &str) {
        let files = files.replace("ADDRESS", &self.address);
        let text = format!("name = \"fetched\"\n[files]\n{files}");
        fs::write(self.path("project/image.toml"), text).unwrap();
    }

    fn drystone(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_drystone"));
        command
            .env_clear()
            .env("HOME", self.folder.path())
            .env("DRYSTONE_STORE", self.path("store"))
            .current_dir(self.path("project"))
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    fn build(&self, arguments: &[&str]) -> Output {
        self.drystone(&["build"]).args(arguments).output().unwrap()
    }

    fn root(&self) -> RootTree {
        RootTree::of_image(&self.path("project/fetched.tar"))
    }

    /// How many blobs the store has.
    fn blobs(&self) -> usize {
        fs::read_dir(self.path("store/blobs/sha256")).map_or(0, Iterator::count)
    }

    #[track_caller]
    fn verify(&self) {
        succeed(&mut self.drystone(&["store", "verify"]));
    }
}

fn digest(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A build must have gone well; what it answered.
#[track_caller]
fn answer(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn fetched_files_stand_in_the_image_and_are_fetched_once() {
    let place = Place::new();
    let content = vec![7; 300_000];
    let (data, tool) = (place.serve("data.bin", &content), place.serve("tool", b"#!/bin/tool\n"));
    place.write(&format!(
        "\"/srv/data.bin\" = {{ url = \"ADDRESS/data.bin\", sha256 = \"{data}\" }}\n\
         \"/usr/bin/tool\" = {{ url = \"ADDRESS/tool\", sha256 = \"{tool}\", mode = \"0750\", \
         uid = 10, gid = 20 }}\n"
    ));
    let planned = succeed(&mut place.drystone(&["plan", "--offline"]));
    assert!(planned.contains(&format!("fetch /srv/data.bin from {}/data.bin", place.address)));
    let first = answer(&place.build(&[]));
    let root = place.root();
    let (data_file, tool_file) = (&root.0["srv/data.bin"], &root.0["usr/bin/tool"]);
    assert_eq!(data_file.content, Content::File { sha256: data.clone(), size: 300_000 });
    assert_eq!((data_file.mode, data_file.uid, data_file.gid), (0o644, 0, 0));
    assert_eq!(tool_file.text(), "#!/bin/tool\n");
    assert_eq!((tool_file.mode, tool_file.uid, tool_file.gid), (0o750, 10, 20));
    place.verify();

    // The server has lost both; the root keeps them through garbage collection.
    fs::remove_dir_all(place.path("served")).unwrap();
    succeed(&mut place.drystone(&["store", "gc"]));
    fs::remove_file(place.path("project/fetched.tar")).unwrap();
    assert_eq!(answer(&place.build(&["--offline"])), first);
    let planned = succeed(&mut place.drystone(&["plan", "--offline"]));
    assert!(!planned.contains("fetch /"), "{planned}");
    // The digest decides, wherever the content stands and whatever address has it now.
    place.write(&format!("\"/x\" = {{ url = \"ADDRESS/gone\", sha256 = \"{data}\" }}\n"));
    answer(&place.build(&[]));
    assert_eq!(place.root().0["x"].content, data_file.content);

    // What no image needs any more goes.
    let blob = place.path("store/blobs/sha256").join(&tool);
    assert!(blob.exists());
    succeed(&mut place.drystone(&["store", "gc"]));
    assert!(!blob.exists());
    place.verify();
}

#[test]
fn wrong_content_is_refused_and_not_kept() {
    let place = Place::new();
    let actual = place.serve("data", b"not what was promised");
    let expected = digest(b"what was promised");
    let entry = format!("\"/data\" = {{ url = \"ADDRESS/data\", sha256 = \"{expected}\" }}\n");
    place.write(&entry);
    expect_failure(&place.build(&[]), 7, &["/data", &expected, &actual, "image.toml"]);
    assert_eq!(place.blobs(), 0);
    assert!(!place.path("project/fetched.tar").exists());
    place.verify();
    // The address is mended, and the same store goes on.
    assert_eq!(place.serve("data", b"what was promised"), expected);
    answer(&place.build(&[]));
    place.verify();
}

#[test]
fn without_network_or_file_the_build_says_so() {
    let place = Place::new();
    let absent = digest(b"x");
    place.write(&format!("\"/x\" = {{ url = \"ADDRESS/x\", sha256 = \"{absent}\" }}\n"));
    expect_failure(&place.build(&["--offline"]), 6, &["/x", "--offline"]);
    expect_failure(&place.build(&[]), 6, &["/x", "does not exist"]);
    assert_eq!(place.blobs(), 0);
    place.verify();
}

#[test]
fn a_private_key_is_refused_wherever_it_comes_from() {
    let place = Place::new();
    let key = "-----BEGIN PRIVATE KEY-----\n\
               MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
               -----END PRIVATE KEY-----\n";
    let sha256 = place.serve("key", key.as_bytes());
    place
        .write(&format!("\"/etc/key.pem\" = {{ url = \"ADDRESS/key\", sha256 = \"{sha256}\" }}\n"));
    expect_failure(&place.build(&[]), 1, &["etc/key.pem", "[files]"]);
    place.verify();
}

#[test]
fn the_address_is_in_no_identity() {
    let (one, two) = (Place::new(), Place::new());
    let image = |place: &Place, name: &str| {
        let sha256 = place.serve(name, b"same");
        place.write(&format!("\"/x\" = {{ url = \"ADDRESS/{name}\", sha256 = \"{sha256}\" }}\n"));
        answer(&place.build(&[]))
    };
    assert_eq!(image(&one, "a"), image(&two, "b"));
    assert!(Path::new(&one.path("project/fetched.tar")).exists());
}
