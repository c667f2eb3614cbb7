//! What goes wrong around a build leaves a store that verifies and a next build that succeeds; what goes
//! wrong inside one is told with its place, its mend and an exit code of its family.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod common;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::repository::{Deb, Repository};
use common::{Project, World, can_run, expect_failure, is_long_run, skip, succeed};

/// Scripts and no more than a few packages.
const IMAGE: &str =
    "name = \"fault\"\n[debian]\nsuite = \"bookworm\"\npackages = [\"nginx-light\"]\n";

/// How many builds are killed.
fn rounds() -> u32 {
    let said = std::env::var("DRYSTONE_ROUNDS").ok().and_then(|text| text.parse().ok());
    said.unwrap_or(if is_long_run() { 40 } else { 6 })
}

/// Numbers that are the same in every run: a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

#[test]
fn a_killed_build_harms_nothing() {
    let Some(world) = World::fresh() else { return };
    let project = world.project("killed", IMAGE);
    let start = Instant::now();
    let expected = world.build(&project, &[]).digest;
    let whole = start.elapsed();
    world.verify();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut killed = 0;
    for round in 0..rounds() {
        // Every third round starts from nothing; the others go on from what the killed one left.
        if round % 3 == 0 {
            remove_store(&world);
        }
        let _ = fs::remove_file(project.folder.join("fault.tar"));
        // What the first build took longer for (packages from the mirror, a busy machine) may be
        // quick now, and a build that has ended cannot be killed.
        let share = if round % 3 == 0 { 2 } else { 4 };
        let wait = Duration::from_millis(random.below(whole.as_millis() as u64 / share + 1));
        let mut build = world.drystone(&["build", "--locked"]);
        build.arg(project.folder.join("image.toml"));
        let mut build = build.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let id = build.id();
        std::thread::sleep(wait);
        build.kill().unwrap();
        killed += u32::from(!build.wait().unwrap().success());
        no_process_is_left(id, &world.store);
        world.verify();
        println!("round {round}: killed after {wait:?} of {whole:?}");
    }
    assert!(killed > 0, "no build was killed before its end");
    assert_eq!(world.build(&project, &["--locked"]).digest, expected);
    world.verify();
}

/// A sandbox dies with the build that started it.
fn no_process_is_left(build: u32, store: &Path) {
    let deadline = Instant::now() + Duration::from_secs(10);
    let store = store.display().to_string();
    loop {
        let left: Vec<String> = fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter(|entry| entry.file_name().to_str().is_some_and(|name| name != "self"))
            .filter_map(|entry| fs::read(entry.path().join("environ")).ok())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .filter(|text| text.contains(&format!("DRYSTONE_STORE={store}\0")))
            .collect();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "processes of build {build} are left: {}", left.len());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn remove_store(world: &World) {
    if world.store.exists() {
        common::run("rm", &["-rf".as_ref(), world.store.as_os_str()]);
    }
}

#[test]
fn two_builds_of_one_image_at_once_agree() {
    let Some(world) = World::fresh() else { return };
    let projects = [world.project("a", IMAGE), world.project("b", IMAGE)];
    let outputs: Vec<_> = std::thread::scope(|scope| {
        let builds =
            projects.each_ref().map(|project| scope.spawn(|| world.try_build(project, &[])));
        builds.into_iter().map(|build| build.join().unwrap()).collect()
    });
    for output in &outputs {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(outputs[0].stdout, outputs[1].stdout);
    world.verify();
}

/// A file system in a file, mounted until it is dropped.
struct Mounted {
    point: std::path::PathBuf,
}

impl Mounted {
    fn new(world: &World, size: &str, options: &str) -> Option<Self> {
        if !can_run(&["mkfs.ext4", "mount", "umount", "truncate"], true) {
            return None;
        }
        let (file, point) = (world.path("disk"), world.path("mounted"));
        fs::create_dir(&point).unwrap();
        common::run("truncate", &["-s".as_ref(), size.as_ref(), file.as_os_str()]);
        common::run("mkfs.ext4", &["-q".as_ref(), file.as_os_str()]);
        let mounted = Command::new("mount")
            .args(["-o", &format!("loop{options}")])
            .arg(&file)
            .arg(&point)
            .output()
            .unwrap();
        if !mounted.status.success() {
            skip(&format!("mount: {}", String::from_utf8_lossy(&mounted.stderr).trim()));
            return None;
        }
        Some(Self { point })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.point).status();
    }
}

#[test]
fn a_full_disk_is_told_and_the_store_survives() {
    let Some(mut world) = World::fresh() else { return };
    let Some(disk) = Mounted::new(&world, "40M", "") else { return };
    world.store = disk.point.join("store");
    let project = world.project("full", IMAGE);
    let said = world.fails(&project, 8, &["No space left on device"]);
    assert!(said.contains("store gc"), "a hint is missing in:\n{said}");
    assert!(!project.folder.join("fault.tar").exists());
    world.verify();
}

#[test]
fn repair_fetches_and_builds_again_what_was_lost() {
    let Some(world) = World::fresh() else { return };
    let project = world.project("repaired", IMAGE);
    let expected = world.build(&project, &[]).digest;
    // All bytes are gone: packages are fetched again, and scripts run again.
    for blob in files_below(&world.store.join("blobs")) {
        fs::remove_file(blob).unwrap();
    }
    let mut verify = world.drystone(&["store", "verify"]);
    assert_eq!(verify.output().unwrap().status.code(), Some(7));
    let said = succeed(world.drystone(&["store", "verify"]).arg("--repair"));
    assert!(said.contains("repaired/image.toml (linux/amd64): made again"), "{said}");
    world.verify();
    // All of it is there, so a build needs neither mirror nor scripts.
    let again = world.build(&project, &["--offline", "-o", "again.tar"]);
    assert_eq!(again.digest, expected);
}

/// The regular files below a folder.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => files.extend(files_below(&entry.path())),
            false => files.push(entry.path()),
        }
    }
    files
}

