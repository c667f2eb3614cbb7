//! Node and Python projects: their lockfiles are the list, the registries that this host's npm and pip
//! are configured for are asked, and nothing is taken that has not the right hash.
//!
//! Registries are on loopback, but for the examples, which ask those that this host is configured
//! for. Needs a Debian mirror in the host's apt sources. Docker needs root.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod common;

use std::fs;
use std::path::Path;

use common::crates::{Server, archive};
use common::engines::{Docker, Engine};
use common::{Built, Project, World, can_run, expect_failure, http, run, skip, succeed};
use data_encoding::BASE64;
use sha2::{Digest as _, Sha256, Sha512};

const NPM: &str = "npm-10.9.9.tgz";

fn image(recipes: &str) -> String {
    format!("name = \"languages\"\n[debian]\nsuite = \"bookworm\"\n{recipes}")
}

/// What each run's packages are told apart by: the shared store keeps none of other runs.
fn unique(world: &World) -> String {
    world.folder.path().file_name().unwrap().to_str().unwrap().to_owned()
}

/// Publishes an npm package; its hash as package-lock.json writes it.
fn publish(server: &Server, name: &str, version: &str, files: &[(&str, &str)]) -> String {
    let manifest = format!("{{\"name\":\"{name}\",\"version\":\"{version}\"}}");
    let files: Vec<(&str, &str)> =
        [("package.json", manifest.as_str())].into_iter().chain(files.iter().copied()).collect();
    let bytes = archive("package", &files);
    let integrity = format!("sha512-{}", BASE64.encode(&Sha512::digest(&bytes)));
    let base = name.rsplit('/').next().unwrap();
    server.serve(&format!("/npm/{name}/-/{base}-{version}.tgz"), bytes);
    integrity
}

/// A world whose npm asks a registry on loopback, with a token for one scope; npm itself is served
/// there too, as this host's npm fetches it.
fn npm_world() -> Option<(World, Server)> {
    let mut world = World::shared()?;
    if !can_run(&["npm"], false) {
        return None;
    }
    let server = Server::start();
    let folder = world.folder.path().to_str().unwrap();
    run("npm", &["pack", "--silent", "--pack-destination", folder, "npm@10.9.9"]);
    server.serve(&format!("/npm/npm/-/{NPM}"), fs::read(world.path(NPM)).unwrap());
    let settings = format!(
        "registry=http://127.0.0.1:{0}/npm\n@acme:registry=http://127.0.0.1:{0}/npm/\n\
         //127.0.0.1:{0}/npm/:_authToken=${{ACME_TOKEN}}\n",
        server.port
    );
    fs::write(world.path(".npmrc"), settings).unwrap();
    world.set("ACME_TOKEN", "very-secret-token");
    Some((world, server))
}

fn npm_lock(entries: &[(&str, &str)]) -> String {
    let entries: Vec<String> = entries
        .iter()
        .map(|(place, entry)| format!("\"node_modules/{place}\":{{{entry}}}"))
        .collect();
    format!(
        "{{\"name\":\"own\",\"version\":\"1.0.0\",\"lockfileVersion\":3,\"packages\":{{\"\":{{\
         \"name\":\"own\",\"version\":\"1.0.0\",\"dependencies\":{{\"@acme/words\":\"^1.0.0\",\
         \"other\":\"npm:plain@^1.0.0\"}}}},{}}}}}",
        entries.join(",")
    )
}

const OWN: &str = "{\"name\":\"own\",\"version\":\"1.0.0\",\"bin\":\"own.js\",\"dependencies\":{\
    \"@acme/words\":\"^1.0.0\",\"other\":\"npm:plain@^1.0.0\"}}";
const MAIN: &str = "#!/usr/bin/env node\n\
    require('fs').writeFileSync(process.argv[2], require('@acme/words') + require('other') + '\\n');\n";

/// The paths of archives that the registry was asked for, without npm's own.
fn archives(server: &Server) -> Vec<String> {
    let asked = server.asked().into_iter().filter(|path| !path.ends_with(NPM));
    asked.map(|path| path.trim_start_matches("/npm/").to_owned()).collect()
}

