//! The cache against the real ldconfig, and against hostile files.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use proptest::prelude::*;

use super::super::root_view::DirectoryRoot;
use super::super::root_view::memory::MemoryRoot;
use super::*;

/// Every ldconfig to compare with: the host's, and those that the environment names.
fn oracles() -> Vec<(PathBuf, Ldconfig)> {
    let named = std::env::var_os("DRYSTONE_TEST_LDCONFIG").unwrap_or_default();
    let mut programs = vec![PathBuf::from("/sbin/ldconfig")];
    programs.extend(std::env::split_paths(&named).filter(|path| !path.as_os_str().is_empty()));
    let machine = match std::env::consts::ARCH {
        "x86_64" => Machine::Amd64,
        "aarch64" => Machine::Arm64,
        _ => return Vec::new(),
    };
    let mut found = Vec::new();
    for program in programs {
        let Ok(output) = Command::new(&program).arg("--version").output() else { continue };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // ldconfig (Debian GLIBC 2.36-9+deb12u14) 2.36
        let Some((distribution, version)) = text
            .split_once('(')
            .and_then(|(_, rest)| rest.split_once(" GLIBC "))
            .and_then(|(distribution, rest)| Some((distribution, rest.split_once(')')?.0)))
        else {
            continue;
        };
        found.push((program, Ldconfig::new(machine, distribution, version).unwrap()));
    }
    if found.is_empty() {
        println!("skipped: no ldconfig of Debian or Ubuntu here");
    }
    found
}

/// Compares cache and links with what ldconfig does to a copy of `root`.
fn compare(root: &Path) {
    for (program, ldconfig) in oracles() {
        let copy = tempfile::tempdir().unwrap();
        let copied = Command::new("cp").arg("-a").arg(root.join(".")).arg(copy.path()).status();
        assert!(copied.unwrap().success());
        fs::create_dir_all(copy.path().join("etc")).unwrap();
        let ours = ldconfig.run(&DirectoryRoot::new(copy.path())).unwrap();
        let status = Command::new(&program)
            .arg("-r")
            .arg(copy.path())
            .args(["-C", "/etc/ld.so.cache"])
            .status()
            .unwrap();
        assert!(status.success());
        let theirs = fs::read(copy.path().join("etc/ld.so.cache")).unwrap();
        assert_same(&program, &ours.content, &theirs);
        for link in &ours.links {
            let path = copy.path().join(link.path.as_str());
            match &link.target {
                Some(target) => {
                    assert_eq!(fs::read_link(&path).unwrap(), Path::new(target), "{path:?}");
                }
                None => assert!(fs::symlink_metadata(&path).is_err(), "{path:?} was kept"),
            }
        }
        let again = ldconfig.run(&DirectoryRoot::new(copy.path())).unwrap();
        assert_eq!(again.links, [], "ldconfig made every link that we expected, and no other");
        assert_eq!(again.content, ours.content);
    }
}

fn assert_same(program: &Path, ours: &[u8], theirs: &[u8]) {
    if ours != theirs {
        let at = ours.iter().zip(theirs).position(|(a, b)| a != b);
        let directory = std::env::temp_dir();
        fs::write(directory.join("drystone-loader-cache-ours"), ours).unwrap();
        fs::write(directory.join("drystone-loader-cache-theirs"), theirs).unwrap();
        panic!(
            "{program:?}: {} bytes, expected {}, first difference {at:?}",
            ours.len(),
            theirs.len()
        );
    }
}

/// Small shared objects of this host, to build roots from.
fn samples(count: usize) -> Vec<PathBuf> {
    static SAMPLES: OnceLock<Vec<PathBuf>> = OnceLock::new();
    let all = SAMPLES.get_or_init(|| {
        let directory = Path::new("/usr/lib").join(triplet());
        let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
        let mut found: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        found.retain(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let small = path.symlink_metadata().is_ok_and(|m| m.is_file() && m.len() < 90_000);
            let library = name.starts_with("lib") && name.contains(".so.");
            small && library && fs::read(path).is_ok_and(|content| content.starts_with(b"\x7fELF"))
        });
        found.sort();
        found
    });
    all[..count.min(all.len())].to_vec()
}

