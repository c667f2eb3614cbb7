//! Rust projects and fetched sources: Cargo.lock is the list, the registry that this host's cargo is
//! configured for is asked once, and nothing is taken that has not the right hash.
//!
//! The registries are on loopback. Needs a Debian mirror in the host's apt sources.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::crates::{Crates, Server};
use common::engines::{Docker, Engine};
use common::{Project, World, can_run, http, run, skip, succeed};

/// A program that says what two crates made of its words.
const MAIN: &str = "fn main() { println!(\"{}\", outer::say()); }\n";
const MANIFEST: &str = "[package]\nname = \"own\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\
    [dependencies]\nouter = \"1\"\nhelper = { path = \"helper\" }\n[workspace]\nmembers = [\"helper\"]\n";
const HELPER: &str = "[package]\nname = \"helper\"\nversion = \"0.1.0\"\nedition = \"2021\"\n";
const OUTER: &str = "[package]\nname = \"outer\"\nversion = \"1.0.0\"\nedition = \"2021\"\n\
    [dependencies]\ninner = \"1\"\n";

fn image(recipes: &str) -> String {
    format!("name = \"cargo\"\n[debian]\nsuite = \"bookworm\"\n{recipes}")
}

/// A world whose cargo asks a registry on loopback. Its store keeps no crate of other runs, since
/// each run's crates are its own.
fn world() -> Option<(World, Crates)> {
    let mut world = World::shared()?;
    let crates = Crates::start();
    let home = world.path("cargo-home");
    fs::create_dir_all(&home).unwrap();
    fs::write(home.join("config.toml"), crates.configuration()).unwrap();
    world.set("CARGO_HOME", home.to_str().unwrap());
    Some((world, crates))
}

fn inner(crates: &Crates, version: &str, unique: &str) -> String {
    let manifest =
        format!("[package]\nname = \"inner\"\nversion = \"{version}\"\nedition = \"2021\"\n");
    let code = format!("pub fn say() -> &'static str {{ \"{version} {unique}\" }}\n");
    crates.publish("inner", version, &[("Cargo.toml", &manifest), ("src/lib.rs", &code)])
}

fn outer(crates: &Crates, unique: &str) -> String {
    let code = format!("// {unique}\npub fn say() -> &'static str {{ inner::say() }}\n");
    let entry = crates.publish("outer", "1.0.0", &[("Cargo.toml", OUTER), ("src/lib.rs", &code)]);
    format!("{entry}dependencies = [\"inner\"]\n")
}

fn lock(entries: &[&str]) -> String {
    let own = "[[package]]\nname = \"own\"\nversion = \"0.1.0\"\ndependencies = [\"helper\", \
        \"outer\"]\n[[package]]\nname = \"helper\"\nversion = \"0.1.0\"\n";
    format!("version = 4\n{own}{}", entries.concat())
}

fn write_project(project: &Project, lock: &str) {
    project.write("app/Cargo.toml", MANIFEST).write("app/src/main.rs", MAIN);
    project.write("app/helper/Cargo.toml", HELPER).write("app/helper/src/lib.rs", "");
    project.write("app/Cargo.lock", lock);
}

/// What each run's crates are told apart by.
fn unique(world: &World) -> String {
    world.folder.path().file_name().unwrap().to_str().unwrap().to_owned()
}

/// The archives that the registry was asked for.
fn archives(server: &Server) -> Vec<String> {
    server.asked().into_iter().filter(|path| path.starts_with("/dl/")).collect()
}