#[test]
fn a_node_project_is_built_from_its_lockfile_and_only_what_changed_is_fetched() {
    let Some((world, server)) = npm_world() else { return };
    let unique = unique(&world);
    let words = |version: &str| {
        let code = format!("module.exports = '{version} {unique} ';");
        let hash = publish(&server, "@acme/words", version, &[("index.js", &code)]);
        format!(
            "\"version\":\"{version}\",\"integrity\":\"{hash}\",\"optionalDependencies\":{{\
             \"elsewhere\":\"1.0.0\"}}"
        )
    };
    let code = format!("module.exports = '{unique}';");
    let plain = publish(&server, "plain", "1.0.0", &[("index.js", &code)]);
    // An address of another host, a memory of somebody's network.
    let resolved = "\"resolved\":\"https://packages.example.com/plain-1.0.0.tgz\",";
    let plain = |resolved: &str| {
        format!("\"name\":\"plain\",\"version\":\"1.0.0\",{resolved}\"integrity\":\"{plain}\"")
    };
    // No registry has this one, which is for another system.
    let elsewhere = "\"version\":\"1.0.0\",\"optional\":true,\"os\":[\"darwin\"],\"integrity\":\
        \"sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg==\"";
    let recipe = "[recipe.app]\nbuilder = \"npm\"\nsource = \"app\"\n\
        [recipe.said]\nrecipes = [\"app\"]\ndebian = [\"nodejs\"]\n\
        script = \"mkdir $out/opt; own $out/opt/said\"\n[image]\nrecipes = [\"app\", \"said\"]\n";
    let project = world.project("project", &image(recipe));
    project.write("app/package.json", OWN).write("app/own.js", MAIN);
    project.write("app/.npmrc", "save-exact=true\n//127.0.0.1/:_authToken=another-secret\n");
    let lock = |words: &str, resolved: &str| {
        npm_lock(&[("@acme/words", words), ("elsewhere", elsewhere), ("other", &plain(resolved))])
    };
    let first = words("1.0.0");
    project.write("app/package-lock.json", &lock(&first, resolved));
    let built = world.build(&project, &["--log", "trace"]);
    assert_eq!(built.root().at("opt/said").text(), format!("1.0.0 {unique} {unique}\n"));
    built.root().at("usr/lib/node_modules/own/node_modules/@acme/words/index.js");
    assert!(built.root().get("usr/lib/node_modules/own/node_modules/elsewhere").is_none());
    assert_eq!(archives(&server), ["@acme/words/-/words-1.0.0.tgz", "plain/-/plain-1.0.0.tgz"]);
    assert!(server.heard().contains(&"Bearer very-secret-token".to_owned()), "the token is sent");
    no_secret(&world, &built);

    // Without the address it is the same derivation: nothing is built, fetched or changed.
    project.write("app/package-lock.json", &lock(&first, ""));
    let same = world.build(&project, &["--offline", "--progress", "plain"]);
    assert_eq!(same.digest, built.digest);
    assert!(!same.messages.contains("recipe app: build"), "{}", same.messages);

    project.write("app/package-lock.json", &lock(&words("1.1.0"), resolved));
    let changed = world.build(&project, &[]);
    assert_eq!(archives(&server), ["@acme/words/-/words-1.1.0.tgz"], "only what changed");
    assert_eq!(changed.root().at("opt/said").text(), format!("1.1.0 {unique} {unique}\n"));
}

/// Secrets are in no message, and in nothing that the store keeps.
fn no_secret(world: &World, built: &Built) {
    for secret in ["very-secret-token", "another-secret"] {
        assert!(!built.messages.contains(secret), "{}", built.messages);
        let database = fs::read(world.store.join("db.sqlite")).unwrap();
        let found = database.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found, "a derivation or a fact holds {secret}");
    }
}