fn triplet() -> String {
    format!("{}-linux-gnu", std::env::consts::ARCH)
}

/// A merged-/usr root with Debian's configuration.
fn debian_root() -> (tempfile::TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let libraries = root.path().join("usr/lib").join(triplet());
    fs::create_dir_all(&libraries).unwrap();
    fs::create_dir_all(root.path().join("usr/lib64")).unwrap();
    fs::create_dir_all(root.path().join("etc/ld.so.conf.d")).unwrap();
    symlink("usr/lib", root.path().join("lib")).unwrap();
    symlink("usr/lib64", root.path().join("lib64")).unwrap();
    fs::write(root.path().join("etc/ld.so.conf"), "include /etc/ld.so.conf.d/*.conf\n").unwrap();
    let local = "# libc default configuration\n/usr/local/lib\n";
    fs::write(root.path().join("etc/ld.so.conf.d/libc.conf"), local).unwrap();
    let multiarch = format!("/usr/local/lib/{0}\n/lib/{0}\n/usr/lib/{0}\n", triplet());
    let name = format!("etc/ld.so.conf.d/{}.conf", triplet());
    fs::write(root.path().join(name), multiarch).unwrap();
    (root, libraries)
}

#[test]
fn equals_ldconfig_on_a_debian_root() {
    let (root, libraries) = debian_root();
    for sample in samples(120) {
        fs::copy(&sample, libraries.join(sample.file_name().unwrap())).unwrap();
    }
    compare(root.path());
}

#[test]
fn equals_ldconfig_on_odd_roots() {
    let (root, libraries) = debian_root();
    let sample = samples(12);
    let Some(first) = sample.first() else { return println!("skipped: no libraries here") };
    let name = first.file_name().unwrap().to_str().unwrap();
    // Versions of one library, in an order that text does not have.
    for version in ["9", "10", "2"] {
        fs::copy(first, libraries.join(format!("{name}.{version}"))).unwrap();
    }
    // The same library elsewhere, through a link, and as a hard link.
    fs::create_dir_all(root.path().join("usr/local/lib")).unwrap();
    fs::copy(first, root.path().join("usr/local/lib").join(name)).unwrap();
    let dead = root.path().join("usr/local/lib/libdead.so.4");
    symlink("nothing", dead).unwrap();
    symlink("nothing", root.path().join("usr/local/lib/libdead.so")).unwrap();
    for sample in &sample[1..] {
        let name = sample.file_name().unwrap().to_str().unwrap();
        fs::copy(sample, libraries.join(name)).unwrap();
        fs::hard_link(libraries.join(name), libraries.join(format!("libhard-{name}"))).unwrap();
        symlink(name, libraries.join(format!("liblink-{name}"))).unwrap();
        symlink(format!("/lib/{}/{name}", triplet()), libraries.join(format!("ld-{name}")))
            .unwrap();
    }
    // Files that are no libraries.
    fs::write(libraries.join("libscript.so"), "/* GNU ld script */ GROUP ( libx.so.1 )").unwrap();
    fs::write(libraries.join("libempty.so.1"), "").unwrap();
    fs::copy("/bin/true", libraries.join("libtrue.so.1")).unwrap();
    let truncated = fs::read(first).unwrap();
    fs::write(libraries.join("libcut.so.1"), &truncated[..truncated.len() / 3]).unwrap();
    fs::create_dir(libraries.join("libdirectory.so.1")).unwrap();
    // Names that a version of ldconfig takes for unfinished files.
    for temporary in ["libz.so.1.dpkg-new", "libz.so.1;5f", "libz.so.#prelink#.abcdef"] {
        fs::copy(first, libraries.join(temporary)).unwrap();
    }
    // Configuration: nested include, comment, spaces, a library type, a missing directory.
    let extra = "include nested/*.list\n  /opt/a  # first\n/opt/b/=libc6\n\n/missing\nhwcap 0 x\n";
    fs::write(root.path().join("etc/ld.so.conf.d/zz.conf"), extra).unwrap();
    fs::create_dir_all(root.path().join("etc/ld.so.conf.d/nested")).unwrap();
    fs::write(root.path().join("etc/ld.so.conf.d/nested/1.list"), "/opt/c\n").unwrap();
    fs::write(root.path().join("etc/ld.so.conf.d/nested/.hidden.list"), "/opt/d\n").unwrap();
    for (letter, file) in ["a", "b", "c", "d"].iter().zip(&sample[1..]) {
        let directory = root.path().join("opt").join(letter);
        fs::create_dir_all(&directory).unwrap();
        fs::copy(file, directory.join("libother.so.7.1")).unwrap();
    }
    compare(root.path());
}