#[test]
fn a_project_is_built_from_its_lockfile_and_only_what_changed_is_fetched() {
    let Some((world, crates)) = world() else { return };
    let unique = unique(&world);
    let recipe = "[recipe.app]\nbuilder = \"cargo\"\nsource = \"app\"\n\
        [recipe.said]\nrecipes = [\"app\"]\nscript = \"mkdir $out/opt; own > $out/opt/said\"\n\
        [image]\nrecipes = [\"app\", \"said\"]\n";
    let project = world.project("project", &image(recipe));
    let (outer, first) = (outer(&crates, &unique), inner(&crates, "1.0.0", &unique));
    write_project(&project, &lock(&[&first, &outer]));
    let built = world.build(&project, &[]);
    assert_eq!(built.root().at("usr/bin/own").mode, 0o755);
    assert_eq!(built.root().at("opt/said").text(), format!("1.0.0 {unique}\n"));
    assert_eq!(archives(&crates.server), ["/dl/inner-1.0.0", "/dl/outer-1.0.0"]);

    let second = inner(&crates, "1.1.0", &unique);
    project.write("app/Cargo.lock", &lock(&[&second, &outer]));
    let changed = world.build(&project, &[]);
    assert_ne!(changed.digest, built.digest);
    assert_eq!(archives(&crates.server), ["/dl/inner-1.1.0"], "only what changed is fetched");

    // What is here needs no registry, not even for a source that changed.
    crates.server.forget();
    project.write("app/Cargo.lock", &lock(&[&first, &outer]));
    let again = world.build(&project, &["--offline"]);
    assert_eq!(again.digest, built.digest);
    project.write("app/src/main.rs", &format!("// a comment\n{MAIN}"));
    let same = world.build(&project, &["--offline", "--progress", "plain"]);
    assert!(same.messages.contains("recipe app: build"), "{}", same.messages);
    assert_eq!(crates.server.asked(), [""; 0]);
}

/// Its lockfile is known before anything of it is unpacked in a sandbox.
#[test]
fn an_archive_of_a_project_is_a_source() {
    let Some((world, crates)) = world() else { return };
    let unique = unique(&world);
    let (outer, inner) = (outer(&crates, &unique), inner(&crates, "1.0.0", &unique));
    let writing = world.project("writing", "");
    write_project(&writing, &lock(&[&inner, &outer]));
    let served = world.path("served");
    fs::create_dir_all(&served).unwrap();
    let address = http::serve(served.clone());
    for (name, compress) in
        [("own.tar.xz", "--xz"), ("own.tar.zst", "--zstd"), ("own.tgz", "--gzip")]
    {
        let archive = served.join(name);
        let pack = ["-c", compress, "-f", archive.to_str().unwrap(), "-C"];
        run("tar", &[&pack[..], &[writing.folder.to_str().unwrap(), "app"]].concat());
        let digest = run("sha256sum", &[archive.to_str().unwrap()]);
        let digest = digest.split(' ').next().unwrap();
        let project = world.project(
            name,
            &image(&format!(
                "[recipe.app]\nbuilder = \"cargo\"\npatches = [\"p\"]\n\
                 source = {{ url = \"{address}/{name}\", sha256 = \"{digest}\" }}\n"
            )),
        );
        project.write(
            "p",
            "--- a/src/main.rs\n+++ b/src/main.rs\n@@ -1 +1,2 @@\n+// patched\n fn main() { println!(\"{}\", \
             outer::say()); }\n",
        );
        let built = world.build(&project, &[]);
        assert_eq!(built.root().at("usr/bin/own").mode, 0o755, "{name}");
    }
    assert_eq!(archives(&crates.server), ["/dl/inner-1.0.0", "/dl/outer-1.0.0"]);

    // What has no lockfile, what is damaged, and what only programs in the sandbox could read.
    fs::write(served.join("damaged.tar.xz"), b"\xfd7zXZ\0 and no more").unwrap();
    let digest = run("sha256sum", &[served.join("damaged.tar.xz").to_str().unwrap()]);
    let digest = digest.split(' ').next().unwrap();
    let project = world.project("damaged", "");
    let recipe = |name: &str| {
        image(&format!(
            "[recipe.app]\nbuilder = \"cargo\"\n\
             source = {{ url = \"{address}/{name}\", sha256 = \"{digest}\" }}\n"
        ))
    };
    project.write("image.toml", &recipe("damaged.tar.xz"));
    world.fails(&project, 7, &["cannot unpack the archive", digest]);
    project.write("image.toml", &recipe("own.zip"));
    world.fails(&project, 2, &["image.toml:6", "cannot in this one", "tar.xz"]);
}