#[test]
fn a_read_only_store_is_told() {
    let Some(mut world) = World::fresh() else { return };
    let project = world.project("read-only", IMAGE);
    let Some(disk) = Mounted::new(&world, "40M", "") else { return };
    world.store = disk.point.join("store");
    succeed(world.drystone(&["store", "verify"]).arg("--repair"));
    let remount = Command::new("mount").args(["-o", "remount,ro"]).arg(&disk.point).status();
    assert!(remount.unwrap().success());
    let said = world.fails(&project, 8, &[&disk.point.display().to_string()]);
    assert!(said.to_lowercase().contains("read-only"), "{said}");
}

// Bad input: image.toml.

#[test]
fn bad_image_files_are_told_with_their_place() {
    let Some(world) = World::shared() else { return };
    let image = |text: &str| world.project("bad", text);
    let debian = "[debian]\nsuite = \"bookworm\"\n";
    let said = world.fails(
        &image(&format!("name = \"x\"\n{debian}pakages = [\"jq\"]\n")),
        2,
        &["pakages", "packages", "image.toml:4"],
    );
    assert!(said.contains("image.toml:4"), "{said}");
    world.fails(
        &image(&format!("name = \"x\"\n{debian}packages = \"jq\"\n")),
        2,
        &["image.toml:4"],
    );
    world.fails(&image("name = \"x\"\n[files]\n\"/srv\" = \"missing/\"\n"), 2, &["missing"]);
    world.fails(&image("schema = 99\nname = \"x\"\n"), 2, &["newer drystone"]);
    world.fails(&image("name = \n"), 2, &["image.toml:1"]);
    let nothing = Project { folder: world.path("nothing") };
    world.fails(&nothing, 2, &["image.toml", "drystone init"]);
    let output = world.drystone(&["build", "--no-such-flag"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn what_cannot_be_solved_is_explained() {
    let Some(world) = World::shared() else { return };
    let image = |packages: &str| {
        let text = format!("name = \"x\"\n[debian]\nsuite = \"bookworm\"\npackages = {packages}\n");
        world.project("unsolvable", &text)
    };
    world.fails(&image(r#"["ngnix-light"]"#), 5, &["ngnix-light", "nginx-light"]);
    world.fails(&image(r#"[{ name = "jq", version = "99.*" }]"#), 5, &["jq", "99.*"]);
    // Both provide the one mail transport agent.
    world.fails(
        &image(r#"["exim4-daemon-light", "exim4-daemon-heavy"]"#),
        5,
        &["exim4-daemon-light", "exim4-daemon-heavy"],
    );
}

// Bad input: archives.

/// A repository of one package, and a project that wants it.
struct Hostile {
    world: World,
    repository: Repository,
    project: Project,
}

impl Hostile {
    fn new(deb: &Deb<'_>) -> Option<Self> {
        // Only scripts need the Essential set; a store without it is verified in an instant.
        let world = match deb.control {
            [] => World::fresh()?,
            _ => World::shared_by("faults")?,
        };
        let repository = Repository::new(&world.path("repository"))?;
        repository.add(deb);
        repository.publish(&[]);
        let project = world.project(
            "hostile",
            &format!(
                "name = \"hostile\"\n[debian]\nsuite = \"bookworm\"\n\
                 packages = [{{ name = \"{}\", from = \"local\" }}]\n{}",
                deb.name,
                repository.table(&repository.serve())
            ),
        );
        Some(Self { world, repository, project })
    }

    /// The build must fail, and the store stay whole.
    #[track_caller]
    fn fails(&self, code: i32, said: &[&str]) -> String {
        // Each archive is met for the first time: a pin of an earlier one would be refused first.
        let _ = fs::remove_file(self.project.folder.join("image.lock"));
        let said = self.world.fails(&self.project, code, said);
        self.world.verify();
        said
    }
}

const PLAIN: Deb<'_> = Deb {
    name: "plain",
    version: "1",
    fields: "",
    files: &[("usr/share/plain/file", "content\n")],
    control: &[],
};

#[test]
fn a_package_that_changed_after_signing_is_refused() {
    let Some(hostile) = Hostile::new(&Deb { name: "changed", ..PLAIN }) else { return };
    let path = hostile.repository.path("changed", "1");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, &bytes).unwrap();
    hostile.fails(7, &["changed"]);
    // Cut short: another size than the signed one.
    fs::write(&path, &bytes[..middle]).unwrap();
    hostile.fails(7, &["changed"]);
    fs::remove_file(&path).unwrap();
    hostile.fails(6, &["changed"]);
}

#[test]
fn a_release_that_nobody_signed_is_refused() {
    let Some(hostile) = Hostile::new(&Deb { name: "unsigned", ..PLAIN }) else { return };
    let release = hostile.repository.file("dists/test/InRelease");
    let text = fs::read_to_string(&release).unwrap();
    fs::write(&release, text.replace("Label: ", "Label: not ")).unwrap();
    hostile.fails(7, &["signature"]);
}

#[test]
fn an_expired_release_is_refused() {
    let Some(hostile) = Hostile::new(&Deb { name: "expired", ..PLAIN }) else { return };
    hostile.repository.publish(&[("REPOSITORY_DATE", "60 days ago"), ("VALID_DAYS", "7")]);
    hostile.fails(7, &["expired"]);
}

#[test]
fn a_failing_script_is_shown_with_its_output() {
    let deb = Deb {
        name: "failing",
        control: &[("postinst", "#!/bin/sh\necho this went wrong >&2\nexit 3\n")],
        ..PLAIN
    };
    let Some(hostile) = Hostile::new(&deb) else { return };
    hostile.fails(1, &["failing", "postinst", "this went wrong", "3"]);
}

#[test]
fn a_script_that_spoils_dpkgs_database_is_told() {
    for (name, file, line) in [
        ("diverting", "/var/lib/dpkg/diversions", "/usr/share/plain/file"),
        ("overriding", "/var/lib/dpkg/statoverride", "nobody"),
    ] {
        let script = format!("#!/bin/sh\necho {line} >>{file}\n");
        let deb = Deb { name, control: &[("postinst", &script)], ..PLAIN };
        let Some(hostile) = Hostile::new(&deb) else { return };
        hostile.fails(1, &[&format!("a script of {name} left {file} malformed")]);
    }
}

#[test]
fn a_script_that_makes_something_new_each_time_is_named() {
    let deb = Deb {
        name: "random",
        control: &[(
            "postinst",
            "#!/bin/sh\nset -e\nmkdir -p /var/lib/random/a\n\
             head -c 8 /dev/urandom | tee /etc/random-id >/var/lib/random/a/id\n",
        )],
        ..PLAIN
    };
    let Some(hostile) = Hostile::new(&deb) else { return };
    hostile.fails(4, &["/etc/random-id", "remove-state = [", "{ path = \"/etc/random-id\""]);
    // The mend, as the message has it; a folder goes with all below it.
    let path = hostile.project.folder.join("image.toml");
    let text = fs::read_to_string(&path).unwrap();
    let mend = "remove-state = [{ path = \"/etc/random-id\", reason = \"anew\" }, \
                { path = \"/var/lib/random\", reason = \"anew\" }]\n";
    fs::write(&path, text.replace("[debian.repository", &format!("{mend}[debian.repository")))
        .unwrap();
    let root = hostile.world.build(&hostile.project, &[]).root();
    for path in ["etc/random-id", "var/lib/random", "var/lib/random/a/id"] {
        assert!(root.get(path).is_none(), "{path}");
    }
}

/// ucf keeps a digest and a copy of each configuration file that it was given, here of one that holds a
/// secret, as those of databases' users do.
#[test]
fn what_ucf_knows_of_a_file_goes_with_it() {
    let deb = Deb {
        name: "secretive",
        fields: "Depends: ucf\n",
        control: &[(
            "postinst",
            "#!/bin/sh\nset -e\nhead -c 8 /dev/urandom | od -An -tx1 >/tmp/new\n\
             echo usual >/tmp/usual\n\
             for name in new usual; do ucf --three-way /tmp/$name /etc/secretive-$name; \
             ucfr secretive /etc/secretive-$name; done\n",
        )],
        ..PLAIN
    };
    let Some(hostile) = Hostile::new(&deb) else { return };
    let path = hostile.project.folder.join("image.toml");
    let text = fs::read_to_string(&path).unwrap();
    let write = |more: &str| {
        let text = text.replace("[debian]\n", &format!("[debian]\nessential = true\n{more}"));
        fs::write(&path, text).unwrap();
    };
    write("");
    let said = hostile.fails(4, &["/etc/secretive-new", "/var/lib/ucf/hashfile"]);
    let mend = "  remove-state = [\n    \
                { path = \"/etc/secretive-new\", reason = \"made anew each time\" },\n  ]\n";
    assert!(said.contains(mend), "{said}");
    write(mend);
    let root = hostile.world.build(&hostile.project, &[]).root();
    for name in root.0.keys().filter(|name| name.starts_with("var/lib/ucf/")) {
        assert!(!name.contains("secretive-new"), "{name}");
        assert!(!root.at(name).text().contains("secretive-new"), "{name}");
    }
    for name in ["hashfile", "registry"] {
        let known = root.at(&format!("var/lib/ucf/{name}")).text();
        assert!(known.contains("/etc/secretive-usual\n"), "{name}: {known}");
    }
    root.at("var/lib/ucf/cache/:etc:secretive-usual");
}

/// As TeX's formats do, which heed no SOURCE_DATE_EPOCH; and its list of files is in the order of a
/// hash table of Perl's.
#[test]
fn what_notes_the_time_of_its_making_notes_the_same_one_each_time() {
    let deb = Deb {
        name: "dated",
        control: &[(
            "postinst",
            "#!/bin/sh\nset -e\nsleep 1\ndate +%s.%N >/etc/made-at\n\
             perl -e 'my %all = map { $_ => 1 } 1 .. 99; print join(q( ), keys %all)' >/etc/order\n",
        )],
        ..PLAIN
    };
    let Some(hostile) = Hostile::new(&deb) else { return };
    let first = hostile.world.try_build(&hostile.project, &["--progress", "plain"]);
    if String::from_utf8_lossy(&first.stderr).contains("does not let the sandbox trace commands") {
        skip("this host forbids tracing");
        return;
    }
    let root = hostile.world.build(&hostile.project, &[]).root();
    assert_eq!(root.at("etc/made-at").bytes, b"315532800.000000000\n");
}

#[test]
fn a_private_key_that_a_script_makes_is_refused() {
    let key = "#!/bin/sh\nmkdir -p /etc/thing\ncat >/etc/thing/key.pem <<EOF\n\
               -----BEGIN PRIVATE KEY-----\n\
               MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
               -----END PRIVATE KEY-----\nEOF\n";
    let deb = Deb { name: "secretive", control: &[("postinst", key)], ..PLAIN };
    let Some(hostile) = Hostile::new(&deb) else { return };
    hostile.fails(1, &["etc/thing/key.pem", "secretive"]);
}

/// A .deb whose data is a tarball that dpkg-deb would never write.
fn hostile_data(hostile: &Hostile, name: &str, tarball: &[u8]) {
    let folder = hostile.world.path("ar");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir(&folder).unwrap();
    let deb = hostile.repository.path(name, "1");
    let ar = |words: &[&str]| {
        succeed(Command::new("ar").args(words).arg(&deb).current_dir(&folder));
    };
    ar(&["x"]);
    let _ = fs::remove_file(folder.join("data.tar.gz"));
    fs::write(folder.join("data.tar"), tarball).unwrap();
    fs::remove_file(&deb).unwrap();
    let files = ["debian-binary", "control.tar.gz", "data.tar"];
    succeed(Command::new("ar").arg("rcD").arg(&deb).args(files).current_dir(&folder));
    hostile.repository.publish(&[]);
}

/// A tarball of one file under a name that the tar crate would not let us write.
fn tarball_of(name: &str, size: u64, content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(0o644);
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.write_all(content).unwrap();
    bytes.resize(bytes.len().next_multiple_of(512) + 1024, 0);
    bytes
}

#[test]
fn hostile_packages_are_refused_by_name() {
    if !can_run(&["ar"], false) {
        return;
    }
    let Some(hostile) = Hostile::new(&Deb { name: "escape", ..PLAIN }) else { return };
    hostile_data(&hostile, "escape", &tarball_of("./../../etc/passwd", 2, b"x\n"));
    hostile.fails(1, &["escape", ".."]);
    // Four gigabytes are announced and four bytes come.
    hostile_data(&hostile, "escape", &tarball_of("./usr/huge", 1 << 32, b"huge"));
    hostile.fails(1, &["escape"]);
    let twice = [&tarball_of("./usr/x", 1, b"1")[..1024], &tarball_of("./usr/x", 1, b"2")].concat();
    hostile_data(&hostile, "escape", &twice);
    fs::remove_file(hostile.project.folder.join("image.lock")).unwrap();
    let output = hostile.world.try_build(&hostile.project, &[]);
    if !output.status.success() {
        expect_failure(&output, 1, &["usr/x"]);
    }
}
