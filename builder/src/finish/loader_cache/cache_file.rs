//! The bytes of the cache: format `glibc-ld.so.cache1.1` with its extension directory.
//!
//! ```text
//! header (48 bytes) | entries (24 bytes each) | strings | padding to 4
//! extension magic, count | sections (16 bytes each) | hwcaps names (4 bytes each) | generator
//! ```
//!
//! All numbers are little-endian; string offsets count from the start of the file.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::scan::CachedLibrary;
use super::{Ldconfig, Machine};

const MAGIC: &[u8; 20] = b"glibc-ld.so.cache1.1";
const HEADER_SIZE: usize = 48;
const ENTRY_SIZE: usize = 24;
const LITTLE_ENDIAN: u8 = 2;
const EXTENSION_MAGIC: u32 = 0xeaa4_2174;
const TAG_GENERATOR: u32 = 0;
const TAG_HWCAPS: u32 = 1;
/// Says that the low half of an entry's `hwcap` is an index into the hwcaps section.
const HWCAP_EXTENSION: u64 = 1 << 62;

/// Every string that the cache holds, once.
#[derive(Debug, Default)]
pub struct StringTable {
    strings: BTreeSet<String>,
}

/// The strings as bytes, longer ones lending their ends to shorter ones.
struct Strings {
    bytes: Vec<u8>,
    offsets: BTreeMap<String, usize>,
}

impl StringTable {
    /// Notes a string.
    pub fn add(&mut self, string: &str) {
        if !self.strings.contains(string) {
            self.strings.insert(string.to_owned());
        }
    }

    /// Lays the strings out: in descending order of their reversed bytes, so that a string comes
    /// right after one that it is the end of.
    fn lay_out(self) -> Strings {
        let mut strings: Vec<String> = self.strings.into_iter().collect();
        strings.sort_by(|left, right| right.bytes().rev().cmp(left.bytes().rev()));
        let mut laid_out = Strings { bytes: Vec::new(), offsets: BTreeMap::new() };
        let mut previous: Option<(usize, &str)> = None;
        for string in &strings {
            let offset = match previous {
                Some((at, longer)) if longer.ends_with(string.as_str()) => {
                    at + longer.len() - string.len()
                }
                _ => {
                    let at = laid_out.bytes.len();
                    laid_out.bytes.extend_from_slice(string.as_bytes());
                    laid_out.bytes.push(0);
                    at
                }
            };
            laid_out.offsets.insert(string.clone(), offset);
            previous = Some((offset, string));
        }
        laid_out
    }
}

/// glibc's order of library names: runs of digits compare as numbers and follow everything else.
pub fn compare_names(machine: Machine, left: &str, right: &str) -> Ordering {
    let (mut left, mut right) = (left.as_bytes(), right.as_bytes());
    // C's plain `char` is signed on x86 and unsigned on Arm.
    let value = |byte: u8| {
        if machine.is_x86() { i32::from(byte.cast_signed()) } else { i32::from(byte) }
    };
    loop {
        let (a, b) = (left.first().copied().unwrap_or(0), right.first().copied().unwrap_or(0));
        match (a.is_ascii_digit(), b.is_ascii_digit()) {
            (true, true) => {
                let order = take_number(&mut left).cmp(&take_number(&mut right));
                if order.is_ne() {
                    return order;
                }
            }
            (true, false) => return Ordering::Greater,
            (false, true) => return Ordering::Less,
            (false, false) if a != b || left.is_empty() => return value(a).cmp(&value(b)),
            (false, false) => {
                left = &left[1..];
                right = &right[1..];
            }
        }
    }
}

/// Takes the digits off the front; the number wraps as C's `int` does.
fn take_number(text: &mut &[u8]) -> i32 {
    let mut number = 0_i32;
    while let Some((digit, rest)) = text.split_first().filter(|(first, _)| first.is_ascii_digit()) {
        number = number.wrapping_mul(10).wrapping_add(i32::from(digit - b'0'));
        *text = rest;
    }
    number
}

