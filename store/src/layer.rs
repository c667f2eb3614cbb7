//! Layers: a canonical tar, compressed in a way that a name pins to the byte.
//!
//! Both compressions cut the stream into blocks of a fixed size and compress each alone, so the
//! bytes depend neither on the sizes of writes nor on the number of threads, and blocks are
//! compressed in parallel. `docs/formats/layer.md` freezes them; golden files guard them.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::digest::{BlobDigest, DiffId};

/// Uncompressed bytes in one gzip member. Shapes bytes.
const GZIP_BLOCK: usize = 1 << 20;
/// The level of libdeflate. Shapes bytes.
const GZIP_LEVEL: i32 = 6;
/// Uncompressed bytes in one zstd frame. Shapes bytes.
const ZSTD_BLOCK: usize = 4 << 20;
/// The level of zstd. Shapes bytes.
const ZSTD_LEVEL: i32 = 6;
/// The level of zstd for trees in a store. Shapes bytes.
const STORE_LEVEL: i32 = 1;
/// Blocks that are compressed at a time; bounds memory, shapes nothing.
const BATCH: usize = 4;

/// How a layer is compressed: names code, level and block size, and so the bytes.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub enum Compression {
    /// Independent gzip members (RFC 1952) of 1 MiB, libdeflate level 6. Every client reads it.
    #[default]
    #[serde(rename = "gzip-1")]
    Gzip1,
    /// Independent zstd frames (RFC 8878) of 4 MiB, level 6. Docker before 23 refuses it.
    #[serde(rename = "zstd-1")]
    Zstd1,
    /// Independent zstd frames of 4 MiB, level 1: how stores keep trees that are in no image as
    /// they are. No image has such a layer.
    #[serde(rename = "store-1")]
    Store1,
}

/// A name of no compression that this version knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown compression {0:?}: expected \"gzip-1\", \"zstd-1\" or \"store-1\"")]
pub struct UnknownCompression(String);

impl Compression {
    /// The compression id that is written into layer descriptors.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Gzip1 => "gzip-1",
            Self::Zstd1 => "zstd-1",
            Self::Store1 => "store-1",
        }
    }

    /// The OCI media type of a layer with this compression.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Gzip1 => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd1 | Self::Store1 => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }

    const fn block(self) -> usize {
        match self {
            Self::Gzip1 => GZIP_BLOCK,
            Self::Zstd1 | Self::Store1 => ZSTD_BLOCK,
        }
    }

    fn compress(self, block: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip1 => {
                let level = libdeflater::CompressionLvl::new(GZIP_LEVEL)
                    .expect("the level is one that libdeflate has");
                let mut compressor = libdeflater::Compressor::new(level);
                let mut output = vec![0; compressor.gzip_compress_bound(block.len())];
                let length = compressor
                    .gzip_compress(block, &mut output)
                    .map_err(|error| io::Error::other(format!("libdeflate: {error}")))?;
                output.truncate(length);
                Ok(output)
            }
            Self::Zstd1 => zstd::bulk::compress(block, ZSTD_LEVEL),
            Self::Store1 => zstd::bulk::compress(block, STORE_LEVEL),
        }
    }

    /// A reader of the uncompressed stream.
    pub fn decompress<'a>(
        self,
        reader: impl Read + Send + 'a,
    ) -> io::Result<Box<dyn Read + Send + 'a>> {
        Ok(match self {
            // Plain `GzDecoder` stops after the first member.
            Self::Gzip1 => Box::new(flate2::read::MultiGzDecoder::new(reader)),
            Self::Zstd1 | Self::Store1 => Box::new(zstd::stream::read::Decoder::new(reader)?),
        })
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

impl FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "gzip-1" => Ok(Self::Gzip1),
            "zstd-1" => Ok(Self::Zstd1),
            "store-1" => Ok(Self::Store1),
            _ => Err(UnknownCompression(text.to_owned())),
        }
    }
}

