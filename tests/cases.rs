//! Packages that each broke a simpler way of configuring: diversions, statoverrides, Replaces, scripts
//! whose helpers stay out of the image, alternatives, hard links, scripts that change alone.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod common;

use std::path::PathBuf;
use std::process::Command;

use common::repository::{Deb, Repository};
use common::{Project, RootTree, World, can_run, run, succeed};

/// An image of these packages of bookworm, without Essential.
fn image_of(world: &World, name: &str, packages: &[&str]) -> Project {
    world.project(
        name,
        &format!("name = \"{name}\"\n[debian]\nsuite = \"bookworm\"\npackages = {packages:?}\n"),
    )
}

/// Runs a command inside an image's root, where the host lets us.
fn inside(world: &World, built: &common::Built, command: &[&str]) -> Option<String> {
    if !can_run(&["umoci", "chroot", "tar"], true) {
        return None;
    }
    let name = built.name.replace([':', '/'], "-");
    let (layout, bundle) = (world.path(&format!("{name}-l")), world.path(&format!("{name}-b")));
    if !bundle.exists() {
        std::fs::create_dir(&layout).unwrap();
        run("tar", &["-xf".as_ref(), built.tarball.as_os_str(), "-C".as_ref(), layout.as_os_str()]);
        let image = format!("{}:{}", layout.display(), built.name);
        run("umoci", &["unpack", "--image", &image, &bundle.display().to_string()]);
    }
    let null = bundle.join("rootfs/dev/null");
    if !null.exists() {
        // A runtime would bring it.
        std::fs::create_dir_all(null.parent().unwrap()).unwrap();
        run("mknod", &[null.as_os_str(), "c".as_ref(), "1".as_ref(), "3".as_ref()]);
    }
    let mut chroot = Command::new("chroot");
    Some(succeed(chroot.arg(bundle.join("rootfs")).args(command)))
}

/// Follows a path's links inside a root, as a kernel would.
fn resolve(root: &RootTree, path: &str) -> Option<String> {
    let mut path = PathBuf::from(path);
    'links: for _ in 0..40 {
        let mut walked = PathBuf::new();
        let parts: Vec<_> = path.components().collect();
        for (number, part) in parts.iter().enumerate() {
            walked.push(part);
            let node = root.get(walked.to_str()?)?;
            let Some(target) = node.link() else { continue };
            let base = walked.parent()?.to_owned();
            let rest: PathBuf = parts[number + 1..].iter().collect();
            path = match target.strip_prefix('/') {
                Some(absolute) => PathBuf::from(absolute).join(rest),
                None => normal(&base.join(target)).join(rest),
            };
            continue 'links;
        }
        return Some(path.to_str()?.to_owned());
    }
    None
}

fn normal(path: &std::path::Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(out.pop()),
            std::path::Component::Normal(name) => out.push(name),
            _ => {}
        }
    }
    out
}

/// The number of a group in an image's own table.
fn group_id(root: &RootTree, name: &str) -> u64 {
    let groups = root.at("etc/group").text();
    let line = groups.lines().find(|line| line.starts_with(&format!("{name}:")));
    let line = line.unwrap_or_else(|| panic!("no group {name} in:\n{groups}"));
    line.split(':').nth(2).unwrap().parse().unwrap()
}

/// Both packages hold /usr/bin/parallel; one of them diverts the other's before it is unpacked.
#[test]
fn a_diversion_keeps_both_files() {
    let Some(world) = World::shared() else { return };
    for order in [["moreutils", "parallel"], ["parallel", "moreutils"]] {
        let root = world.build(&image_of(&world, &order.join("-"), &order), &[]).root();
        let gnu = root.at("usr/bin/parallel");
        assert!(gnu.bytes.starts_with(b"#!"), "GNU parallel is a script: {gnu}");
        let other = root.at("usr/bin/parallel.moreutils");
        assert!(other.bytes.starts_with(b"\x7fELF"), "the diverted one is a program: {other}");
    }
}

