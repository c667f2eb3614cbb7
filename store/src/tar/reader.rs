//! Reading the canonical tar, and nothing but the canonical tar.

use std::io::{self, Read};

use super::header::{self, HeaderError};
use super::order::OrderCheck;
use super::{BLOCK, OrderError, padding};
use crate::tree::Entry;

/// The largest body of a PAX header that is read, in bytes: many times what any entry of a tree
/// can need (xattrs are at most 64 KiB each).
const MAX_PAX_BODY: u64 = 16 << 20;

/// Why a stream is not a canonical tar.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The stream ends within an entry or before its end marker.
    #[error("the tree's stream is cut off")]
    Truncated,
    /// The header blocks mean nothing, or mean something that a tree cannot hold.
    #[error("entry {number} of the tree is malformed: {problem}")]
    Malformed {
        /// Number of the entry, from 1.
        number: u64,
        /// What is wrong.
        problem: String,
    },
    /// The entry could have been written in another way.
    #[error("entry {number} of the tree is not in canonical form")]
    NotCanonical {
        /// Number of the entry, from 1.
        number: u64,
    },
    /// An entry breaks a rule of the format.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// The stream could not be read.
    #[error("cannot read the tree's stream")]
    Io(#[from] io::Error),
}

/// Reads a canonical tar entry by entry. Any deviation from the canonical form is an error, so
/// a stream that was read to its end is exactly what [`super::TreeWriter`] would write.
pub struct TreeReader<R> {
    inner: R,
    check: OrderCheck,
    number: u64,
    /// Content and padding of the current entry that is still in the stream.
    content_left: u64,
    padding_left: usize,
    ended: bool,
}

impl<R: Read> TreeReader<R> {
    /// Starts to read a tree.
    pub fn new(inner: R) -> Self {
        let check = OrderCheck::default();
        Self { inner, check, number: 0, content_left: 0, padding_left: 0, ended: false }
    }

    /// The next entry; `None` at the end. Content that was not read is skipped.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, ReadError> {
        if self.ended {
            return Ok(None);
        }
        self.skip_content()?;
        self.number += 1;
        let mut raw = Vec::with_capacity(BLOCK);
        let mut block = self.read_block()?;
        if block == [0; BLOCK] {
            return self.read_end();
        }
        raw.extend(block);
        let mut records = std::collections::BTreeMap::new();
        if header::is_pax(&block) {
            let size = header::claimed_size(&block).map_err(|error| self.malformed(error))?;
            if size > MAX_PAX_BODY {
                return Err(self.malformed(HeaderError::Record));
            }
            let length = raw.len() + size as usize + padding(size);
            let start = raw.len();
            raw.resize(length, 0);
            read_exact(&mut self.inner, &mut raw[start..])?;
            records = header::decode_records(&raw[start..start + size as usize])
                .map_err(|error| self.malformed(error))?;
            block = self.read_block()?;
            raw.extend(block);
        }
        let entry = header::decode(&block, &records).map_err(|error| self.malformed(error))?;
        if header::encode(&entry) != raw {
            return Err(ReadError::NotCanonical { number: self.number });
        }
        self.check.check(&entry)?;
        self.content_left = entry.content_size();
        self.padding_left = padding(self.content_left);
        Ok(Some(entry))
    }

    /// The content of the entry that was read last.
    pub fn content(&mut self) -> impl Read + '_ {
        Content { reader: self }
    }

    /// Ends reading: the stream must have been read to its end, with nothing behind it.
    pub fn finish(mut self) -> Result<R, ReadError> {
        while self.next_entry()?.is_some() {}
        let mut byte = [0];
        if read_some(&mut self.inner, &mut byte)? != 0 {
            return Err(ReadError::Malformed {
                number: self.number,
                problem: "bytes follow the end marker".into(),
            });
        }
        Ok(self.inner)
    }

    fn skip_content(&mut self) -> Result<(), ReadError> {
        io::copy(&mut self.content(), &mut io::sink())?;
        let mut block = [0; BLOCK];
        let padding = &mut block[..self.padding_left];
        read_exact(&mut self.inner, padding)?;
        if padding.iter().any(|&byte| byte != 0) {
            return Err(ReadError::NotCanonical { number: self.number });
        }
        self.padding_left = 0;
        Ok(())
    }

    fn read_end(&mut self) -> Result<Option<Entry>, ReadError> {
        if self.read_block()? != [0; BLOCK] {
            return Err(ReadError::NotCanonical { number: self.number });
        }
        self.ended = true;
        Ok(None)
    }

    fn read_block(&mut self) -> Result<[u8; BLOCK], ReadError> {
        let mut block = [0; BLOCK];
        read_exact(&mut self.inner, &mut block)?;
        Ok(block)
    }

    fn malformed(&self, error: HeaderError) -> ReadError {
        ReadError::Malformed { number: self.number, problem: error.to_string() }
    }
}