/// One compressed form of a canonical tar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// How it is compressed.
    pub compression: Compression,
    /// SHA-256 of the compressed bytes.
    pub digest: BlobDigest,
    /// Number of compressed bytes.
    pub size: u64,
    /// SHA-256 of the canonical tar.
    pub diff_id: DiffId,
}

/// Compresses what is written to it.
pub struct LayerWriter<W> {
    inner: W,
    compression: Compression,
    pending: Vec<u8>,
    empty: bool,
}

impl<W: Write> LayerWriter<W> {
    /// Starts a layer.
    pub fn new(compression: Compression, inner: W) -> Self {
        Self { inner, compression, pending: Vec::new(), empty: true }
    }

    /// Compresses the whole blocks that are pending, and with `last` the rest as well.
    fn drain(&mut self, last: bool) -> io::Result<()> {
        let block = self.compression.block();
        let take = match last {
            true => self.pending.len(),
            false => self.pending.len() / block * block,
        };
        if take == 0 && !(last && self.empty) {
            return Ok(());
        }
        self.empty = false;
        let compression = self.compression;
        let blocks: Vec<&[u8]> = match take {
            0 => vec![&[]],
            _ => self.pending[..take].chunks(block).collect(),
        };
        let outputs: Vec<io::Result<Vec<u8>>> = match blocks.as_slice() {
            [single] => vec![compression.compress(single)],
            many => many.par_iter().map(|block| compression.compress(block)).collect(),
        };
        for output in outputs {
            self.inner.write_all(&output?)?;
        }
        self.pending.drain(..take);
        Ok(())
    }

    /// Ends the layer.
    pub fn finish(mut self) -> io::Result<W> {
        self.drain(true)?;
        self.inner.flush()?;
        Ok(self.inner)
    }
}

impl<W: Write> Write for LayerWriter<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.pending.extend_from_slice(buffer);
        if self.pending.len() >= BATCH * self.compression.block() {
            self.drain(false)?;
        }
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn compress(compression: Compression, data: &[u8], write: usize) -> Vec<u8> {
        let mut writer = LayerWriter::new(compression, Vec::new());
        for chunk in data.chunks(write.max(1)) {
            writer.write_all(chunk).unwrap();
        }
        writer.finish().unwrap()
    }

    /// Bytes that compress neither to nothing nor not at all, the same on every machine.
    fn sample(length: usize) -> Vec<u8> {
        let mut state = 0x1234_5678_u32;
        (0..length)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                b"drystone layers"[(state >> 24) as usize % 15]
            })
            .collect()
    }

    #[test]
    fn golden_bytes_are_frozen() {
        let data = sample(5_500_000);
        let lines: String = [Compression::Gzip1, Compression::Zstd1, Compression::Store1]
            .iter()
            .map(|&compression| {
                let bytes = compress(compression, &data, 65_536);
                format!("{compression} {} {}\n", bytes.len(), BlobDigest::of(&bytes))
            })
            .collect();
        assert_eq!(lines, include_str!("../tests/golden/layer.digests"));
    }

    #[test]
    fn write_sizes_and_threads_do_not_shape_bytes() {
        let data = sample(9_000_000);
        for compression in [Compression::Gzip1, Compression::Zstd1, Compression::Store1] {
            let whole = compress(compression, &data, data.len());
            for write in [4_096, 65_537, 1 << 20] {
                assert!(compress(compression, &data, write) == whole, "{compression} {write}");
            }
            let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
            assert!(one.install(|| compress(compression, &data, 9_999)) == whole);
            let mut back = Vec::new();
            compression.decompress(whole.as_slice()).unwrap().read_to_end(&mut back).unwrap();
            assert!(back == data);
        }
    }

    proptest! {
        #[test]
        fn small_streams_round_trip(data in proptest::collection::vec(any::<u8>(), 0..5000)) {
            for compression in [Compression::Gzip1, Compression::Zstd1, Compression::Store1] {
                let bytes = compress(compression, &data, 700);
                let mut back = Vec::new();
                compression.decompress(bytes.as_slice()).unwrap().read_to_end(&mut back).unwrap();
                prop_assert_eq!(&back, &data);
            }
        }
    }
}
