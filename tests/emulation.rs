//! Images for architectures that are not the host's: scripts run through an emulator, two platforms
//! come from one lock, and without an emulator the mend is said.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod common;

use std::path::Path;
use std::process::Command;

use common::repository::{Deb, Repository};
use common::{Project, World, can_run, expect_failure, is_long_run, skip, succeed};
use serde_json::Value;

const EMULATOR: &str = "/usr/bin/qemu-aarch64-static";

/// A package whose script writes down what it is run by.
const TELLING: Deb<'_> = Deb {
    name: "telling",
    version: "1",
    fields: "",
    files: &[("usr/share/telling/file", "x\n")],
    control: &[(
        "postinst",
        "#!/bin/sh\nset -e\nuname -m >/etc/machine\n\
         dpkg --print-architecture >/etc/architecture\n",
    )],
};

struct Foreign {
    world: World,
    project: Project,
}

impl Foreign {
    /// `None`, said aloud, where this cannot be tried.
    fn new() -> Option<Self> {
        if std::env::consts::ARCH != "x86_64" {
            skip("the host is not amd64");
            return None;
        }
        let world = World::shared()?;
        let repository = Repository::new(&world.path("repository"))?;
        repository.add(&TELLING);
        repository.publish(&[("ARCHITECTURES", "amd64 arm64")]);
        let project = world.project(
            "foreign",
            &format!(
                "name = \"foreign\"\nplatforms = [\"linux/amd64\", \"linux/arm64\"]\n\
                 [debian]\nsuite = \"bookworm\"\npackages = [{{ name = \"telling\", from = \"local\" }}]\n{}",
                repository.table(&repository.serve())
            ),
        );
        Some(Self { world, project })
    }
}

fn json(layout: &Path, digest: &str) -> Value {
    let path = layout.join("blobs").join(digest.replace(':', "/"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Both platforms come from one lock into one index, and each script ran as its platform's.
#[test]
fn two_platforms_come_from_one_lock() {
    if !is_long_run() {
        skip("configured under emulation when DRYSTONE_ORACLE=all: it takes a minute");
        return;
    }
    if !can_run(&["qemu-aarch64-static"], false) {
        return;
    }
    let Some(Foreign { world, project }) = Foreign::new() else { return };
    let layout = project.folder.join("layout");
    let output = world.try_build(&project, &["--oci-layout", layout.to_str().unwrap()]);
    if output.status.code() == Some(8) {
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("qemu-user-static"), "{said}");
        skip(&format!("this kernel registers no emulator: {}", said.trim()));
        return;
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let index: Value =
        serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
    let images = json(&layout, index["manifests"][0]["digest"].as_str().unwrap());
    let platforms: Vec<&str> = images["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|image| image["platform"]["architecture"].as_str().unwrap())
        .collect();
    assert_eq!(platforms, ["amd64", "arm64"]);
    for (platform, machine, architecture) in
        [("linux/amd64", "x86_64\n", "amd64\n"), ("linux/arm64", "aarch64\n", "arm64\n")]
    {
        let root = world.build(&project, &["--locked", "--platform", platform]).root();
        assert_eq!(root.at("etc/machine").text(), machine);
        assert_eq!(root.at("etc/architecture").text(), architecture);
    }
}

#[test]
fn without_an_emulator_the_mend_is_said() {
    if !can_run(&["unshare", "mount"], true) {
        return;
    }
    if Path::new("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists() {
        skip("an emulator is registered with this host's kernel");
        return;
    }
    let Some(Foreign { world, project }) = Foreign::new() else { return };
    let build = world.drystone(&["build", "--platform", "linux/arm64"]);
    let mut command = Command::new("unshare");
    world.environment(&mut command);
    let hidden = format!("test ! -e {EMULATOR} || mount --bind /dev/null {EMULATOR}; exec \"$@\"");
    command.args(["--mount", "sh", "-ec", &hidden, "sh"]).arg(build.get_program());
    command.args(build.get_args()).arg(project.folder.join("image.toml"));
    let output = command.output().unwrap();
    expect_failure(&output, 8, &["linux/arm64", "telling", "qemu-user-static"]);
    succeed(&mut world.drystone(&["store", "verify"]));
}
