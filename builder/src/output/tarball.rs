//! Writes tar archives whose bytes depend on nothing but names and contents.
//!
//! POSIX ustar: owner 0:0 without names, one time for all, fixed modes. A PAX record appears only
//! for a size that ustar cannot hold (8 GiB and more), and as padding: contents of large files start at
//! multiples of [`ALIGNMENT`], so that file systems with reflinks can share the blocks of the
//! source instead of copying them. The padding is a `comment` record, which POSIX has readers ignore.

use std::io::{self, Write};

/// The modification time of everything: 1980-01-01T00:00:00Z, as in canonical trees.
const MTIME: u64 = 315_532_800;

/// Where the contents of large files start: the block size of file systems that have reflinks.
pub(super) const ALIGNMENT: u64 = 4096;

/// Files from this size on are aligned; below it padding would cost more than sharing saves.
const ALIGN_FROM: u64 = 64 * 1024;

const BLOCK: u64 = 512;

/// The largest size that eleven octal digits hold.
const USTAR_SIZE_LIMIT: u64 = 0o777_7777_7777;

/// Writes one archive; [`Tarball::finish`] ends it.
pub(super) struct Tarball<W> {
    inner: W,
    position: u64,
}

impl<W: Write> Tarball<W> {
    /// Starts an archive at the beginning of `inner`.
    pub(super) const fn new(inner: W) -> Self {
        Self { inner, position: 0 }
    }

    /// Adds a directory.
    pub(super) fn directory(&mut self, path: &str) -> io::Result<()> {
        let header = header(path, b'5', 0o755, 0);
        self.write(&header)
    }

    /// Adds a file with this content.
    pub(super) fn file(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        self.begin_file(path, content.len() as u64)?;
        self.inner.write_all(content)?;
        self.end_file(content.len() as u64)
    }

    /// Writes what stands before a file's content. The caller then writes exactly `size` bytes to
    /// [`Tarball::inner`] and calls [`Tarball::end_file`].
    pub(super) fn begin_file(&mut self, path: &str, size: u64) -> io::Result<()> {
        let records = if size > USTAR_SIZE_LIMIT {
            pax_record("size", &size.to_string())
        } else {
            String::new()
        };
        let records = if size >= ALIGN_FROM { self.pad(records) } else { records };
        if !records.is_empty() {
            self.write(&header("pax", b'x', 0o644, records.len() as u64))?;
            self.write(records.as_bytes())?;
            self.fill()?;
        }
        self.write(&header(path, b'0', 0o644, size))
    }

    /// What the content is written to.
    pub(super) const fn inner(&mut self) -> &mut W {
        &mut self.inner
    }

    /// Counts the content that was written to [`Tarball::inner`] and fills its last block.
    pub(super) fn end_file(&mut self, size: u64) -> io::Result<()> {
        self.position += size;
        self.fill()
    }

    /// Ends the archive with two empty blocks; its size in bytes comes with the stream.
    pub(super) fn finish(mut self) -> io::Result<(W, u64)> {
        self.write(&[0; 2 * BLOCK as usize])?;
        self.inner.flush()?;
        Ok((self.inner, self.position))
    }