/// base-files' script is imitated where no other package needs the sandbox; a finish script that does
/// nothing runs them all. Both ways give one root.
#[test]
fn an_image_without_scripts_equals_one_that_ran_them() {
    let Some(world) = World::shared() else { return };
    for suite in ["bookworm", "trixie"] {
        let image = |name: &str, more: &str| {
            world.project(
                name,
                &format!(
                    "name = \"{name}\"\n[debian]\nsuite = \"{suite}\"\n\
                     packages = [\"redis-tools\"]\n{more}"
                ),
            )
        };
        let plain = world.build(&image(&format!("plain-{suite}"), ""), &[]).root();
        let scripted = format!("scripted-{suite}");
        let scripted = world.build(&image(&scripted, "[finish]\nscript = \":\"\n"), &[]).root();
        let unequal: Vec<&String> = plain
            .0
            .keys()
            .chain(scripted.0.keys())
            .filter(|path| {
                plain.get(path).zip(scripted.get(path)).is_none_or(|(a, b)| !a.looks_like(b))
            })
            .collect();
        assert!(unequal.is_empty(), "{suite}: {unequal:?}");
    }
}

/// crontab is set-group-id to a group that a script makes, and the spool belongs to it.
#[test]
fn cron_without_essential_has_its_owners() {
    let Some(world) = World::shared() else { return };
    let built = world.build(&image_of(&world, "cron", &["cron"]), &[]);
    let root = built.root();
    let gid = group_id(&root, "crontab");
    let program = root.at("usr/bin/crontab");
    assert_eq!((program.gid, program.mode), (gid, 0o2755));
    let spool = root.at("var/spool/cron/crontabs");
    assert_eq!((spool.uid, spool.gid, spool.mode), (0, gid, 0o1730));
    assert!(root.get("usr/sbin/adduser").is_none(), "only a script needed it");
}

/// git names perl-base, which is Essential: it enters, and the rest of the set does not.
#[test]
fn git_without_essential_works() {
    let Some(world) = World::shared() else { return };
    let built = world.build(&image_of(&world, "git", &["git"]), &[]);
    let root = built.root();
    assert!(root.get("usr/bin/dpkg").is_none());
    root.at("usr/bin/perl");
    if let Some(said) = inside(&world, &built, &["git", "--version"]) {
        assert!(said.starts_with("git version "), "{said}");
    }
}

/// Alternatives are chosen among what is in the image, and every one leads somewhere.
#[test]
fn alternatives_lead_to_what_is_there() {
    let Some(world) = World::shared() else { return };
    let built = world.build(&image_of(&world, "awk", &["original-awk"]), &[]);
    let root = built.root();
    let awk = resolve(&root, "usr/bin/awk").expect("awk leads to a program");
    assert!(awk.starts_with("usr/bin/"), "{awk}");
    for (path, node) in &root.0 {
        if path.starts_with("etc/alternatives/") && node.link().is_some() {
            assert!(resolve(&root, path).is_some(), "/{path} leads nowhere: {node}");
        }
    }
    if let Some(said) = inside(&world, &built, &["awk", "BEGIN { print 6 * 7 }"]) {
        assert_eq!(said, "42\n");
    }
}

/// An overlay's copy-up breaks hard links; perl's two names must stay one file.
#[test]
fn perls_hard_links_stay() {
    let Some(world) = World::shared() else { return };
    let image = "name = \"perl\"\n[debian]\nsuite = \"bookworm\"\nessential = true\n\
                 packages = [\"perl\"]\n";
    let root = world.build(&world.project("perl", image), &[]).root();
    let linked = root.0.iter().filter(|(path, node)| {
        path.starts_with("usr/bin/perl5") && node.same_as.as_deref() == Some("usr/bin/perl")
    });
    assert_eq!(linked.count(), 1);
}

// Packages made here, for what no package of the archive does alone.

/// Packages of a repository of their own, in one image without Essential.
struct Own {
    world: World,
    repository: Repository,
    address: String,
}

