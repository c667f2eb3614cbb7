//! Decompression of a `.deb`'s members, by their names' endings (deb(5)).

use std::io::{BufReader, Read};

use super::DebError;

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
        ".xz" => Box::new(liblzma::read::XzDecoder::new_multi_decoder(content)),
        ".lzma" => {
            let stream = liblzma::stream::Stream::new_lzma_decoder(u64::MAX)
                .map_err(|error| damaged(std::io::Error::other(error)))?;
            Box::new(liblzma::read::XzDecoder::new_stream(content, stream))
        }
        ".zst" => Box::new(
            zstd::stream::read::Decoder::with_buffer(BufReader::new(content)).map_err(damaged)?,
        ),
        _ => return Err(DebError::Compression(name.to_owned())),
    })
}