#[test]
fn what_cannot_be_trusted_is_refused_and_not_kept() {
    let Some((world, crates)) = world() else { return };
    let unique = unique(&world);
    let recipe = "[recipe.app]\nbuilder = \"cargo\"\nsource = \"app\"\n";
    let project = world.project("refused", &image(recipe));
    let (outer, inner_entry) = (outer(&crates, &unique), inner(&crates, "1.0.0", &unique));
    let good = lock(&[&inner_entry, &outer]);

    // The registry serves something else: both hashes are told, and nothing stays.
    write_project(&project, &good);
    crates.server.serve("/dl/inner-1.0.0", b"something else".to_vec());
    let expected = inner_entry.split('"').nth(5).unwrap().to_owned();
    let said = world.fails(&project, 7, &["inner 1.0.0 has the wrong content", &expected]);
    assert!(said.contains("got sha256:"), "{said}");
    let said = world.fails(&project, 7, &["inner 1.0.0 has the wrong content"]);
    assert!(said.contains(&expected), "a second try does not find it in the store: {said}");

    // A server that has nothing.
    crates.server.serve("/dl/inner-1.0.0", Vec::new());
    world.fails(&project, 7, &["inner 1.0.0"]);
    let said = world.try_build(&project, &["--offline"]);
    common::expect_failure(&said, 6, &["may not be used", "inner 1.0.0"]);

    let source = "[[package]]\nname = \"x\"\nversion = \"1.0.0\"\nsource = ";
    for (text, code, said) in [
        (lock(&[source, "\"registry+https://index.example.com/git\"\n"]), 2, "x 1.0.0 has no hash"),
        (
            lock(&[source, "\"git+https://example.com/x.git#abc\"\n"]),
            2,
            "comes from a git repository",
        ),
        ("version = 9\n".to_owned(), 2, "of version 9"),
        ("no lockfile".to_owned(), 2, "Cargo.lock: "),
    ] {
        project.write("app/Cargo.lock", &text);
        world.fails(&project, code, &["recipe app", said]);
    }
    fs::remove_file(project.folder.join("app/Cargo.lock")).unwrap();
    world.fails(&project, 2, &["the source has no Cargo.lock", "cargo generate-lockfile"]);

    // An archive that writes elsewhere.
    let files = [("Cargo.toml", "x"), ("../../escape", "x")];
    let hostile = crates.publish("hostile", "1.0.0", &files);
    project.write("app/Cargo.lock", &lock(&[&hostile]));
    world.fails(&project, 7, &["cannot unpack hostile 1.0.0", "../../escape"]);
}

/// A host whose cargo says nothing of a registry, and that has no cargo.
#[test]
fn a_host_that_knows_no_registry_is_told_how_to_name_one() {
    let Some((mut world, crates)) = world() else { return };
    let unique = unique(&world);
    let project =
        world.project("nowhere", &image("[recipe.app]\nbuilder = \"cargo\"\nsource = \"app\"\n"));
    write_project(&project, &lock(&[&inner(&crates, "1.0.0", &format!("{unique} nowhere"))]));
    world.set("CARGO_HOME", "/nowhere");
    world.set("CARGO", "/nowhere/cargo");
    world.fails(&project, 6, &["/nowhere/cargo cannot be run", "replace-with"]);
}