#[test]
fn equals_ldconfig_with_hwcaps() {
    let (root, libraries) = debian_root();
    for (index, sample) in samples(30).iter().enumerate() {
        let name = sample.file_name().unwrap();
        fs::copy(sample, libraries.join(name)).unwrap();
        let level = ["x86-64-v4", "x86-64-v2", "x86-64-v3", ".hidden", "a:b"][index % 5];
        let directory = libraries.join("glibc-hwcaps").join(level);
        fs::create_dir_all(&directory).unwrap();
        fs::copy(sample, directory.join(name)).unwrap();
        let legacy =
            ["haswell", "tls", "x86_64", "haswell/x86_64", "tls/haswell", "atomics"][index % 6];
        let directory = libraries.join(legacy);
        fs::create_dir_all(&directory).unwrap();
        fs::copy(sample, directory.join(name)).unwrap();
    }
    // A subdirectory without libraries still leaves its name among the strings.
    fs::create_dir_all(libraries.join("glibc-hwcaps/unused")).unwrap();
    fs::write(libraries.join("glibc-hwcaps/plain-file"), "").unwrap();
    fs::create_dir_all(libraries.join("glibc-hwcaps/x86-64-v3/haswell")).unwrap();
    compare(root.path());
}

#[test]
fn equals_ldconfig_on_an_empty_root() {
    let (root, _) = debian_root();
    compare(root.path());
    let bare = tempfile::tempdir().unwrap();
    fs::create_dir(bare.path().join("etc")).unwrap();
    compare(bare.path());
}

/// Any directory: a root made by mmdebstrap, or `/`. Named by the environment, for long runs.
#[test]
fn equals_ldconfig_on_given_roots() {
    let roots = std::env::var_os("DRYSTONE_TEST_ROOTS").unwrap_or_default();
    let roots: Vec<_> =
        std::env::split_paths(&roots).filter(|p| !p.as_os_str().is_empty()).collect();
    if roots.is_empty() {
        println!("skipped: DRYSTONE_TEST_ROOTS names no root");
    }
    for root in roots {
        compare(&root);
    }
}

#[test]
fn versions_make_the_generator() {
    let ldconfig = Ldconfig::new(Machine::Arm64, "Debian", "2.41-12+deb13u4").unwrap();
    assert_eq!(
        ldconfig.generator,
        "ldconfig (Debian GLIBC 2.41-12+deb13u4) stable release version 2.41"
    );
    assert!(!ldconfig.legacy);
    assert!(Ldconfig::new(Machine::Amd64, "Debian", "2.36-9+deb12u14").unwrap().legacy);
    assert!(Ldconfig::new(Machine::Amd64, "Debian", "nonsense").is_err());
}

#[test]
fn a_file_that_includes_itself_is_an_error() {
    let mut root = MemoryRoot::default();
    root.file("etc/ld.so.conf", 0o644, b"include /etc/ld.so.conf\n");
    let ldconfig = Ldconfig::new(Machine::Amd64, "Debian", "2.36-9").unwrap();
    assert!(matches!(ldconfig.run(&root), Err(LoaderCacheError::IncludeDepth { .. })));
}

