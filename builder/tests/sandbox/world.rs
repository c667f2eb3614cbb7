//! A place on disk and a small root file system, made of the host's own programs.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

use drystone_builder::sandbox::{IdMap, Root, RootRequest, Session, Storage};
use drystone_store::tar::TreeWriter;
use drystone_store::tree::{Entry, TreePath, TreeSpool};

/// Programs of the base tree besides the shell.
const PROGRAMS: &[&str] = &[
    "sh", "cat", "chmod", "chown", "cp", "env", "id", "ln", "ls", "mkdir", "mkfifo", "mknod", "mv",
    "readlink", "rm", "rmdir", "sleep", "stat", "touch", "true", "umask", "uname", "head",
];

static WORLD: OnceLock<World> = OnceLock::new();
static NEXT: AtomicU32 = AtomicU32::new(0);

/// What all tests share.
pub struct World {
    place: Mutex<Option<tempfile::TempDir>>,
    /// The base tree, checked out.
    pub base: PathBuf,
}

pub fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

pub fn session() -> Session {
    Session::start(&IdMap::discover().unwrap()).unwrap()
}

pub fn world() -> &'static World {
    WORLD.get_or_init(|| {
        let place = tempfile::Builder::new().prefix("drystone-sandbox-").tempdir().unwrap();
        let base = place.path().join("base");
        session().checkout(tar(&mut base_tree(place.path())), &base).unwrap();
        World { place: Mutex::new(Some(place)), base }
    })
}

/// Deletes what tests made; much of it belongs to ids that only a session can use.
pub fn clean_up() {
    let Some(world) = WORLD.get() else { return };
    let Some(place) = world.place.lock().unwrap().take() else { return };
    let session = session();
    for entry in std::fs::read_dir(place.path()).unwrap() {
        session.remove(&entry.unwrap().path()).unwrap();
    }
}

/// A new, empty directory of the caller's.
pub fn fresh() -> PathBuf {
    let place = world().base.parent().unwrap();
    let path = place.join(format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed)));
    std::fs::create_dir(&path).unwrap();
    path
}

/// A root over `lower` (the topmost first) with its upper directory in `place`.
pub fn request(place: &Path, lower: &[&Path], storage: Option<Storage>) -> RootRequest {
    let lower = lower.iter().map(|path| path.to_path_buf()).collect();
    let mut request = RootRequest::configure(lower, place.join("upper"), place.join("work"));
    request.storage = storage;
    request
}

/// The ways of keeping changes that work here: on a container's own overlay only copies do.
pub fn storages() -> &'static [Storage] {
    static OVERLAYS: OnceLock<bool> = OnceLock::new();
    let overlays = *OVERLAYS.get_or_init(|| {
        let session = session();
        open(&session, &fresh()).storage() == Storage::Overlay
    });
    if overlays {
        return &[Storage::Overlay, Storage::Copy];
    }
    println!("skipped for overlays: the temporary directory's file system refuses them");
    &[Storage::Copy]
}

pub fn open(session: &Session, place: &Path) -> Root {
    open_over(session, place, &world().base)
}

/// A root over one tree.
pub fn open_over(session: &Session, place: &Path, base: &Path) -> Root {
    session.open_root(&request(place, &[base], None)).unwrap()
}

/// Runs a script; panics with its output when it fails. Returns its output.
pub fn shell(root: &Root, script: &str) -> String {
    let mut command = drystone_builder::sandbox::Command::new(["sh", "-e", "-c", script]);
    command.capture = true;
    let finished = root.execute(&command, None).unwrap();
    assert!(
        finished.success(),
        "{script}: {:?}\n{}",
        finished.ending,
        String::from_utf8_lossy(&finished.tail)
    );
    String::from_utf8(finished.output).unwrap()
}

/// Writes a tree as a canonical tar into an unnamed file.
pub fn tar(spool: &mut TreeSpool) -> File {
    let mut file = tempfile::tempfile().unwrap();
    let mut writer = TreeWriter::new(std::io::BufWriter::new(&mut file));
    spool.write(&mut writer).unwrap();
    writer.finish().unwrap().into_inner().unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file
}

pub fn checkout(session: &Session, spool: &mut TreeSpool, destination: &Path) {
    session.checkout(tar(spool), destination).unwrap();
}

pub fn spool() -> TreeSpool {
    TreeSpool::new(&std::env::temp_dir())
}

pub fn base_tree(place: &Path) -> TreeSpool {
    let mut spool = TreeSpool::new(place);
    for name in ["bin", "lib", "lib64", "sbin"] {
        spool.add_empty(Entry::symlink(path(name), format!("usr/{name}"))).unwrap();
    }
    let mut libraries = BTreeSet::new();
    for program in PROGRAMS {
        let Some(found) = ["/usr/bin", "/bin"]
            .iter()
            .map(|it| Path::new(it).join(program))
            .find(|it| it.exists())
        else {
            continue;
        };
        add_program(&mut spool, &found, &format!("usr/bin/{program}"), &mut libraries);
    }
    let own = std::env::current_exe().unwrap();
    add_program(&mut spool, &own, "probe", &mut libraries);
    for library in libraries {
        let place = library.trim_start_matches('/');
        let place =
            if place.starts_with("usr/") { place.to_owned() } else { format!("usr/{place}") };
        // The loader is one of them, and must be executable.
        add_file(&mut spool, Path::new(&library), &place, 0o755);
    }
    // One file with three names, as perl has; and files that tests change.
    spool.add_file(path("usr/share/one"), 0o644, b"one file").unwrap();
    for name in ["usr/share/three", "usr/share/two"] {
        let mut entry = Entry::file(path(name), 0o644, 0);
        entry.kind = drystone_store::tree::Kind::HardLink { target: path("usr/share/one") };
        spool.add_empty(entry).unwrap();
    }
    for name in ["a", "b", "c"] {
        spool.add_file(path(&format!("etc/dir/{name}")), 0o644, name.as_bytes()).unwrap();
    }
    spool.add_file(path("etc/kept/inner/file"), 0o600, b"kept").unwrap();
    spool.add_empty(Entry::symlink(path("etc/link"), "dir/a")).unwrap();
    spool
}

fn add_program(
    spool: &mut TreeSpool,
    program: &Path,
    place: &str,
    libraries: &mut BTreeSet<String>,
) {
    add_file(spool, program, place, 0o755);
    let listed = std::process::Command::new("ldd").arg(program).output().unwrap();
    for word in String::from_utf8_lossy(&listed.stdout).split_whitespace() {
        if word.starts_with('/') && Path::new(word).is_file() {
            libraries.insert(word.to_owned());
        }
    }
}

fn add_file(spool: &mut TreeSpool, source: &Path, place: &str, mode: u32) {
    let mut file = File::open(source).unwrap();
    let size = file.metadata().unwrap().len();
    spool.add(Entry::file(path(place), mode, size), &mut file).unwrap();
}