#[test]
fn a_published_crate_is_a_source() {
    let Some((world, crates)) = world() else { return };
    let unique = unique(&world);
    let files = [("Cargo.toml", "x"), ("src/text", unique.as_str())];
    let entry = crates.publish("tool", "2.0.0", &files);
    let sha256 = entry.split('"').nth(5).unwrap();
    let recipe = |sha256: &str| {
        image(&format!(
            "[recipe.tool]\nsource = {{ crate = \"tool\", version = \"2.0.0\", sha256 = \
             \"{sha256}\" }}\npatches = [\"p\"]\nscript = \"cp src/text $out/text\"\n"
        ))
    };
    let project = world.project("crate", &recipe(sha256));
    project.write(
        "p",
        "--- a/Cargo.toml\n+++ b/Cargo.toml\n@@ -1 +1 @@\n-x\n\\ No newline at end of file\n+y\n",
    );
    let built = world.build(&project, &[]);
    assert_eq!(built.root().at("text").text(), unique);
    project.write("image.toml", &recipe(&"ab".repeat(32)));
    world.fails(&project, 7, &["tool 2.0.0 has the wrong content", &"ab".repeat(32), sha256]);
}

/// Another host, with an empty store and the cache, asks neither registry nor mirror.
#[test]
fn a_warm_cache_needs_no_registry() {
    let Some((mut world, crates)) = world() else { return };
    let unique = unique(&world);
    let entry =
        crates.publish("cached", "1.0.0", &[("Cargo.toml", "x"), ("text", unique.as_str())]);
    let sha256 = entry.split('"').nth(5).unwrap();
    let project = world.project(
        "warm",
        &image(&format!(
            "[recipe.cached]\nsource = {{ crate = \"cached\", version = \"1.0.0\", sha256 = \
             \"{sha256}\" }}\nscript = \"cp text $out/text\"\n"
        )),
    );
    let key = world.path("runner.key").display().to_string();
    let generate = ["key", "generate", "runner", "--output", key.as_str()];
    let line = succeed(&mut world.drystone(&generate)).trim().to_owned();
    let cache = format!("file:{}", world.path("cache").display());
    let first = world.build(&project, &["--cache", &cache, "--signing-key", &key]);
    assert_eq!(archives(&crates.server), ["/dl/cached-1.0.0"]);
    crates.server.forget();
    world.store = world.path("other-store");
    world.set("DRYSTONE_MIRROR", "http://127.0.0.1:1/debian");
    world.set("DRYSTONE_SECURITY_MIRROR", "http://127.0.0.1:1/debian");
    let options = ["--cache", &cache, "--trusted-key", &line, "--progress", "plain"];
    let second = world.build(&project, &options);
    assert_eq!(second.digest, first.digest);
    assert!(!second.messages.contains("recipe cached: build"), "{}", second.messages);
    assert_eq!(crates.server.asked(), [""; 0]);
}

/// Runs git in a folder, with nothing of the host's configuration.
fn git(folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command.current_dir(folder).args(arguments);
    for (name, value) in [
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_AUTHOR_NAME", "Mason"),
        ("GIT_AUTHOR_EMAIL", "mason@example.com"),
        ("GIT_COMMITTER_NAME", "Mason"),
        ("GIT_COMMITTER_EMAIL", "mason@example.com"),
    ] {
        command.env(name, value);
    }
    succeed(&mut command).trim().to_owned()
}

fn commit(folder: &Path) -> String {
    git(folder, &["add", "-A", "."]);
    git(folder, &["commit", "-q", "-m", "a change"]);
    git(folder, &["rev-parse", "HEAD"])
}

