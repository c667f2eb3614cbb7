//! Measures how long a sandbox takes to start, run one command and end, for `benches/run`.
//!
//! ```text
//! sandbox_start FOLDER TREES ROUNDS
//! ```
//!
//! Makes a root of so many trees in a store in the folder, and prints a line for each round: the milliseconds
//! from an open session to a closed root, and those that bwrap takes for `true` with as many
//! read-only binds, since Debian's knows no overlays. The last line is the time of a session.

use std::error::Error;
use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Instant;

use drystone_builder::sandbox::{
    Command, IdMap, Resources, RootRequest, Session, helper_main_if_requested,
};
use drystone_store::store::Store;
use drystone_store::tar::TreeWriter;
use drystone_store::tree::{Entry, TreePath, TreeSpool};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    helper_main_if_requested();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, trees, rounds] = arguments.as_slice() else {
        return Err("give FOLDER TREES ROUNDS".into());
    };
    let (folder, trees) = (Path::new(folder), trees.parse::<usize>()?);
    // Roots stand in a store's own directory for what passes, as those of builds do.
    let store = Store::open(folder)?;
    let folder = store.temporary_directory();
    let map = IdMap::discover()?;
    let begin = Instant::now();
    let session = Session::start(&map)?;
    let started = begin.elapsed();
    let lower = lay_out(&session, folder, trees)?;
    for round in 0..rounds.parse::<usize>()? {
        let place = folder.join(format!("round-{round}"));
        std::fs::create_dir(&place)?;
        let begin = Instant::now();
        run(&session, &lower, &place)?;
        let ours = begin.elapsed().as_secs_f64() * 1e3;
        session.remove(&place.join("upper"))?;
        session.remove(&place.join("work"))?;
        let begin = Instant::now();
        peer(&lower)?;
        println!("{ours:.2} {:.2}", begin.elapsed().as_secs_f64() * 1e3);
    }
    for tree in &lower {
        session.remove(tree)?;
    }
    println!("{:.2}", started.as_secs_f64() * 1e3);
    Ok(())
}

fn run(session: &Session, lower: &[PathBuf], place: &Path) -> Outcome<()> {
    let request = RootRequest::configure(lower.to_vec(), place.join("upper"), place.join("work"));
    let root = session.open_root(&request)?;
    let mut command = Command::new(["/usr/bin/true"]);
    command.resources = Resources::usual();
    if !root.execute(&command, None)?.success() {
        return Err("true failed".into());
    }
    Ok(root.close()?)
}

fn peer(lower: &[PathBuf]) -> Outcome<()> {
    let mut command = std::process::Command::new("bwrap");
    command.args(["--unshare-all", "--ro-bind", "/", "/", "--tmpfs", "/tmp"]);
    for (number, tree) in lower.iter().enumerate() {
        command.arg("--ro-bind").arg(tree).arg(format!("/tmp/{number}"));
    }
    match command.args(["--proc", "/proc", "--dev", "/dev", "/usr/bin/true"]).status()?.success() {
        true => Ok(()),
        false => Err("bwrap failed".into()),
    }
}

/// Trees of one file each, and one with `true` and its libraries; the topmost first.
fn lay_out(session: &Session, folder: &Path, trees: usize) -> Outcome<Vec<PathBuf>> {
    let mut lower = Vec::new();
    for number in 1..trees {
        let mut spool = TreeSpool::new(folder);
        let path = TreePath::new(format!("usr/share/doc/package-{number}/copyright"))?;
        spool.add_file(path, 0o644, b"free")?;
        // As long as names in a store are.
        let tree = folder.join(format!("{number:0>52}-some-package_1.2.3-4"));
        session.checkout(tar(&mut spool)?, &tree)?;
        lower.push(tree);
    }
    let mut spool = TreeSpool::new(folder);
    for name in ["lib", "lib64"] {
        spool.add_empty(Entry::symlink(TreePath::new(name)?, format!("usr/{name}")))?;
    }
    let output = std::process::Command::new("ldd").arg("/usr/bin/true").output()?;
    let listed = String::from_utf8(output.stdout)?;
    let libraries = listed.split_whitespace().filter(|word| word.starts_with('/'));
    for file in libraries.chain(["/usr/bin/true"]) {
        let place = match file.strip_prefix("/usr/") {
            Some(_) => file[1..].to_owned(),
            None => format!("usr{file}"),
        };
        spool.add_file(TreePath::new(&place)?, 0o755, &std::fs::read(file)?)?;
    }
    let tree = folder.join("base");
    session.checkout(tar(&mut spool)?, &tree)?;
    lower.push(tree);
    Ok(lower)
}

fn tar(spool: &mut TreeSpool) -> Outcome<File> {
    let mut file = tempfile::tempfile()?;
    let mut writer = TreeWriter::new(std::io::BufWriter::new(&mut file));
    spool.write(&mut writer)?;
    writer.finish()?.into_inner().map_err(|error| error.into_error())?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}