/// The order of entries: names, then types, both descending; then specific before general.
fn compare(machine: Machine, left: &CachedLibrary, right: &CachedLibrary) -> Ordering {
    compare_names(machine, &right.soname, &left.soname)
        .then(right.flags.cmp(&left.flags))
        .then_with(|| match (&left.subdirectory, &right.subdirectory) {
            (Some(left), Some(right)) => left.cmp(right),
            (left, right) => right.is_some().cmp(&left.is_some()),
        })
        .then(right.capabilities.count_ones().cmp(&left.capabilities.count_ones()))
        .then(right.capabilities.cmp(&left.capabilities))
}

/// Writes the cache of libraries that come in scan order.
pub fn write(
    ldconfig: &Ldconfig,
    mut libraries: Vec<CachedLibrary>,
    strings: StringTable,
) -> Vec<u8> {
    libraries.sort_by(|left, right| compare(ldconfig.machine, left, right));
    let subdirectories: BTreeSet<&str> =
        libraries.iter().filter_map(|library| library.subdirectory.as_deref()).collect();
    let subdirectories: Vec<&str> = subdirectories.into_iter().collect();
    let strings = strings.lay_out();
    let strings_offset = HEADER_SIZE + libraries.len() * ENTRY_SIZE;
    let offset_of =
        |string: &str| strings_offset + strings.offsets.get(string).copied().unwrap_or(0);
    let extension_offset = (strings_offset + strings.bytes.len()).next_multiple_of(4);

    let mut out = Vec::with_capacity(extension_offset + 256);
    out.extend_from_slice(MAGIC);
    push(&mut out, libraries.len());
    push(&mut out, strings.bytes.len());
    out.extend_from_slice(&[LITTLE_ENDIAN, 0, 0, 0]);
    push(&mut out, extension_offset);
    out.extend_from_slice(&[0; 12]);
    for library in &libraries {
        out.extend_from_slice(&library.flags.to_le_bytes());
        push(&mut out, offset_of(&library.soname));
        push(&mut out, offset_of(&library.path));
        out.extend_from_slice(&[0; 4]);
        let hwcap = match &library.subdirectory {
            Some(name) => {
                let index = subdirectories.binary_search(&name.as_str()).unwrap_or(0) as u64;
                HWCAP_EXTENSION | u64::from(library.isa_level) << 32 | index
            }
            None => library.capabilities,
        };
        out.extend_from_slice(&hwcap.to_le_bytes());
    }
    out.extend_from_slice(&strings.bytes);
    out.resize(extension_offset, 0);
    let names: Vec<usize> = subdirectories.iter().map(|name| offset_of(name)).collect();
    write_extensions(&mut out, &names, &ldconfig.generator);
    out
}

/// A number of the file. Sizes stay far below 4 GiB: a root would need millions of libraries.
fn push(out: &mut Vec<u8>, number: usize) {
    let number = u32::try_from(number).unwrap_or(u32::MAX);
    out.extend_from_slice(&number.to_le_bytes());
}

fn write_extensions(out: &mut Vec<u8>, subdirectories: &[usize], generator: &str) {
    let sections = if subdirectories.is_empty() { 1 } else { 2 };
    let names_offset = out.len() + 8 + sections * 16;
    let names_size = subdirectories.len() * 4;
    out.extend_from_slice(&EXTENSION_MAGIC.to_le_bytes());
    push(out, sections);
    let mut section = |tag: u32, offset: usize, size: usize| {
        out.extend_from_slice(&tag.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        push(out, offset);
        push(out, size);
    };
    section(TAG_GENERATOR, names_offset + names_size, generator.len());
    if !subdirectories.is_empty() {
        section(TAG_HWCAPS, names_offset, names_size);
    }
    for offset in subdirectories {
        push(out, *offset);
    }
    out.extend_from_slice(generator.as_bytes());
}
