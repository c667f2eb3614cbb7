//! `drystone check`: what a recipe may depend on is found, named by file and by cause.
//!
//! Needs a Debian mirror in the host's apt sources.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod common;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use common::{Project, World};
use serde_json::Value;

/// A recipe's name, its script, the file that differs, and the causes that may be named.
type Seed = (&'static str, &'static str, &'static str, &'static [&'static str]);

const FIXED_TAR: &str = "tar --mtime=@0 --owner=0 --group=0 --numeric-owner";

/// Kinds of nondeterminism, each by itself. They need nothing but the Essential set.
const SEEDS: &[Seed] = &[
    ("date", "date > $out/x", "/x", &["clock"]),
    ("day", "date +%F > $out/x", "/x", &["clock"]),
    ("file-time", "touch f; stat -c %y f > $out/x", "/x", &["clock"]),
    ("tar-time", "echo f > f; tar --owner=0 --group=0 -cf $out/x f", "/x", &["clock"]),
    ("gzip-time", "echo f > f; gzip -c f > $out/x", "/x", &["clock"]),
    ("perl-time", "perl -e 'print time' > $out/x", "/x", &["clock"]),
    ("list-order", "mkdir d; touch d/a d/b d/c; ls -U d > $out/x", "/x", &["directory-order"]),
    (
        "tar-order",
        // tar itself takes a directory's entries by inode, so the order is that of `find`.
        "mkdir d; for n in a b c; do echo > d/$n; done; \
         find d -type f | FIXED_TAR --mode=0644 -T - -cf $out/x",
        "/x",
        &["directory-order"],
    ),
    ("random", "head -c 16 /dev/urandom | od -An -tx1 > $out/x", "/x", &["random"]),
    ("random-name", "mktemp -p $out name-XXXXXX", "/name-", &["random"]),
    (
        "hash-seed",
        "perl -e '%h = map { $_ => 1 } 1..50; print keys %h' > $out/x",
        "/x",
        &["random"],
    ),
    ("addresses", "grep stack /proc/self/maps | cut -d' ' -f1 > $out/x", "/x", &["addresses"]),
    ("process", "echo $$ > $out/x", "/x", &["processes"]),
    ("build-path", "pwd > $out/x", "/x", &["build-folder"]),
    ("host", "hostname > $out/x", "/x", &["host-name"]),
    ("user", "id -un > $out/x", "/x", &["user"]),
    ("tar-owner", "echo f > f; tar --mtime=@0 --mode=0644 -cf $out/x f", "/x", &["user"]),
    ("locale", "locale charmap > $out/x", "/x", &["locale"]),
    ("zone", "date -d @0 +%H > $out/x", "/x", &["time-zone"]),
    ("umask", "echo f > f; FIXED_TAR -cf $out/x f", "/x", &["umask"]),
    (
        "processor",
        "grep -m1 -i -e 'model name' -e bogomips /proc/cpuinfo > $out/x",
        "/x",
        &["processors"],
    ),
    ("release", "uname -r > $out/x", "/x", &["kernel"]),
    ("boot", "cat /proc/sys/kernel/random/boot_id > $out/x", "/x", &["kernel"]),
    ("memory", "grep MemTotal /proc/meminfo > $out/x", "/x", &["kernel"]),
    ("disk-usage", "mkdir d; stat -c '%s' d > $out/x", "/x", &["inodes"]),
    (
        "environment",
        "tr '\\0' '\\n' < /proc/$$/environ | cut -d= -f1 > $out/x",
        "/x",
        &["environment-order"],
    ),
    (
        "race",
        "for i in 1 2 3 4; do (for j in $(seq 300); do echo $i >> $out/x; done) & done; wait",
        "/x",
        &["timing"],
    ),
];

fn project(world: &World) -> Project {
    let mut image = "name = \"seeds\"\n[debian]\nsuite = \"bookworm\"\n".to_owned();
    let mut recipe = |name: &str, script: &str| {
        let script = script.replace("FIXED_TAR", FIXED_TAR);
        write!(image, "[recipe.{name}]\nsource = \"src\"\nscript = \'\'\'\n{script}\n\'\'\'\n")
            .unwrap();
    };
    for (name, script, ..) in SEEDS {
        recipe(name, script);
    }
    recipe("steady", "cp text $out/x; ls | sort > $out/list; date -u -r text > $out/time");
    let names: Vec<String> = SEEDS.iter().map(|seed| format!("\"{}\"", seed.0)).collect();
    write!(image, "[image]\nrecipes = [\"steady\"]\n# {}\n", names.join(" ")).unwrap();
    let project = world.project("seeds", &image);
    project.write("src/text", "text\n");
    project
}

/// Runs `check`; its exit code, standard output and standard error.
fn check(world: &World, project: &Project, arguments: &[&str]) -> (i32, String, String) {
    let mut command = world.drystone(&["check"]);
    let output = command.args(arguments).current_dir(&project.folder).output().unwrap();
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

fn check_seed(world: &World, project: &Project, seed: &Seed) -> Result<(), String> {
    let (name, _, path, expected) = seed;
    let (code, answer, said) = check(world, project, &["--recipe", name, "--json"]);
    if code != 4 {
        return Err(format!("{name}: exit code {code}\n{answer}{said}"));
    }
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let step = &answer["steps"][0];
    assert_eq!(step["step"], format!("recipe {name}"));
    let differences = step["differences"].as_array().unwrap();
    let mut found: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for it in differences {
        let causes = it["causes"].as_array().unwrap().iter();
        let causes = causes.map(|cause| cause["name"].as_str().unwrap()).collect();
        found.insert(it["path"].as_str().unwrap(), causes);
    }
    let is_good = found.iter().all(|(found, causes)| {
        found.starts_with(path) && causes.iter().any(|cause| expected.contains(cause))
    });
    match is_good && !found.is_empty() {
        true => Ok(()),
        false => Err(format!("{name}: {step:#}")),
    }
}

/// Twenty and more kinds of nondeterminism: each is found, with its file and its cause.
#[test]
fn seeded_nondeterminism_is_found_and_named() {
    let Some(world) = World::shared() else { return };
    let project = project(&world);
    let seeds: Vec<&Seed> = SEEDS.iter().collect();
    let failed: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = seeds
            .chunks(seeds.len().div_ceil(2))
            .map(|seeds| {
                let (world, project) = (&world, &project);
                scope.spawn(move || {
                    seeds
                        .iter()
                        .filter_map(|seed| check_seed(world, project, seed).err())
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert!(
        failed.is_empty(),
        "{} of {} failed:\n{}",
        failed.len(),
        SEEDS.len(),
        failed.join("\n")
    );
}

/// What is reproducible is called so, the configuration of packages included; nothing stored changes.
#[test]
fn what_is_equal_is_called_equal() {
    let Some(world) = World::shared() else { return };
    let project = project(&world);
    let (code, answer, said) = check(&world, &project, &["--diff", "own"]);
    assert_eq!(code, 0, "{answer}{said}");
    assert!(answer.contains("recipe steady: equal (3 entries)"), "{answer}");
    assert!(answer.contains("configuration of the Essential set: equal"), "{answer}");
    assert!(answer.ends_with("2 of 2 steps reproducible, by 2 runs\n"), "{answer}");
}

/// Compilers, linkers and language tools as the examples use them depend on nothing that changes.
#[test]
fn every_example_from_source_is_reproducible() {
    if !common::is_long_run() {
        common::skip("it builds every example from source twice; .ci/long does that");
        return;
    }
    let Some(mut world) = World::shared() else { return };
    world.set("CARGO", env!("CARGO"));
    for name in ["c-service", "node-web", "python-orders", "rust-web"] {
        let project = world.example(name);
        let (code, answer, said) = check(&world, &project, &[]);
        println!("{name}: {answer}");
        assert_eq!(code, 0, "{name}: {answer}{said}");
        assert!(answer.contains(" steps reproducible"), "{name}: {answer}");
    }
}

/// A dependence on what the sandbox fixes is told, and accepted where that is asked for.
#[test]
fn dependence_on_fixed_values_can_be_accepted() {
    let Some(world) = World::shared() else { return };
    let project = project(&world);
    let keep = world.path("kept");
    let keep = keep.to_str().unwrap();
    let (code, answer, said) = check(
        &world,
        &project,
        &["--recipe", "build-path", "--accept-fixed", "--diff", "own", "--keep", keep],
    );
    assert_eq!(code, 0, "{answer}{said}");
    assert!(said.contains("depends on what only the sandbox fixes"), "{said}");
    for line in [
        "/x",
        "likely cause: the build folder (fixed by the sandbox)",
        "-/build/source",
        "+/elsewhere/source",
    ] {
        assert!(answer.lines().any(|it| it.trim() == line), "{line}: {answer}");
    }
    let kept = |side: &str| {
        std::fs::read_to_string(world.path(&format!("kept/recipe-build-path/{side}/out/x")))
            .unwrap()
    };
    assert_eq!(
        (kept("stored").as_str(), kept("rebuilt").as_str()),
        ("/build/source\n", "/elsewhere/source\n")
    );
    let (code, answer, _) =
        check(&world, &project, &["--recipe", "build-path", "--except", "build-folder"]);
    assert_eq!((code, answer.contains("equal")), (0, true), "{answer}");
    let (code, _, said) = check(&world, &project, &["--vary", "clocks"]);
    assert_eq!((code, said.contains("directory-order")), (2, true), "{said}");
}