#[test]
fn a_commit_is_a_source_wherever_it_is_served() {
    let Some(world) = World::shared() else { return };
    if !can_run(&["git"], false) {
        return;
    }
    let unique = unique(&world);
    let work = world.path("work");
    fs::create_dir_all(work.join("sub")).unwrap();
    git(&work, &["init", "-q", "-b", "main", "."]);
    fs::write(work.join("text"), &unique).unwrap();
    // Attributes are for checkouts and archives, not for sources.
    fs::write(work.join(".gitattributes"), "* export-subst\ntext export-ignore\n").unwrap();
    fs::write(work.join("sub/tool"), "#!/bin/sh\n").unwrap();
    run("chmod", &["755", work.join("sub/tool").to_str().unwrap()]);
    std::os::unix::fs::symlink("sub/tool", work.join("link")).unwrap();
    let first = commit(&work);
    fs::write(work.join("text"), "later").unwrap();
    commit(&work);
    let bare = world.path("bare.git");
    git(world.folder.path(), &["clone", "-q", "--bare", "work", "bare.git"]);
    let recipe = |url: &str, revision: &str| {
        image(&format!(
            "[recipe.app]\nsource = {{ git = \"{url}\", revision = \"{revision}\" }}\n\
             script = \"ls -la | wc -l; test -x sub/tool; test -L link; test ! -e .git; cp text $out/text\"\n"
        ))
    };
    // By a server that knows nothing of git.
    git(&bare, &["update-server-info"]);
    let server = Server::start();
    for file in run("find", &[bare.to_str().unwrap(), "-type", "f"]).lines() {
        let path = file.strip_prefix(world.folder.path().to_str().unwrap()).unwrap();
        server.serve(path, fs::read(file).unwrap());
    }
    let url = format!("http://127.0.0.1:{}/bare.git", server.port);
    let project = world.project("git", &recipe(&url, &first));
    let built = world.build(&project, &[]);
    assert_eq!(built.root().at("text").text(), unique);
    assert!(!server.asked().is_empty());
    // From another place it is the same, and is not fetched again.
    let url = format!("file://{}", bare.display());
    project.write("image.toml", &recipe(&url, &first));
    let same = world.build(&project, &["--offline"]);
    assert_eq!(same.digest, built.digest);
    let missing = "0123456789".repeat(4);
    project.write("image.toml", &recipe(&url, &missing));
    world.fails(&project, 6, &[&format!("git cannot fetch {missing}"), "reachable"]);

    // Fetched from the disk by its id alone; then what is not supported.
    fs::write(work.join("text"), format!("{unique} again")).unwrap();
    let again = commit(&work);
    let url = format!("file://{}", work.display());
    project.write("image.toml", &recipe(&url, &again));
    assert_eq!(world.build(&project, &[]).root().at("text").text(), format!("{unique} again"));
    git(&work, &["update-index", "--add", "--cacheinfo", &format!("160000,{first},module")]);
    git(&work, &["commit", "-q", "-m", "a submodule"]);
    let module = git(&work, &["rev-parse", "HEAD"]);
    project.write("image.toml", &recipe(&url, &module));
    world.fails(&project, 2, &["a git submodule at module, which is not supported"]);
    git(&work, &["rm", "-q", "--cached", "module"]);
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    fs::write(work.join("large"), pointer).unwrap();
    let large = commit(&work);
    project.write("image.toml", &recipe(&url, &large));
    world.fails(&project, 2, &["large is kept by git's large file storage"]);
}

/// The example, with its crates from the registry that this machine's cargo asks.
#[test]
fn a_rust_service_is_built_and_answers() {
    let Some(mut world) = World::shared() else { return };
    world.set("CARGO", env!("CARGO"));
    let project = world.example("rust-web");
    let lock = fs::read_to_string(project.folder.join("app/Cargo.lock")).unwrap();
    assert!(!lock.contains("://"), "the lockfile names no registry");
    let built = world.build(&project, &[]);
    let root = built.root();
    assert_eq!(root.at("usr/bin/quarry").mode, 0o755);
    for absent in ["usr/bin/cargo", "usr/bin/rustc", "usr/bin/sh", "build"] {
        assert!(root.get(absent).is_none(), "/{absent} has no business here");
    }
    if !http::is_free(8090) {
        skip("something already listens on port 8090");
        return;
    }
    if can_run(&["dockerd", "docker"], true)
        && let Some(docker) = Docker::start()
    {
        docker.command(&["load", "--input", built.tarball.to_str().unwrap()]);
        let container = docker.start("rust-web", &[]);
        let page = http::get(8090, "/hearting");
        let expected = "{\"kind\":\"granite\",\"weight\":120}";
        assert_eq!((page.status, page.body.as_str()), (200, expected));
        let page = http::get(8090, "/nothing");
        assert_eq!((page.status, page.body.contains("there is no stone nothing")), (404, true));
        docker.remove(&container);
    }
}