#[test]
fn npm_packages_that_cannot_be_trusted_are_refused_and_not_kept() {
    let Some((world, server)) = npm_world() else { return };
    let unique = unique(&world);
    let hash = publish(&server, "plain", "1.0.0", &[("index.js", &format!("// {unique}"))]);
    server.serve("/npm/plain/-/plain-1.0.0.tgz", b"something else".to_vec());
    let recipe = "[recipe.app]\nbuilder = \"npm\"\nsource = \"app\"\n";
    let project = world.project("refused", &image(recipe));
    project.write("app/package.json", OWN);
    let lock = |entry: &str| {
        project.write("app/package-lock.json", &npm_lock(&[("plain", entry)]));
    };
    lock(&format!("\"version\":\"1.0.0\",\"integrity\":\"{hash}\""));
    let hex: String = BASE64
        .decode(hash.trim_start_matches("sha512-").as_bytes())
        .unwrap()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    for _ in 0..2 {
        let said = world.fails(&project, 7, &["plain 1.0.0 has the wrong content", &hex]);
        assert!(said.contains("got sha512:"), "{said}");
        assert!(!said.contains("very-secret-token"), "{said}");
    }
    let said = world.try_build(&project, &["--offline"]);
    expect_failure(&said, 6, &["may not be used", "plain 1.0.0"]);
    lock("\"version\":\"1.0.0\"");
    world.fails(&project, 2, &["plain 1.0.0 has no hash", "--package-lock-only"]);
    lock("\"version\":\"1.0.0\",\"integrity\":\"sha1-qZk+NkcGgWq6PiVxeFDCbJzQ2J0=\"");
    world.fails(&project, 2, &["plain 1.0.0", "broken kind"]);
    lock("\"version\":\"1.0.0\",\"resolved\":\"git+ssh://git@example.com/p.git#0123\"");
    world.fails(&project, 2, &["plain 1.0.0 comes from git"]);
    project.write("app/package-lock.json", "{\"lockfileVersion\":1,\"dependencies\":{}}");
    world.fails(&project, 2, &["package-lock.json is of version 1", "--lockfile-version 3"]);
    fs::remove_file(project.folder.join("app/package-lock.json")).unwrap();
    project.write("app/yarn.lock", "");
    world.fails(&project, 2, &["no package-lock.json", "npm's alone"]);
}

/// A registry that keeps archives elsewhere says so in the package's document; and a published
/// package is a source by its hash.
#[test]
fn a_published_npm_package_is_a_source_wherever_its_registry_keeps_it() {
    let Some((world, server)) = npm_world() else { return };
    let unique = unique(&world);
    let bytes = archive("package", &[("text", &unique)]);
    let integrity = format!("sha512-{}", BASE64.encode(&Sha512::digest(&bytes)));
    server.serve("/elsewhere/x.tgz", bytes);
    let document = "{\"versions\":{\"2.0.0\":{\"dist\":{\"tarball\":\"/elsewhere/x.tgz\"}}}}";
    server.serve("/npm/@acme%2ftool", document.as_bytes().to_vec());
    let project = world.project(
        "tool",
        &image(&format!(
            "[recipe.tool]\nsource = {{ npm = \"@acme/tool\", version = \"2.0.0\", integrity = \
             \"{integrity}\" }}\nscript = \"cp text $out/text\"\n"
        )),
    );
    let built = world.build(&project, &[]);
    assert_eq!(built.root().at("text").text(), unique);
    // The archive is not below what the token is for.
    assert!(server.heard().iter().all(|it| it == "Bearer very-secret-token"));
}

