//! Drystone's own image, built by Drystone, builds an image. It compiles the whole workspace, so it
//! is part of `.ci/long` only.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod common;

use common::engines::{Docker, Engine};
use common::{World, can_run, project, skip, succeed};

#[test]
fn the_own_image_builds_an_image() {
    if !common::is_long_run() {
        skip("it compiles the whole workspace; .ci/long does that");
        return;
    }
    let Some(mut world) = World::shared() else { return };
    world.set("CARGO", env!("CARGO"));
    let tarball = world.path("drystone.tar");
    let mut command = world.drystone(&["build", "--output", tarball.to_str().unwrap()]);
    succeed(command.arg(project().join("examples/drystone/image.toml")));
    if !can_run(&["dockerd", "docker"], true) {
        return;
    }
    let Some(docker) = Docker::start() else { return };
    docker.command(&["load", "--input", tarball.to_str().unwrap()]);
    let site = world.project("site", "name = \"site\"\n[files]\n\"/srv/page\" = \"page\"\n");
    site.write("page", "from inside\n");
    let mount = format!("{}:/work", site.folder.display());
    docker.command(&["run", "--rm", "--network", "none", "-v", &mount, "drystone", "build"]);
    let root = common::RootTree::of_image(&site.folder.join("site.tar"));
    assert_eq!(root.at("srv/page").text(), "from inside\n");
}