struct Content<'a, R> {
    reader: &'a mut TreeReader<R>,
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.reader.content_left).unwrap_or(usize::MAX);
        let want = buffer.len().min(left);
        if want == 0 {
            return Ok(0);
        }
        let count = self.reader.inner.read(&mut buffer[..want])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.reader.content_left -= count as u64;
        Ok(count)
    }
}

fn read_exact(reader: &mut impl Read, buffer: &mut [u8]) -> Result<(), ReadError> {
    reader.read_exact(buffer).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => ReadError::Truncated,
        _ => ReadError::Io(error),
    })
}

fn read_some(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::{TreeWriter, WriteError};
    use super::*;
    use crate::tree::{Kind, TreePath};

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    fn write(entries: &[(Entry, Vec<u8>)]) -> Result<Vec<u8>, WriteError> {
        let mut writer = TreeWriter::new(Vec::new());
        for (entry, content) in entries {
            writer.append(entry, &mut content.as_slice())?;
        }
        writer.finish()
    }

    fn read(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, ReadError> {
        let mut reader = TreeReader::new(bytes);
        let mut entries = Vec::new();
        while let Some(entry) = reader.next_entry()? {
            let mut content = Vec::new();
            reader.content().read_to_end(&mut content)?;
            entries.push((entry, content));
        }
        reader.finish()?;
        Ok(entries)
    }

    /// A tree that uses every feature of the format; golden bytes are made from it.
    pub(crate) fn sample() -> Vec<(Entry, Vec<u8>)> {
        let long = "d".repeat(90);
        let mut with_xattr = Entry::file(path("bin/ping"), 0o755, 4);
        with_xattr.xattrs.insert("security.capability".into(), vec![1, 0, 0, 2, 0, 255, 10, 0]);
        let mut big_owner = Entry::file(path("srv/owned"), 0o4755, 0);
        (big_owner.uid, big_owner.gid) = (3_000_000, 33);
        let longest = format!("srv/{}", "é".repeat(60));
        vec![
            (Entry::directory(path("bin")), vec![]),
            (with_xattr, b"ping".to_vec()),
            (Entry::symlink(path("bin/sh"), "dash"), vec![]),
            (Entry::directory(path(&long)), vec![]),
            (Entry::directory(path(&format!("{long}/{long}"))), vec![]),
            (Entry::file(path(&format!("{long}/{long}/f")), 0o644, 600), vec![7; 600]),
            (Entry::directory(path("etc")), vec![]),
            (Entry::deletion(&path("etc/motd")).unwrap(), vec![]),
            (Entry::directory(path("srv")), vec![]),
            (Entry::opaque(&path("srv")).unwrap(), vec![]),
            (Entry::symlink(path("srv/far"), "x/".repeat(80)), vec![]),
            (
                Entry {
                    kind: Kind::HardLink { target: path("bin/ping") },
                    ..Entry::file(path("srv/link"), 0o755, 0)
                },
                vec![],
            ),
            (big_owner, vec![]),
            (Entry::file(path(&longest), 0o600, 1), b"u".to_vec()),
        ]
    }

    #[test]
    fn every_feature_round_trips() {
        let entries = sample();
        let bytes = write(&entries).unwrap();
        assert_eq!(read(&bytes).unwrap(), entries);
    }

    #[test]
    fn golden_bytes_are_frozen() {
        // Changing this value means that every store path in the world changes.
        let bytes = write(&sample()).unwrap();
        assert_eq!(
            blake3::hash(&bytes).to_hex().as_str(),
            include_str!("../../tests/golden/canonical-tar.blake3").trim()
        );
    }

    #[test]
    fn gnu_tar_reads_what_is_written() {
        let bytes = write(&sample()).unwrap();
        let mut child = std::process::Command::new("tar")
            .args(["-tvf", "-", "--numeric-owner"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .env("TZ", "UTC")
            .spawn()
            .unwrap();
        io::Write::write_all(child.stdin.as_mut().unwrap(), &bytes).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.lines().count(), sample().len());
        assert!(text.contains("-rwsr-xr-x 3000000/33"), "{text}");
        assert!(text.lines().all(|line| line.contains("1980-01-01 00:00")), "{text}");
        assert!(text.contains("srv/link link to bin/ping"), "{text}");
    }

    #[test]
    fn broken_rules_are_refused_by_name() {
        let file = |name: &str| (Entry::file(path(name), 0o644, 0), vec![]);
        let order = |entries: &[(Entry, Vec<u8>)]| match write(entries) {
            Err(WriteError::Order(error)) => error,
            other => panic!("{other:?}"),
        };
        assert!(matches!(order(&[file("b"), file("a")]), OrderError::NotSorted { .. }));
        assert!(matches!(order(&[file("a"), file("a")]), OrderError::NotSorted { .. }));
        assert!(matches!(order(&[file("a/b")]), OrderError::NoParent { .. }));
        assert!(matches!(order(&[file("a"), file("a/b")]), OrderError::NoParent { .. }));
        assert!(matches!(order(&[file(".wh.a")]), OrderError::BadValue { .. }));
        let link = Kind::HardLink { target: path("z") };
        let link = Entry { kind: link, ..Entry::file(path("a"), 0o644, 0) };
        assert!(matches!(order(&[(link, vec![])]), OrderError::BadLink { .. }));
        let mut selinux = Entry::file(path("a"), 0o644, 0);
        selinux.xattrs.insert("security.selinux".into(), vec![1]);
        assert!(matches!(order(&[(selinux, vec![])]), OrderError::BadValue { .. }));
        let short = (Entry::file(path("a"), 0o644, 3), b"ab".to_vec());
        assert!(matches!(write(&[short]), Err(WriteError::Size { .. })));
        let long = (Entry::file(path("a"), 0o644, 1), b"ab".to_vec());
        assert!(matches!(write(&[long]), Err(WriteError::Size { .. })));
    }

    #[test]
    fn only_the_canonical_form_is_read() {
        let good = write(&sample()).unwrap();
        assert!(matches!(read(&good[..good.len() - 1]), Err(ReadError::Truncated)));
        assert!(matches!(read(&good[..700]), Err(ReadError::Truncated | ReadError::Io(_))));
        let mut trailing = good.clone();
        trailing.push(0);
        assert!(read(&trailing).is_err());
        for at in 0..BLOCK {
            let mut changed = good.clone();
            changed[at] ^= 1;
            assert!(read(&changed).is_err(), "byte {at} of the first header does not matter");
        }
    }

    fn entries() -> impl Strategy<Value = Vec<(Entry, Vec<u8>)>> {
        let name = "[a-zé]{1,3}|[b-c]{101}";
        let item = (
            proptest::collection::vec(name, 1..4),
            0u32..0o10000,
            any::<u32>(),
            proptest::collection::vec(any::<u8>(), 0..1100),
            0u8..4,
            proptest::option::of("[a-z]{1,5}"),
        );
        proptest::collection::vec(item, 0..12).prop_map(|items| {
            let mut tree: BTreeMap<TreePath, (Entry, Vec<u8>)> = BTreeMap::new();
            for (parts, mode, uid, content, kind, xattr) in items {
                let full = path(&parts.join("/"));
                let mut parent = full.parent();
                let mut blocked = tree.contains_key(&full);
                while let Some(directory) = parent {
                    parent = directory.parent();
                    let entry = (Entry::directory(directory.clone()), vec![]);
                    let there = tree.entry(directory).or_insert(entry);
                    blocked |= there.0.kind != Kind::Directory;
                }
                if blocked {
                    continue;
                }
                let mut entry = match kind {
                    0 => Entry { mode, ..Entry::directory(full.clone()) },
                    1 => Entry::symlink(full.clone(), "t".repeat(content.len() % 200 + 1)),
                    _ => Entry::file(full.clone(), mode, content.len() as u64),
                };
                (entry.uid, entry.gid) = (uid, uid / 2);
                if let Some(xattr) = xattr {
                    entry.xattrs.insert(format!("user.{xattr}"), content.clone());
                }
                let content = if entry.content_size() > 0 { content } else { vec![] };
                tree.insert(full, (entry, content));
            }
            // Parents that were blocked half-way may lack their own parents' kind: drop those.
            tree.into_values().collect()
        })
    }

    proptest! {
        #[test]
        fn parse_of_encode_is_identity(entries in entries()) {
            let bytes = write(&entries);
            prop_assume!(bytes.is_ok());
            let bytes = bytes.unwrap();
            prop_assert_eq!(bytes.len() % BLOCK, 0);
            prop_assert_eq!(read(&bytes).unwrap(), entries);
        }

        #[test]
        fn hostile_bytes_never_panic(noise in proptest::collection::vec(any::<u8>(), 0..2048)) {
            let _ = read(&noise);
        }

        #[test]
        fn flipped_bytes_never_panic(at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut bytes = write(&sample()).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let _ = read(&bytes);
        }
    }
}