    /// Adds a comment to `records` such that the content will be aligned.
    fn pad(&self, records: String) -> String {
        if records.is_empty() && (self.position + BLOCK).is_multiple_of(ALIGNMENT) {
            return records;
        }
        // Two headers, the records' and the file's, stand before the content besides the records.
        let start = self.position + 2 * BLOCK + records.len() as u64;
        let shortest = pax_record("comment", "").len() as u64;
        let length = (start + shortest).next_multiple_of(ALIGNMENT) - start;
        // A record begins with its own length, so any length from the shortest on has a comment.
        let framing = length.to_string().len() as u64 + (" comment=".len() + "\n".len()) as u64;
        let comment = " ".repeat(length.saturating_sub(framing) as usize);
        format!("{records}{length} comment={comment}\n")
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.inner.write_all(bytes)?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    fn fill(&mut self) -> io::Result<()> {
        let missing = self.position.next_multiple_of(BLOCK) - self.position;
        self.write(&[0; BLOCK as usize][..missing as usize])
    }
}

/// One ustar header. `path` and `size` must fit, which names of this module's callers do.
fn header(path: &str, kind: u8, mode: u32, size: u64) -> [u8; BLOCK as usize] {
    let mut block = [0; BLOCK as usize];
    let mut put = |offset: usize, text: &str| {
        block[offset..offset + text.len()].copy_from_slice(text.as_bytes());
    };
    debug_assert!(path.len() <= 100, "names in an image archive are at most 76 bytes long");
    put(0, path);
    put(100, &format!("{mode:07o}"));
    put(108, "0000000");
    put(116, "0000000");
    // With a PAX record the ustar field is not read; 0 is what it then holds by custom.
    let size = if size > USTAR_SIZE_LIMIT { 0 } else { size };
    put(124, &format!("{size:011o}"));
    put(136, &format!("{MTIME:011o}"));
    put(148, "        ");
    put(257, "ustar\0");
    put(263, "00");
    put(329, "0000000");
    put(337, "0000000");
    block[156] = kind;
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// One PAX record: its own length in decimal, a key, a value.
fn pax_record(key: &str, value: &str) -> String {
    let rest = key.len() + value.len() + " =\n".len();
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    format!("{length} {key}={value}\n")
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// Stands for content too large to write in a test.
    struct Holes {
        blocks: Vec<u8>,
        skipped: u64,
    }

    impl Write for Holes {
        fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
            self.blocks.extend_from_slice(buffer);
            Ok(buffer.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn another_reader_finds_what_was_written_and_large_contents_are_aligned() {
        for first in [0, 1, 511, 512, 2048, 2560, 3000, 3072, 3584, 70_000] {
            let large = vec![7; 100_000];
            let mut tarball = Tarball::new(Vec::new());
            tarball.directory("blobs/").unwrap();
            tarball.file("small", &vec![1; first]).unwrap();
            tarball.file("blobs/large", &large).unwrap();
            let (bytes, size) = tarball.finish().unwrap();
            assert_eq!(bytes.len() as u64, size);
            assert_eq!(bytes.len() % 512, 0);
            let mut archive = tar::Archive::new(bytes.as_slice());
            let mut found = Vec::new();
            for entry in archive.entries().unwrap() {
                let mut entry = entry.unwrap();
                let name = entry.path().unwrap().display().to_string();
                assert_eq!(entry.header().mtime().unwrap(), MTIME);
                assert_eq!((entry.header().uid().unwrap(), entry.header().gid().unwrap()), (0, 0));
                if name == "blobs/large" {
                    assert_eq!(entry.raw_file_position() % ALIGNMENT, 0, "after {first} bytes");
                }
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                found.push((name, content));
            }
            assert_eq!(found[1], ("small".to_owned(), vec![1; first]));
            assert_eq!(found[2], ("blobs/large".to_owned(), large));
        }
    }

    #[test]
    fn sizes_beyond_ustar_are_pax_records() {
        let size = 9 << 30;
        let mut tarball = Tarball::new(Holes { blocks: Vec::new(), skipped: 0 });
        tarball.begin_file("huge", size).unwrap();
        tarball.inner().skipped += size;
        tarball.end_file(size).unwrap();
        assert_eq!((tarball.position - size) % ALIGNMENT, 0);
        let (holes, _) = tarball.finish().unwrap();
        assert_eq!(holes.skipped, size);
        let mut archive = tar::Archive::new(holes.blocks.as_slice());
        let entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.size(), size);
    }

    #[test]
    fn records_count_their_own_length() {
        assert_eq!(pax_record("size", "9663676416"), "19 size=9663676416\n");
        for length in 0..1200 {
            let record = pax_record("k", &"x".repeat(length));
            let (number, _) = record.split_once(' ').unwrap();
            assert_eq!(number.parse::<usize>().unwrap(), record.len());
        }
    }
}