impl Own {
    fn new(debs: &[Deb<'_>]) -> Option<Self> {
        let world = World::shared()?;
        let repository = Repository::new(&world.path("repository"))?;
        for deb in debs {
            repository.add(deb);
        }
        repository.publish(&[]);
        let address = repository.serve();
        Some(Self { world, repository, address })
    }

    fn project(&self, names: &[&str], more: &str) -> Project {
        let packages: Vec<String> =
            names.iter().map(|name| format!("{{ name = \"{name}\", from = \"local\" }}")).collect();
        self.world.project(
            &names.join("-"),
            &format!(
                "name = \"own\"\n[debian]\nsuite = \"bookworm\"\npackages = [{}]\n{}{more}",
                packages.join(", "),
                self.repository.table(&self.address)
            ),
        )
    }

    fn build(&self, names: &[&str]) -> RootTree {
        self.world.build(&self.project(names, ""), &[]).root()
    }
}

const EMPTY: Deb<'_> = Deb { name: "empty", version: "1", fields: "", files: &[], control: &[] };

#[test]
fn statoverrides_hold() {
    let file = "#!/bin/sh\n";
    let Some(own) = Own::new(&[
        Deb {
            name: "overriding",
            files: &[("usr/bin/own", file), ("usr/bin/two", file)],
            control: &[
                // dpkg reads the overrides once, before it unpacks: this comes too late for both.
                (
                    "preinst",
                    "#!/bin/sh\nset -e\ndpkg-statoverride --force-all --add root games 2711 /usr/bin/own\n",
                ),
                // With --update at once; without only for what is unpacked by another dpkg.
                (
                    "postinst",
                    "#!/bin/sh\nset -e\n\
                     dpkg-statoverride --update --add daemon daemon 4750 /usr/bin/two\n\
                     dpkg-statoverride --add root games 2711 /usr/bin/later\n",
                ),
            ],
            ..EMPTY
        },
        Deb {
            name: "later",
            files: &[("usr/bin/later", file)],
            fields: "Pre-Depends: overriding\n",
            control: &[("preinst", "#!/bin/sh\n")],
            ..EMPTY
        },
    ]) else {
        return;
    };
    let root = own.build(&["later"]);
    let attributes = |path: &str| {
        let node = root.at(path);
        (node.uid, node.gid, node.mode)
    };
    assert_eq!(attributes("usr/bin/own"), (0, 0, 0o755));
    assert_eq!(attributes("usr/bin/two"), (1, 1, 0o4750));
    assert_eq!(attributes("usr/bin/later"), (0, 60, 0o2711));
}

#[test]
fn replaces_decides_who_owns_a_file() {
    let old = &[("usr/share/x", "old\n"), ("usr/share/only-old", "old\n")];
    let new = &[("usr/share/x", "new\n")];
    let Some(own) = Own::new(&[
        Deb { name: "a-old", files: old, ..EMPTY },
        Deb { name: "b-new", files: new, fields: "Replaces: a-old\n", ..EMPTY },
        // The same, with names in the other order: neither name nor order decides.
        Deb { name: "z-old", files: &[("usr/share/y", "old\n")], ..EMPTY },
        Deb {
            name: "c-new",
            files: &[("usr/share/y", "new\n")],
            fields: "Replaces: z-old\n",
            ..EMPTY
        },
        Deb { name: "d-rude", files: &[("usr/share/x", "rude\n")], ..EMPTY },
    ]) else {
        return;
    };
    let root = own.build(&["a-old", "b-new", "z-old", "c-new"]);
    assert_eq!(root.at("usr/share/x").text(), "new\n");
    assert_eq!(root.at("usr/share/y").text(), "new\n");
    assert_eq!(root.at("usr/share/only-old").text(), "old\n");
    // What dpkg would refuse is refused, and both are named.
    let clash = own.project(&["a-old", "d-rude"], "");
    own.world.fails(&clash, 1, &["usr/share/x", "a-old", "d-rude"]);
}

/// Its data tree is the same, so its layer is; what its script makes is not.
#[test]
fn a_script_that_changes_alone_is_run_again() {
    let files = &[("usr/share/x", "the same\n")];
    let version = |version, control| Deb { name: "script", version, files, control, ..EMPTY };
    let one = [("postinst", "#!/bin/sh\necho one >/etc/made\n")];
    let two = [("postinst", "#!/bin/sh\necho two >/etc/made\n")];
    let Some(own) = Own::new(&[version("1", &one)]) else { return };
    let project = own.project(&["script"], "");
    let first = own.world.build(&project, &[]);
    assert_eq!(first.root().at("etc/made").text(), "one\n");
    own.repository.add(&version("2", &two));
    own.repository.publish(&[]);
    // A build never moves a pin; an update does.
    assert_eq!(own.world.build(&project, &["--locked"]).digest, first.digest);
    let mut update = own.world.drystone(&["update", "-f"]);
    succeed(update.arg(project.folder.join("image.toml")));
    assert_eq!(own.world.build(&project, &["--locked"]).root().at("etc/made").text(), "two\n");
}

/// What scripts delete or rename stays deleted, over whatever layers.
#[test]
fn deletions_stay() {
    let files =
        &[("usr/share/d/gone", "x\n"), ("usr/share/d/before", "x\n"), ("usr/share/d/kept", "x\n")];
    let postinst = "#!/bin/sh\nset -e\nrm /usr/share/d/gone\n\
                    mv /usr/share/d/before /usr/share/d/after\n";
    let Some(own) =
        Own::new(&[Deb { name: "deleting", files, control: &[("postinst", postinst)], ..EMPTY }])
    else {
        return;
    };
    let more =
        "[finish]\nscript = \"rm -r /usr/share/doc/base-files || true; rm /usr/share/d/kept\"\n";
    let project = own.project(&["deleting"], more);
    let root = own.world.build(&project, &[]).root();
    for path in ["gone", "before", "kept"] {
        assert!(root.get(&format!("usr/share/d/{path}")).is_none(), "{path}");
    }
    assert_eq!(root.at("usr/share/d/after").text(), "x\n");
    // What scripts did is explained by the package whose scripts did it.
    let why = |path| {
        let file = project.folder.join("image.toml");
        succeed(own.world.drystone(&["why", path, "-f"]).arg(file))
    };
    assert!(why("/usr/share/d/after").contains("(file), by scripts of deleting\n"));
    let gone = why("/usr/share/d/gone");
    assert!(gone.contains("(deletion), by scripts of deleting\n"), "{gone}");
    assert!(gone.contains("image.toml asks for deleting\n"), "{gone}");
}

/// Conffiles, debconf answers and triggers, as dpkg has them.
#[test]
fn answers_and_triggers_reach_scripts() {
    let template = "Template: asking/word\nType: string\nDefault: nothing\nDescription: a word\n";
    let config = "#!/bin/sh\n. /usr/share/debconf/confmodule\ndb_input high asking/word || true\ndb_go || true\n";
    let postinst = "#!/bin/sh\nset -e\n. /usr/share/debconf/confmodule\ndb_get asking/word\n\
                    echo \"$RET\" >/etc/answer\n";
    let watcher = "#!/bin/sh\nif [ \"$1\" = triggered ]; then echo \"$2\" >/etc/triggered; fi\n";
    let Some(own) = Own::new(&[
        // A package that is not configured yet is told nothing of triggers, so the one with the trigger
        // must be complete before the other is unpacked.
        Deb {
            name: "asking",
            fields: "Depends: debconf\nPre-Depends: watching\n",
            files: &[("usr/share/watched/file", "x\n")],
            control: &[
                ("templates", template),
                ("config", config),
                ("preinst", "#!/bin/sh\n"),
                ("postinst", postinst),
            ],
            ..EMPTY
        },
        Deb {
            name: "watching",
            control: &[
                ("triggers", "interest-noawait /usr/share/watched\n"),
                ("postinst", watcher),
            ],
            ..EMPTY
        },
    ]) else {
        return;
    };
    let project = own.project(&["asking", "watching"], "");
    let path = project.folder.join("image.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let line = "debconf = [\"asking asking/word string mortar\"]\n";
    std::fs::write(&path, text.replace("[debian.repository", &format!("{line}[debian.repository")))
        .unwrap();
    let root = own.world.build(&project, &[]).root();
    assert_eq!(root.at("etc/answer").text(), "mortar\n");
    assert_eq!(root.at("etc/triggered").text(), "/usr/share/watched\n");
}
