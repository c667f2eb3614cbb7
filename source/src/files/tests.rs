//! Walks of real folders.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;
use std::time::Duration;

use drystone_store::tree::Kind;

use super::*;

/// A folder with some files; names that end in a slash are directories.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), files);
    directory
}

fn write(directory: &Path, files: &[(&str, &str)]) {
    for (name, content) in files {
        let path = directory.join(name);
        if name.ends_with('/') {
            fs::create_dir_all(path).unwrap();
        } else {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }
}

fn spec(destination: &str, source: FileSource) -> FileSpec {
    let destination = TreePath::from_rooted(destination).unwrap();
    FileSpec { destination, source, mode: None, uid: 0, gid: 0 }
}

fn local(path: &Path) -> FileSource {
    FileSource::Path { path: path.to_owned(), include: Vec::new(), exclude: Vec::new() }
}

fn take(path: &Path) -> SourceTree {
    read_sources(&[spec("/srv", local(path))]).unwrap()
}

/// One line for each entry.
fn lines(tree: &SourceTree) -> Vec<String> {
    tree.entries
        .iter()
        .map(|SourceEntry { entry, implied, .. }| {
            let kind = match &entry.kind {
                Kind::Directory => "/".to_owned(),
                Kind::File { size } => format!(" {size}"),
                Kind::Symlink { target } => format!(" -> {target}"),
                other => format!(" {other:?}"),
            };
            let owner = if (entry.uid, entry.gid) == (0, 0) {
                String::new()
            } else {
                format!(" {}:{}", entry.uid, entry.gid)
            };
            let implied = if *implied { " implied" } else { "" };
            format!("{}{kind} {:o}{owner}{implied}", entry.path, entry.mode)
        })
        .collect()
}

fn paths(tree: &SourceTree) -> Vec<&str> {
    tree.entries.iter().map(|entry| entry.entry.path.as_str()).collect()
}

#[test]
fn modes_and_owners_are_normalised() {
    let source = folder(&[("a", "1"), ("run", "22"), ("d/b", ""), ("e/", "")]);
    let chmod = |name: &str, mode| {
        fs::set_permissions(source.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    chmod("a", 0o600);
    chmod("run", 0o610);
    chmod("d", 0o700);
    symlink("d/b", source.path().join("link")).unwrap();
    assert_eq!(
        lines(&take(source.path())),
        [
            "srv/ 755 implied",
            "srv/a 1 644",
            "srv/d/ 755 implied",
            "srv/d/b 0 644",
            "srv/e/ 755 implied",
            "srv/link -> d/b 777",
            "srv/run 2 755",
        ]
    );
    let owned = FileSpec {
        mode: Some(0o640),
        uid: 7,
        gid: 8,
        ..spec("/srv", local(&source.path().join("d")))
    };
    let tree = read_sources(&[owned]).unwrap();
    assert_eq!(lines(&tree), ["srv/ 750 7:8", "srv/b 0 640 7:8"]);
}

#[test]
fn text_links_and_directories_need_no_disk() {
    let tree = read_sources(&[
        spec("/etc/motd", FileSource::Text("hello\n".into())),
        spec("/etc/localtime", FileSource::Symlink("/usr/share/zoneinfo/UTC".into())),
        FileSpec { mode: Some(0o2750), uid: 5, ..spec("/var/lib/x", FileSource::Directory) },
    ])
    .unwrap();
    assert_eq!(
        lines(&tree),
        ["etc/localtime -> /usr/share/zoneinfo/UTC 777", "etc/motd 6 644", "var/lib/x/ 2750 5:0",]
    );
    assert_eq!(tree.entries[1].content, ContentSource::Inline(b"hello\n".to_vec()));
    assert_eq!(tree.fingerprint.stamps(), []);
}

#[test]
fn ignored_files_are_skipped_and_counted() {
    let source = folder(&[
        (".git/HEAD", "x"),
        (".gitignore", "*.log\n/dist/\n!keep.log\n# comment\n"),
        ("a.log", ""),
        ("keep.log", ""),
        ("dist/x", ""),
        ("dist/y", ""),
        ("sub/dist/z", ""),
        ("sub/.gitignore", "!b.log\nsecret\n"),
        ("sub/b.log", ""),
        ("sub/c.log", ""),
        ("sub/secret/deep", ""),
        ("untracked", ""),
    ]);
    let tree = take(source.path());
    assert_eq!(
        paths(&tree),
        [
            "srv",
            "srv/.gitignore",
            "srv/keep.log",
            "srv/sub",
            "srv/sub/.gitignore",
            "srv/sub/b.log",
            "srv/sub/dist",
            "srv/sub/dist/z",
            "srv/untracked",
        ]
    );
    assert_eq!(tree.ignored, 4, "a.log, dist, sub/c.log, sub/secret");
}

#[test]
fn rules_above_the_source_hold_up_to_the_repository() {
    let outer = folder(&[
        (".gitignore", "app\n*.txt\n"),
        ("repository/.git/HEAD", "x"),
        ("repository/.gitignore", "*.tmp\n/project/gen\ndist/\n"),
        ("repository/project/app", ""),
        ("repository/project/a.tmp", ""),
        ("repository/project/a.txt", ""),
        ("repository/project/gen/x", ""),
        ("repository/project/dist/b.tmp", ""),
        ("repository/project/dist/.gitignore", "*"),
        ("repository/module/.git", "gitdir: ../.git/modules/module"),
        ("repository/module/c.tmp", ""),
    ]);
    let repository = outer.path().join("repository");
    let tree = take(&repository.join("project"));
    assert_eq!(paths(&tree), ["srv", "srv/a.txt", "srv/app"], "nothing of the outer file holds");
    assert_eq!(tree.ignored, 3);
    // A named folder that is itself ignored is taken whole.
    let tree = take(&repository.join("project/dist"));
    assert_eq!(paths(&tree), ["srv", "srv/.gitignore", "srv/b.tmp"]);
    let tree = take(&repository.join("project/gen"));
    assert_eq!(paths(&tree), ["srv", "srv/x"]);
    // So is a named file.
    let file = read_sources(&[spec("/x", local(&repository.join("project/a.tmp")))]).unwrap();
    assert_eq!(paths(&file), ["x"]);
    // A repository inside has rules of its own; its `.git` is a file.
    let tree = take(&repository);
    assert!(paths(&tree).contains(&"srv/module/c.tmp"));
    assert!(!paths(&tree).iter().any(|path| path.ends_with(".git")));
    // Outside a repository only the source's own rules hold.
    fs::remove_dir_all(repository.join(".git")).unwrap();
    let tree = take(&repository.join("project"));
    assert!(paths(&tree).contains(&"srv/a.tmp"));
}

/// The same folder through git itself.
#[test]
fn agrees_with_git() {
    let source = folder(&[
        (
            ".gitignore",
            "*.o\n!/keep.o\nbuild/\n/root-only\n**/deep/*.x\n\\#hash\ntrail \nfoo/*\n!foo/bar\n",
        ),
        ("a.o", ""),
        ("keep.o", ""),
        ("sub/keep.o", ""),
        ("sub/build/x", ""),
        ("build", "a file, not a directory"),
        ("root-only/x", ""),
        ("sub/root-only/x", ""),
        ("sub/deep/1.x", ""),
        ("sub/deep/more/2.x", ""),
        ("#hash", ""),
        ("trail", ""),
        ("foo/bar/x", ""),
        ("foo/baz", ""),
        ("sub/.gitignore", "/*\n!/.gitignore\n!/deep/\n"),
    ]);
    let git = |arguments: &[&str]| {
        Command::new("git")
            .args(["-c", "core.excludesFile=/dev/null"])
            .args(arguments)
            .current_dir(source.path())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
    };
    if !git(&["init", "-q"]).is_ok_and(|output| output.status.success()) {
        return println!("skipped: no git here");
    }
    let output = git(&["ls-files", "-z", "--others", "--exclude-standard"]).unwrap();
    let mut theirs: Vec<String> = String::from_utf8(output.stdout)
        .unwrap()
        .split_terminator('\0')
        .map(|path| format!("srv/{path}"))
        .collect();
    theirs.sort();
    let tree = take(source.path());
    let mut ours: Vec<_> = tree
        .entries
        .iter()
        .filter(|entry| entry.entry.kind != Kind::Directory)
        .map(|entry| entry.entry.path.as_str().to_owned())
        .collect();
    ours.sort();
    assert_eq!(ours, theirs);
}

#[test]
fn include_takes_what_it_names() {
    let source = folder(&[
        ("Cargo.toml", ""),
        ("Cargo.lock", ""),
        ("README.md", ""),
        ("crates/a/Cargo.toml", ""),
        ("crates/a/src/lib.rs", ""),
        ("docs/guide/x.md", ""),
        ("docs/y.txt", ""),
        ("web/", ""),
    ]);
    let include = |patterns: &[&str]| {
        let include = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        let path = source.path().to_owned();
        let tree =
            read_sources(&[spec("/", FileSource::Path { path, include, exclude: Vec::new() })])
                .unwrap();
        paths(&tree).join(" ")
    };
    assert_eq!(
        include(&["Cargo.toml", "Cargo.lock", "crates/**"]),
        "Cargo.lock Cargo.toml crates crates/a crates/a/Cargo.toml crates/a/src crates/a/src/lib.rs"
    );
    assert_eq!(include(&["crates/a/src/"]), "crates crates/a crates/a/src crates/a/src/lib.rs");
    assert_eq!(include(&["**/*.md"]), "README.md docs docs/guide docs/guide/x.md");
    assert_eq!(include(&["*.md", "web"]), "README.md web");
    let path = source.path().to_owned();
    let bad = spec("/", FileSource::Path { path, include: vec!["a[".into()], exclude: Vec::new() });
    assert!(matches!(read_sources(&[bad]), Err(FilesError::Pattern { .. })));
}

#[test]
fn links_that_leave_are_errors_by_name() {
    let source = folder(&[("d/e/x", ""), ("top", "")]);
    for good in ["../../top", "x", "../e/../../top", "./missing"] {
        symlink(good, source.path().join("d/e/link")).unwrap();
        take(source.path());
        fs::remove_file(source.path().join("d/e/link")).unwrap();
    }
    for bad in ["/etc/passwd", "../../../out", "../../top/../../x"] {
        symlink(bad, source.path().join("d/e/link")).unwrap();
        let error = read_sources(&[spec("/srv", local(source.path()))]).unwrap_err();
        assert!(
            matches!(&error, FilesError::LinkLeaves { path, .. }
            if path.ends_with("d/e/link")),
            "{bad}: {error}"
        );
        fs::remove_file(source.path().join("d/e/link")).unwrap();
    }
    // The user's own path may be a link.
    let alias = folder(&[]);
    symlink(source.path().join("d"), alias.path().join("alias")).unwrap();
    assert_eq!(paths(&take(&alias.path().join("alias"))), ["srv", "srv/e", "srv/e/x"]);
}

#[test]
fn what_no_tree_takes_is_refused_by_name() {
    let source = folder(&[("ok", "")]);
    let pipe = source.path().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let refuse = || read_sources(&[spec("/srv", local(source.path()))]).unwrap_err();
    let error = refuse();
    assert!(matches!(&error, FilesError::Special { kind: "named pipe", .. }), "{error}");
    // Ignored, it is no matter.
    fs::write(source.path().join(".gitignore"), "pipe\n").unwrap();
    take(source.path());
    fs::remove_file(&pipe).unwrap();

    fs::write(source.path().join(".wh.x"), "").unwrap();
    assert!(matches!(refuse(), FilesError::Whiteout { .. }));
    fs::remove_file(source.path().join(".wh.x")).unwrap();

    let name = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff");
    fs::write(source.path().join(name), "").unwrap();
    assert!(matches!(refuse(), FilesError::Name { .. }));
    fs::remove_file(source.path().join(name)).unwrap();

    let missing = read_sources(&[spec("/x", local(&source.path().join("none")))]).unwrap_err();
    assert!(matches!(missing, FilesError::Missing { .. }));
    let root = read_sources(&[spec("/", FileSource::Text(String::new()))]).unwrap_err();
    assert!(matches!(root, FilesError::RootDestination));
}

#[test]
fn deeper_destinations_win() {
    let high = folder(&[("x", "high"), ("www/index", "high"), ("www/a", "")]);
    let low = folder(&[("index", "low, longer")]);
    let mut specs = vec![
        spec("/srv/www", local(low.path())),
        spec("/srv", local(high.path())),
        spec("/srv/x", FileSource::Text("!".into())),
    ];
    let tree = read_sources(&specs).unwrap();
    assert_eq!(
        lines(&tree),
        [
            "srv/ 755 implied",
            "srv/www/ 755 implied",
            "srv/www/a 0 644",
            "srv/www/index 11 644",
            "srv/x 1 644",
        ]
    );
    specs.reverse();
    assert_eq!(lines(&read_sources(&specs).unwrap()), lines(&tree));
    let twice = [spec("/a", FileSource::Directory), spec("a/", FileSource::Text("x".into()))];
    assert!(matches!(read_sources(&twice), Err(FilesError::Twice { .. })));
    let below = [spec("/srv", local(high.path())), spec("/srv/www", FileSource::Text("x".into()))];
    assert!(matches!(read_sources(&below), Err(FilesError::NotDirectory { .. })));
}

#[test]
fn case_clashes_are_reported() {
    let source = folder(&[("Readme", ""), ("README", ""), ("other", "")]);
    let tree = take(source.path());
    let clashes: Vec<_> = tree.case_clashes.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    assert_eq!(clashes, [("srv/README", "srv/Readme")]);
}

#[test]
fn the_fingerprint_sees_every_input() {
    type Change = (&'static str, fn(&Path));
    let changes: [Change; 6] = [
        ("content", |root| fs::write(root.join("project/a"), "22").unwrap()),
        ("new file", |root| fs::write(root.join("project/sub/new"), "").unwrap()),
        ("rules inside", |root| fs::write(root.join("project/.gitignore"), "b").unwrap()),
        ("rules above", |root| fs::write(root.join(".gitignore"), "b").unwrap()),
        ("repository", |root| fs::remove_dir_all(root.join(".git")).unwrap()),
        ("mode", |root| {
            let mode = fs::Permissions::from_mode(0o755);
            fs::set_permissions(root.join("project/a"), mode).unwrap();
        }),
    ];
    for (name, change) in changes {
        let root = folder(&[
            (".git/HEAD", ""),
            ("project/a", "1"),
            ("project/sub/b", ""),
            ("elsewhere", ""),
        ]);
        std::thread::sleep(Duration::from_millis(50));
        let tree = take(&root.path().join("project"));
        assert!(tree.fingerprint.unchanged(), "{name}");
        fs::write(root.path().join("elsewhere"), "x").unwrap();
        fs::write(root.path().join(".git/index"), "git at work").unwrap();
        assert!(tree.fingerprint.unchanged(), "{name}: what is no input does not count");
        change(root.path());
        assert!(!tree.fingerprint.unchanged(), "{name}");
    }
}

#[test]
fn the_order_of_creation_does_not_matter() {
    let names = ["b", "a", "c-d", "c/x", "c.x", "Z"];
    let forward = folder(&names.map(|name| (name, "")));
    let mut reversed = names;
    reversed.reverse();
    let backward = folder(&reversed.map(|name| (name, "")));
    assert_eq!(lines(&take(forward.path())), lines(&take(backward.path())));
}
