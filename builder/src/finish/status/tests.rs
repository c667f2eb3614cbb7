//! Paragraphs against what dpkg writes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use proptest::prelude::*;
use rayon::prelude::*;

use super::*;

/// The paragraphs of a status database, by package.
fn paragraphs(status: &str) -> BTreeMap<String, String> {
    status
        .split("\n\n")
        .filter(|paragraph| !paragraph.trim().is_empty())
        .map(|paragraph| {
            let paragraph = format!("{}\n", paragraph.trim_matches('\n'));
            let name = paragraph.lines().next().unwrap().replace("Package: ", "");
            (name, paragraph)
        })
        .collect()
}

/// A status paragraph as a control file: without the fields that dpkg adds.
fn without_state(paragraph: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for line in paragraph.lines() {
        if !line.starts_with(' ') {
            inside = line.starts_with("Status:") || line.starts_with("Conffiles:");
        }
        if !inside {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

/// Writes a control file of the same meaning in another way: fields in another order, with other
/// names' case, spaces and operators.
fn disturbed(control: &str, seed: usize) -> String {
    let mut fields: Vec<String> = Vec::new();
    for line in control.lines() {
        if line.starts_with(' ') {
            fields.last_mut().unwrap().push_str(&format!("\n{line}"));
        } else {
            fields.push(line.to_owned());
        }
    }
    let known =
        |field: &String| FIELDS.iter().any(|(name, _)| field.starts_with(&format!("{name}:")));
    // Fields that dpkg does not know keep their order among each other.
    let (mut known, unknown): (Vec<_>, Vec<_>) = fields.into_iter().partition(known);
    let turn = seed % known.len();
    known.rotate_left(turn);
    if seed.is_multiple_of(2) {
        known.reverse();
    }
    known.extend(unknown);
    let mut out = String::new();
    for field in known {
        let (name, value) = field.split_once(':').unwrap();
        let relations =
            FIELDS.iter().any(|(known, kind)| *known == name && *kind == Kind::Relations);
        let (name, value) = match seed % 3 {
            0 if relations => (
                name.to_ascii_uppercase(),
                value.replace(", ", ",\n ").replace(" (>= ", "(>=").replace(" | ", "|"),
            ),
            1 if relations => (
                name.to_ascii_lowercase(),
                value.replace(", ", "  ,\t").replace("(= ", "(  =  ").replace(')', "  )  "),
            ),
            2 => (name.to_owned(), format!("  \t{}  ", value.trim_start())),
            _ => (name.to_owned(), value.to_owned()),
        };
        out.push_str(&format!("{name}:{value}\n"));
    }
    out
}

#[test]
fn keeps_every_paragraph_of_this_host() {
    let Ok(status) = fs::read_to_string("/var/lib/dpkg/status") else {
        return println!("skipped: no dpkg database here");
    };
    for (seed, paragraph) in paragraphs(&status).values().enumerate() {
        if !paragraph.contains("\nStatus: install ok installed\n") {
            continue;
        }
        let mut state = PackageState::installed(Vec::new());
        let mut lines = paragraph.lines().skip_while(|line| *line != "Conffiles:").skip(1);
        while let Some(line) = lines.next().and_then(|line| line.strip_prefix(' ')) {
            let mut words: Vec<&str> = line.split(' ').collect();
            let remove_on_upgrade = words.pop_if(|word| *word == "remove-on-upgrade").is_some();
            let obsolete = words.pop_if(|word| *word == "obsolete").is_some();
            let md5 = words.pop().unwrap().to_owned();
            let path = words.join(" ");
            state.conffiles.push(Conffile { path, md5, obsolete, remove_on_upgrade });
        }
        let control = without_state(paragraph);
        assert_eq!(&status_paragraph(&control, &state).unwrap(), paragraph);
        let disturbed = disturbed(&control, seed);
        assert_eq!(&status_paragraph(&disturbed, &state).unwrap(), paragraph, "{disturbed}");
    }
}

/// Unpacks packages into a new database and returns its status file.
fn unpack(debs: &[PathBuf], directory: &Path) -> Option<String> {
    let database = directory.join("database");
    let root = directory.join("root");
    for name in ["info", "updates", "triggers", "alternatives", "parts"] {
        fs::create_dir_all(database.join(name)).unwrap();
    }
    fs::create_dir_all(&root).unwrap();
    fs::write(database.join("status"), "").unwrap();
    fs::write(database.join("available"), "").unwrap();
    let output = Command::new("dpkg")
        .arg(format!("--admindir={}", database.display()))
        .arg(format!("--instdir={}", root.display()))
        .args(["--force-all", "--no-triggers", "--log=/dev/null", "--unpack"])
        .args(debs)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .output()
        .ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::read_to_string(database.join("status")).ok()
}

fn build_deb(directory: &Path, name: &str, control: &str, conffiles: &[&str]) -> Option<PathBuf> {
    let tree = directory.join(name);
    fs::create_dir_all(tree.join("DEBIAN")).unwrap();
    fs::write(tree.join("DEBIAN/control"), control).unwrap();
    for conffile in conffiles {
        let path = tree.join(conffile.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, conffile).unwrap();
    }
    if !conffiles.is_empty() {
        let list: String = conffiles.iter().map(|path| format!("{path}\n")).collect();
        fs::write(tree.join("DEBIAN/conffiles"), list).unwrap();
    }
    let deb = directory.join(format!("{name}.deb"));
    let output = Command::new("dpkg-deb")
        .args(["--root-owner-group", "--nocheck", "-Znone", "--build"])
        .args([&tree, &deb])
        .output()
        .ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(deb)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Builds packages with odd control files, lets dpkg unpack them, and compares its paragraphs.
#[test]
fn equals_dpkg_on_built_packages() {
    let Ok(status) = fs::read_to_string("/var/lib/dpkg/status") else {
        return println!("skipped: no dpkg database here");
    };
    if !is_root() {
        return println!("skipped: dpkg --unpack needs root");
    }
    // dpkg syncs its database after every step, which takes seconds on a disk.
    let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let mut controls = BTreeMap::new();
    for (seed, (name, paragraph)) in paragraphs(&status).into_iter().enumerate().step_by(9) {
        // Another dpkg would refuse to unpack over a foreign architecture's rules.
        if paragraph.contains("\nStatus: install ok installed\n") && controls.len() < 60 {
            controls.insert(name, (disturbed(&without_state(&paragraph), seed), Vec::new()));
        }
    }
    let odd = "Package: Odd-Name\nVersion: 0:1.0-1\nArchitecture: all\nMaintainer: A <a@example.com>\n\
               Priority: OPTIONAL\nEssential: no\nMulti-Arch: Foreign\nX-Empty:\nx-CASE:   kept  \n\
               Depends: a (1.0), b (<2), c(>0:3) | D:any\nProvides: odd-v (= 0:1)\n\
               Suggests:\nX-Multi:\n first\n .\n  second\n\
               Recommends: x\nBugs: https://bugs.example.com\nOrigin: Test\n\
               Description: short\n long\n .\n more\n";
    controls.insert("odd-name".to_owned(), (odd.to_owned(), vec!["/etc/odd/a", "/etc/odd/b c"]));
    let epoch = "Package: epoch\nVersion: 02:1:2-3\nArchitecture: all\nMaintainer: A\n\
                 Conflicts: z (<< 007:1)\nPriority: strange\nDescription: e\n";
    controls.insert("epoch".to_owned(), (epoch.to_owned(), Vec::new()));
    let debs: Option<Vec<_>> = controls
        .par_iter()
        .map(|(name, (control, conffiles))| build_deb(directory.path(), name, control, conffiles))
        .collect();
    let Some(debs) = debs else { return println!("skipped: no dpkg-deb here") };
    let theirs = paragraphs(&unpack(&debs, directory.path()).unwrap());
    assert!(theirs.len() > 50, "{}", theirs.len());
    for (name, (control, conffiles)) in &controls {
        let new = |path: &&str| Conffile {
            path: (*path).to_owned(),
            md5: "newconffile".to_owned(),
            obsolete: false,
            remove_on_upgrade: false,
        };
        let state = PackageState {
            status: "install ok unpacked".to_owned(),
            conffiles: conffiles.iter().map(new).collect(),
            ..PackageState::default()
        };
        assert_eq!(status_paragraph(control, &state).unwrap(), theirs[name], "{control}");
    }
}

/// Real packages from a directory that the environment names, for long runs.
#[test]
fn equals_dpkg_on_given_packages() {
    let Some(named) = std::env::var_os("DRYSTONE_TEST_DEBS") else {
        return println!("skipped: DRYSTONE_TEST_DEBS names no directory");
    };
    let mut debs: Vec<_> =
        fs::read_dir(named).unwrap().map(|entry| entry.unwrap().path()).collect();
    debs.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
    debs.sort();
    for deb in debs {
        let directory = tempfile::tempdir().unwrap();
        let control = directory.path().join("control");
        fs::create_dir(&control).unwrap();
        let status = Command::new("dpkg-deb").arg("-e").arg(&deb).arg(&control).status().unwrap();
        assert!(status.success());
        // Scripts are not what is compared, and would need the whole system.
        let text = fs::read_to_string(control.join("control")).unwrap();
        let conffiles = fs::read_to_string(control.join("conffiles")).unwrap_or_default();
        let state = PackageState {
            status: "install ok unpacked".to_owned(),
            conffiles: conffiles
                .lines()
                .map(|line| {
                    let path = line.strip_prefix("remove-on-upgrade ").unwrap_or(line);
                    Conffile {
                        path: path.to_owned(),
                        md5: "newconffile".to_owned(),
                        obsolete: false,
                        remove_on_upgrade: path.len() != line.len(),
                    }
                })
                .collect(),
            ..PackageState::default()
        };
        for script in ["preinst", "postinst", "prerm", "postrm", "triggers"] {
            let _ = fs::remove_file(control.join(script));
        }
        let tree = directory.path().join("tree");
        fs::create_dir(&tree).unwrap();
        fs::rename(&control, tree.join("DEBIAN")).unwrap();
        for conffile in state.conffiles.iter().filter(|file| !file.remove_on_upgrade) {
            let path = tree.join(conffile.path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let empty = directory.path().join("empty.deb");
        let built = Command::new("dpkg-deb")
            .args(["--root-owner-group", "--nocheck", "-Znone", "--build"])
            .args([&tree, &empty])
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let theirs = unpack(&[empty], directory.path()).unwrap();
        let ours = status_paragraph(&text, &state).unwrap();
        assert_eq!(format!("{ours}\n"), theirs, "{deb:?}");
    }
}

#[test]
fn state_fields_stand_where_dpkg_puts_them() {
    let control = "Package: a\nVersion: 1\nArchitecture: all\nDescription: d\nTag: x\n";
    let state = PackageState {
        status: "install ok triggers-awaited".to_owned(),
        configured_version: Some("0.9".to_owned()),
        conffiles: vec![Conffile {
            path: "/etc/a".to_owned(),
            md5: "d41d8cd98f00b204e9800998ecf8427e".to_owned(),
            obsolete: true,
            remove_on_upgrade: false,
        }],
        triggers_pending: vec!["/usr/x".to_owned(), "y".to_owned()],
        triggers_awaited: vec!["man-db".to_owned()],
    };
    insta::assert_snapshot!(status_paragraph(control, &state).unwrap(), @r"
    Package: a
    Status: install ok triggers-awaited
    Architecture: all
    Version: 1
    Config-Version: 0.9
    Conffiles:
     /etc/a d41d8cd98f00b204e9800998ecf8427e obsolete
    Description: d
    Triggers-Pending: /usr/x y
    Triggers-Awaited: man-db
    Tag: x
    ");
}

#[test]
fn scanners_get_a_paragraph_and_sums() {
    let control = "Package: tzdata\nVersion: 1\nArchitecture: all\nDescription: d\n";
    let state = PackageState::installed(Vec::new());
    let files =
        scanner_files(control, Some(b"d41d8cd98f00b204e9800998ecf8427e  a\n"), &state).unwrap();
    let paths: Vec<_> = files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["var/lib/dpkg/status.d/tzdata", "var/lib/dpkg/status.d/tzdata.md5sums"]);
    assert!(files[0].content.starts_with(b"Package: tzdata\nStatus: install ok installed\n"));
}

#[test]
fn bad_control_files_are_refused() {
    let state = PackageState::installed(Vec::new());
    for control in [
        "",
        "Version: 1\n",
        "Package: a\n",
        "Package: a\nPackage: b\nVersion: 1\n",
        "Package: ../a\nVersion: 1\n",
        "Package: a\nVersion: one\n",
        "Package: a\nVersion: 1\nDepends: a,,b\n",
        "Package: a\nVersion: 1\nDepends: a (>= 1\n",
        "Package: a\nVersion: 1\nDepends: a (<> 1)\n",
        "Package: a\nVersion: 1\nDepends: a b\n",
        "Package: a\nVersion: 1\nMulti-Arch: perhaps\n",
        "Package: a\nVersion: 1\nnonsense\n",
        " x\n",
    ] {
        assert!(status_paragraph(control, &state).is_err(), "{control}");
    }
}

proptest! {
    #[test]
    fn any_text_is_judged_and_paragraphs_are_stable(
        depends in "[a-c (),|<>=:0-9.\t-]{0,24}", rest in "\\PC{0,40}",
    ) {
        let state = PackageState::installed(Vec::new());
        let control = format!("Package: a\nVersion: 1\nDepends: {depends}\nX-Y: {rest}\n");
        if let Ok(first) = status_paragraph(&control, &state) {
            prop_assert_eq!(status_paragraph(&without_state(&first), &state).unwrap(), first);
        }
        let _ = status_paragraph(&rest, &state);
    }
}