/// The smallest 64-bit shared object with a SONAME: one loaded segment, one dynamic section.
fn shared_object(machine: u16, soname: &str) -> Vec<u8> {
    let strings = 64 + 2 * 56;
    let dynamic = (strings + 1 + soname.len() + 1).next_multiple_of(8);
    let size = (dynamic + 3 * 16) as u64;
    let mut out = b"\x7fELF\x02\x01\x01".to_vec();
    out.resize(16, 0);
    out.extend([3_u16, machine].iter().flat_map(|half| half.to_le_bytes()));
    out.extend(1_u32.to_le_bytes());
    out.extend([0_u64, 64, 0].iter().flat_map(|word| word.to_le_bytes()));
    out.extend(0_u32.to_le_bytes());
    out.extend([64_u16, 56, 2, 64, 0, 0].iter().flat_map(|half| half.to_le_bytes()));
    for (kind, offset, length) in [(1_u32, 0, size), (2, dynamic as u64, 48)] {
        out.extend(kind.to_le_bytes());
        out.extend(4_u32.to_le_bytes());
        out.extend(
            [offset, offset, offset, length, length, 8].iter().flat_map(|w| w.to_le_bytes()),
        );
    }
    out.push(0);
    out.extend(soname.as_bytes());
    out.resize(dynamic, 0);
    for word in [5, strings as u64, 14, 1, 0, 0] {
        out.extend(word.to_le_bytes());
    }
    out
}

#[test]
fn other_machines_have_their_own_flags() {
    const EM_AARCH64: u16 = 183;
    let ldconfig = Ldconfig::new(Machine::Arm64, "Debian", "2.36-9").unwrap();
    let library = elf::inspect(&ldconfig, &shared_object(EM_AARCH64, "libx.so.1")).unwrap();
    assert_eq!((library.flags, library.soname.as_deref()), (0x0a03, Some("libx.so.1")));
    let amd64 = Ldconfig::new(Machine::Amd64, "Debian", "2.36-9").unwrap();
    assert_eq!(elf::inspect(&amd64, &shared_object(EM_AARCH64, "libx.so.1")), None);
}

#[test]
fn a_soname_with_slashes_places_no_link() {
    let ldconfig = Ldconfig::new(Machine::Amd64, "Debian", "2.36-9").unwrap();
    for (soname, links) in
        [("libx.so.1", 1), ("../../etc/passwd", 0), ("", 0), ("..", 0), ("a/b", 0), ("/x", 0)]
    {
        let mut root = MemoryRoot::default();
        root.file("usr/lib/libx.so.1.0", 0o644, &shared_object(62, soname));
        let cache = ldconfig.run(&root).unwrap();
        assert_eq!(cache.links.len(), links, "{soname:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn hostile_files_never_panic(
        changes in proptest::collection::vec((0_usize..2048, any::<u8>()), 0..40),
        cut in 0_usize..20_000,
        tail in any::<bool>(),
    ) {
        let mut content = match samples(1).pop() {
            Some(sample) => fs::read(sample).unwrap(),
            None => shared_object(62, "libx.so.1"),
        };
        let length = content.len();
        for (at, byte) in changes {
            // Headers and program headers stand first, the dynamic section last.
            let at = if tail { length - 1 - at % length } else { at % length };
            content[at] = byte;
        }
        content.truncate(length - cut % length);
        for machine in [Machine::Amd64, Machine::Arm64, Machine::Armhf, Machine::I386] {
            for version in ["2.36-9", "2.41-12"] {
                let ldconfig = Ldconfig::new(machine, "Debian", version).unwrap();
                let _ = elf::inspect(&ldconfig, &content);
            }
        }
    }

    #[test]
    fn names_are_totally_ordered(names in proptest::collection::vec("[a.0-9é]{0,14}", 3)) {
        for machine in [Machine::Amd64, Machine::Arm64] {
            let order = |a: usize, b: usize| {
                super::cache_file::compare_names(machine, &names[a], &names[b])
            };
            prop_assert_eq!(order(0, 1), order(1, 0).reverse());
            if order(0, 1).is_le() && order(1, 2).is_le() {
                prop_assert!(order(0, 2).is_le());
            }
        }
    }
}