/// Makes a wheel with python3; its bytes.
fn wheel(folder: &Path, name: &str, version: &str, code: &str) -> Vec<u8> {
    let program = "import sys, zipfile\n\
        path, name, version, code = sys.argv[1:]\n\
        info = f'{name}-{version}.dist-info/'\n\
        with zipfile.ZipFile(path, 'w') as it:\n\
        \x20   it.writestr(f'{name}.py', code)\n\
        \x20   it.writestr(info + 'METADATA', f'Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n')\n\
        \x20   it.writestr(info + 'WHEEL', 'Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n\
        \x20   it.writestr(info + 'RECORD', f'{name}.py,,\\n{info}METADATA,,\\n{info}WHEEL,,\\n{info}RECORD,,\\n')\n";
    let path = folder.join("wheel.whl");
    run("python3", &["-c", program, path.to_str().unwrap(), name, version, code]);
    fs::read(path).unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A page of an index, in HTML.
fn page(server: &Server, package: &str, files: &[(&str, &[u8])]) {
    let mut links = String::new();
    for (name, bytes) in files {
        let hash = sha256(bytes);
        links += &format!("<a href=\"../../files/{name}#sha256={hash}\">{name}</a><br>\n");
        server.serve(&format!("/files/{name}"), bytes.to_vec());
    }
    server.serve(&format!("/simple/{package}/"), format!("<html>{links}</html>").into_bytes());
}

const SETUP: &str =
    "from setuptools import setup\nsetup(name='old', version='2.0', py_modules=['old'])\n";
const PROJECT: &str = "[project]\nname = \"own\"\nversion = \"1.0\"\n[build-system]\n\
    requires = [\"setuptools\"]\nbuild-backend = \"setuptools.build_meta\"\n\
    [tool.setuptools]\npy-modules = [\"own\"]\n";

#[test]
fn a_python_project_is_built_from_its_requirements() {
    let Some(mut world) = World::shared() else { return };
    if !can_run(&["python3"], false) {
        return;
    }
    let unique = unique(&world);
    let server = Server::start();
    let address = format!("http://ann:very-secret-token@127.0.0.1:{}/simple", server.port);
    world.set("PIP_INDEX_URL", &address);
    let web = wheel(world.folder.path(), "web", "1.0", &format!("word = '{unique}'"));
    let foreign = b"another system's".to_vec();
    let old_code = format!("word = 'old {unique}'\n");
    let old = archive("old-2.0", &[("setup.py", SETUP), ("old.py", &old_code)]);
    page(
        &server,
        "web",
        &[("web-1.0-py3-none-any.whl", &web), ("web-1.0-cp311-cp311-win_amd64.whl", &foreign)],
    );
    page(&server, "old", &[("old-2.0.tar.gz", &old)]);
    let recipe = "[recipe.app]\nbuilder = \"python\"\nsource = \"app\"\n\
        [recipe.said]\nrecipes = [\"app\"]\ndebian = [\"python3\"]\n\
        script = \"mkdir $out/opt; python3 -m own > $out/opt/said\"\n\
        [image]\nrecipes = [\"app\", \"said\"]\n";
    let project = world.project("python", &image(recipe));
    let requirements = format!(
        "-i https://index.example.com/simple\nweb==1.0 \\\n  --hash=sha256:{} \\\n  \
         --hash=sha256:{}\nold==2.0 --hash=sha256:{}\nnone==1.0 ; sys_platform == 'win32' \
         --hash=sha256:{}\n",
        sha256(&foreign),
        sha256(&web),
        sha256(&old),
        "ab".repeat(32)
    );
    project.write("app/requirements.txt", &requirements).write("app/pyproject.toml", PROJECT);
    project.write("app/own.py", "import old, web\nprint(web.word, old.word)\n");
    let built = world.build(&project, &["--log", "trace"]);
    assert_eq!(built.root().at("opt/said").text(), format!("{unique} old {unique}\n"));
    let site = "usr/local/lib/python3.11/dist-packages";
    for there in ["own.py", "old.py", "web.py", "__pycache__/web.cpython-311.pyc"] {
        built.root().at(&format!("{site}/{there}"));
    }
    for absent in ["own-1.0.dist-info/direct_url.json", "old-2.0.dist-info/direct_url.json"] {
        assert!(built.root().get(&format!("{site}/{absent}")).is_none(), "{absent}");
    }
    no_secret(&world, &built);
    let asked = server.asked();
    assert!(!asked.iter().any(|path| path.contains("win")), "{asked:?}");

    // A lockfile of another tool that says the same needs no look at the index.
    let lock = format!(
        "version = 1\n[[package]]\nname = \"own\"\nversion = \"1.0\"\nsource = {{ editable = \".\" \
         }}\ndependencies = [{{ name = \"web\" }}, {{ name = \"old\" }}]\n\
         [[package]]\nname = \"web\"\nversion = \"1.0\"\nsource = {{ registry = \
         \"https://index.example.com/simple\" }}\nwheels = [{{ filename = \
         \"web-1.0-py3-none-any.whl\", hash = \"sha256:{}\" }}]\n\
         [[package]]\nname = \"old\"\nversion = \"2.0\"\nsource = {{ registry = \
         \"https://other.example.org/\" }}\nsdist = {{ url = \
         \"https://other.example.org/x/old-2.0.tar.gz\", hash = \"sha256:{}\" }}\n",
        sha256(&web),
        sha256(&old)
    );
    project.write("app/uv.lock", &lock);
    let other = world.build(&project, &["--offline"]);
    assert_eq!(other.root().at("opt/said").text(), format!("{unique} old {unique}\n"));
    refused_python(&world, &server, &project);
}

/// What a lockfile does not prove is not taken.
fn refused_python(world: &World, server: &Server, project: &Project) {
    fs::remove_file(project.folder.join("app/uv.lock")).unwrap();
    project.write("app/requirements.txt", "web==1.0\n");
    world.fails(project, 2, &["requirements.txt:1: web 1.0 has no hash", "--generate-hashes"]);
    project.write("app/requirements.txt", &format!("web>=1.0 --hash=sha256:{}\n", "ab".repeat(32)));
    world.fails(project, 2, &["web comes from no certain version"]);
    // The index claims the right hash, and its file has another.
    let claimed = sha256(unique(world).as_bytes());
    let link = format!(
        "<a href=\"../../files/bad-1.0-py3-none-any.whl#sha256={claimed}\">\
        bad-1.0-py3-none-any.whl</a>"
    );
    server.serve("/simple/bad/", link.into_bytes());
    server.serve("/files/bad-1.0-py3-none-any.whl", b"something else".to_vec());
    project.write("app/requirements.txt", &format!("bad==1.0 --hash=sha256:{claimed}\n"));
    for _ in 0..2 {
        let said = world.fails(project, 7, &["bad 1.0 has the wrong content", &claimed]);
        assert!(said.contains(&sha256(b"something else")), "{said}");
        assert!(!said.contains("very-secret-token"), "{said}");
    }
    fs::remove_file(project.folder.join("app/requirements.txt")).unwrap();
    world.fails(
        project,
        2,
        &["the source has no uv.lock and no pylock.toml and no requirements.txt"],
    );
}

/// Loads an image into Docker, and asks it, if that can be had here.
fn in_docker(built: &Built, name: &str, port: u16, ask: impl Fn()) {
    if !http::is_free(port) {
        skip(&format!("something already listens on port {port}"));
        return;
    }
    if can_run(&["dockerd", "docker"], true)
        && let Some(docker) = Docker::start()
    {
        docker.command(&["load", "--input", built.tarball.to_str().unwrap()]);
        let container = docker.start(name, &[]);
        ask();
        docker.remove(&container);
    }
}

#[test]
fn a_node_service_is_built_and_answers() {
    let Some(world) = World::shared() else { return };
    if !can_run(&["npm"], false) {
        return;
    }
    let project = world.example("node-web");
    let built = world.build(&project, &[]);
    assert!(bill(&world, &project).contains("pkg:npm/ajv@"), "what lockfiles pin is in the bill");
    let root = built.root();
    // Some packages bring scripts of their developers, so a shell joins by itself.
    for absent in ["usr/bin/npm", "build", "usr/lib/node_modules/almanac/node_modules/esbuild"] {
        assert!(root.get(absent).is_none(), "/{absent} has no business here");
    }
    in_docker(&built, "node-web", 8091, || {
        let answer = http::get(8091, "/2024-12-31");
        assert_eq!(answer.body, "{\"day\":\"2024-12-31\",\"number\":366,\"left\":0}");
        assert_eq!(http::get(8091, "/never").status, 400);
    });
    same_elsewhere("node-web", &built);
}

#[test]
fn a_python_service_is_built_and_answers() {
    let Some(world) = World::shared() else { return };
    if !can_run(&["python3"], false) {
        return;
    }
    let built = world.build(&world.example("python-orders"), &[]);
    let root = built.root();
    for absent in ["usr/bin/pip", "usr/bin/sh", "usr/lib/python3/dist-packages/pip"] {
        assert!(root.get(absent).is_none(), "/{absent} has no business here");
    }
    in_docker(&built, "python-orders", 8092, || {
        assert_eq!(http::ask(8092, "POST /pears?count=3", "").status, 201);
        assert_eq!(http::get(8092, "/").body, "{\"cents\":570,\"orders\":1}\n");
        assert_eq!(http::ask(8092, "POST /mortar", "").status, 404);
    });
    same_elsewhere("python-orders", &built);
}

/// The bill of materials of what was built.
fn bill(world: &World, project: &Project) -> String {
    let image = project.folder.join("image.toml");
    succeed(world.drystone(&["sbom", "--format", "cyclonedx"]).arg("--file").arg(image))
}

/// Another store, where nothing was built or fetched yet, makes the same image. It is a second build
/// of everything, so it is for long runs.
fn same_elsewhere(example: &str, built: &Built) {
    if std::env::var("DRYSTONE_ORACLE").as_deref() != Ok("all") {
        return;
    }
    let Some(other) = World::fresh() else { return };
    assert_eq!(other.build(&other.example(example), &[]).digest, built.digest);
}
