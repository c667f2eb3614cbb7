//! The samples of canonical tars: valid ones, and ones that break one rule each.

use drystone_store::tar::TreeWriter;
use drystone_store::tree::{Entry, Kind, TreePath};

use super::mutate::mend_tar;

fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

fn write(entries: &[(Entry, &[u8])]) -> Vec<u8> {
    let mut writer = TreeWriter::new(Vec::new());
    for (entry, content) in entries {
        writer.append(entry, &mut &**content).unwrap();
    }
    writer.finish().unwrap()
}

/// Every kind of entry.
fn everything() -> Vec<u8> {
    let mut tool = Entry::file(path("bin/tool"), 0o4755, 4);
    tool.xattrs.insert("security.capability".into(), vec![1, 0, 0, 2, 0, 4, 0, 0]);
    let mut link = Entry::file(path("bin/twin"), 0o4755, 0);
    link.kind = Kind::HardLink { target: path("bin/tool") };
    let mut owned = Entry::directory(path("srv"));
    (owned.uid, owned.gid) = (3_000_000, 33);
    let long = format!("srv/{}", "é".repeat(70));
    write(&[
        (Entry::directory(path("bin")), b""),
        (tool, b"tool"),
        (link, b""),
        (Entry::directory(path("etc")), b""),
        (Entry::deletion(&path("etc/motd")).unwrap(), b""),
        (owned, b""),
        (Entry::opaque(&path("srv")).unwrap(), b""),
        (Entry::symlink(path(&long), "../".repeat(40)), b""),
    ])
}

/// One file below a directory: headers in blocks 0 and 1, the content in block 2.
fn small() -> Vec<u8> {
    write(&[(Entry::directory(path("etc")), b""), (Entry::file(path("etc/x"), 0o644, 5), b"hello")])
}

/// The small tree with some bytes replaced, checksums mended.
fn spoiled(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut tar = small();
    tar[at..at + bytes.len()].copy_from_slice(bytes);
    mend_tar(&mut tar);
    tar
}

/// Where the file's header starts.
const FILE: usize = 512;

/// All samples by name.
pub fn tars() -> Vec<(&'static str, Vec<u8>)> {
    let good = small();
    let mut wrong_sum = good.clone();
    wrong_sum[FILE + 148] ^= 1;
    let mut padded = good.clone();
    padded[FILE + 512 + 100] = 1;
    let blocks = |order: &[usize]| -> Vec<u8> {
        order.iter().flat_map(|at| good[at * 512..(at + 1) * 512].to_vec()).collect()
    };
    vec![
        ("valid-empty", write(&[])),
        ("valid-small", good.clone()),
        ("valid-everything", everything()),
        ("refused-nothing", Vec::new()),
        ("refused-cut-off", good[..1100].to_vec()),
        ("refused-no-end", good[..good.len() - 512].to_vec()),
        ("refused-bytes-behind-the-end", [&good[..], &[0; 512]].concat()),
        ("refused-wrong-checksum", wrong_sum),
        ("refused-padding-with-content", padded),
        ("refused-missing-parent", blocks(&[1, 2, 3, 4])),
        ("refused-file-twice", blocks(&[0, 1, 2, 1, 2, 3, 4])),
        ("refused-out-of-order", blocks(&[0, 0, 1, 2, 3, 4])),
        ("refused-path-leaves-the-tree", spoiled(FILE, b"etc/../x\0")),
        ("refused-absolute-path", spoiled(FILE, b"/etc/x\0")),
        ("refused-device-node", spoiled(FILE + 156, b"3")),
        ("refused-other-time", spoiled(FILE + 136, b"00000000001")),
        ("refused-owner-name", spoiled(FILE + 265, b"root")),
        ("refused-size-beyond-the-end", spoiled(FILE + 124, b"77777777777")),
        ("refused-size-in-base-256", spoiled(FILE + 124, &[0x80, 0xff, 0xff, 0xff, 0xff])),
        (
            "refused-pax-of-gigabytes",
            spoiled(FILE + 124, b"77777777777\x0000000000000\x00000000\0 x"),
        ),
        ("refused-link-to-nothing", spoiled(FILE + 156, b"1etc/missing")),
    ]
}
