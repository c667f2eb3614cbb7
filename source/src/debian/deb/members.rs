//! Decompression of a `.deb`'s members, by their names' endings (deb(5)).

use std::io::{BufReader, Read};

use super::DebError;
use crate::debian::xz;

/// A reader of the tar stream in a member named `name`, which starts with `stem`.
pub(super) fn decompress<'a>(
    name: &str,
    stem: &'static str,
    content: impl Read + 'a,
) -> Result<Box<dyn Read + 'a>, DebError> {
    let damaged = |source| DebError::Tar { member: stem, source };
    Ok(match &name[stem.len()..] {
        "" => Box::new(content),
        ".gz" => Box::new(flate2::read::MultiGzDecoder::new(content)),
        ".xz" => Box::new(xz::xz(content).map_err(damaged)?),
        ".lzma" => Box::new(xz::lzma(content).map_err(damaged)?),
        ".zst" => Box::new(
            zstd::stream::read::Decoder::with_buffer(BufReader::new(content)).map_err(damaged)?,
        ),
        _ => return Err(DebError::Compression(name.to_owned())),
    })
}
