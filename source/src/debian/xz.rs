//! xz and its forerunner lzma, within bounds: a header may ask for gigabytes of memory.

use std::io::{self, Read};

use liblzma::read::XzDecoder;
use liblzma::stream::{CONCATENATED, IGNORE_CHECK, Stream};

/// The most memory that a decoder may use. `xz -9` needs 65 MiB; nothing in an archive needs more.
const MEMORY: u64 = 256 << 20;

/// Decompresses xz, several streams after one another too.
pub fn xz<R: Read>(packed: R) -> io::Result<XzDecoder<R>> {
    within(packed, MEMORY)
}

fn within<R: Read>(packed: R, memory: u64) -> io::Result<XzDecoder<R>> {
    // All that is read here has a hash that is checked: xz's own sum would be a second one.
    let stream = Stream::new_stream_decoder(memory, CONCATENATED | IGNORE_CHECK)
        .map_err(io::Error::other)?;
    Ok(XzDecoder::new_stream(packed, stream))
}

/// Decompresses what xz's forerunner wrote.
pub(super) fn lzma<R: Read>(packed: R) -> io::Result<XzDecoder<R>> {
    let stream = Stream::new_lzma_decoder(MEMORY).map_err(io::Error::other)?;
    Ok(XzDecoder::new_stream(packed, stream))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn packed() -> Vec<u8> {
        let mut writer = liblzma::write::XzEncoder::new(Vec::new(), 6);
        writer.write_all(b"hello").unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn several_streams_are_one() {
        let mut text = String::new();
        let twice = [packed(), packed()].concat();
        xz(twice.as_slice()).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "hellohello");
    }

    #[test]
    fn a_stream_that_needs_more_memory_is_refused() {
        let packed = packed();
        let mut bytes = Vec::new();
        let error = within(packed.as_slice(), 1 << 20).unwrap().read_to_end(&mut bytes);
        assert!(error.unwrap_err().to_string().contains("memory"), "and nothing else is wrong");
    }
}
