//! A mutator that needs no instrumentation: it runs on stable Rust, in every `cargo test`, the same
//! way each time.
//!
//! A corpus is a folder of files. `valid-*` must be accepted, `refused-*` must not (its name says
//! why), anything else may go either way. From these, files are spoiled: bits flipped, numbers
//! replaced by those at the edges, pieces cut, doubled, moved and taken from other files.

use std::fs;
use std::path::{Path, PathBuf};

/// Runs of each target unless `DRYSTONE_FUZZ_ITERATIONS` says otherwise.
const ITERATIONS: u64 = 2000;
/// No file grows beyond this, in bytes.
const MOST_BYTES: usize = 256 << 10;

/// Pieces that mean something to one format or another.
const WORDS: [&[u8]; 20] = [
    b"\n",
    b"\n\n",
    b"\0",
    b"..",
    b"/",
    b"//",
    b"\"",
    b"'''",
    b"[[",
    b"]",
    b"=",
    b":",
    b"#",
    b"|",
    b" (>= 1)",
    b".wh.",
    b"\xff\xfe",
    "\u{202e}é".as_bytes(),
    b"`\n",
    b"\\u0000",
];

/// Numbers at the edges of types and of fields.
const NUMBERS: [&str; 14] = [
    "0",
    "1",
    "7",
    "00000000000",
    "77777777777",
    "99999999999",
    "255",
    "65536",
    "2147483648",
    "4294967296",
    "9223372036854775807",
    "18446744073709551616",
    "-1",
    "1e9",
];

/// One sample: its file's name and content.
pub type Sample = (String, Vec<u8>);

/// How many times each target runs.
pub fn iterations() -> u64 {
    let said = std::env::var("DRYSTONE_FUZZ_ITERATIONS").ok();
    said.and_then(|text| text.parse().ok()).unwrap_or(ITERATIONS)
}

/// The folder of a target's samples, in the crate that includes this file.
pub fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(target)
}

/// The samples of a target, by name.
pub fn read_corpus(target: &str) -> Vec<Sample> {
    let folder = corpus(target);
    let mut samples: Vec<Sample> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
        })
        .collect();
    // By name, so `valid-*` come last.
    samples.sort();
    let has_valid = samples.last().is_some_and(|(name, _)| name.starts_with("valid-"));
    assert!(has_valid, "{} has no valid sample", folder.display());
    samples
}

/// Runs a target over a corpus and what the mutator makes of it. `target` says whether it accepted
/// the bytes, and panics where it breaks a promise; `repair` may mend checksums, so that what lies
/// behind them is reached too.
pub fn fuzz(
    samples: &[Sample],
    iterations: u64,
    target: &dyn Fn(&[u8]) -> bool,
    repair: &dyn Fn(&mut [u8]),
) {
    for (name, bytes) in samples {
        let accepted = target(bytes);
        assert!(accepted || !name.starts_with("valid-"), "{name} must be accepted");
        assert!(!accepted || !name.starts_with("refused-"), "{name} must be refused");
    }
    let mut accepted = 0;
    for seed in 1..=iterations {
        let mut random = Random::new(seed);
        let mut bytes = mutated(samples, &mut random);
        if random.below(4) != 0 {
            repair(&mut bytes);
        }
        let told = Told { seed, bytes: &bytes };
        accepted += u64::from(target(&bytes));
        drop(told);
    }
    println!("{accepted} of {iterations} were accepted");
}

/// Says which run it was when a target panics, and where its input lies.
struct Told<'a> {
    seed: u64,
    bytes: &'a [u8],
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let path = std::env::temp_dir().join(format!("drystone-fuzz-{}", self.seed));
            let written = fs::write(&path, self.bytes).is_ok();
            let place = if written { path.display().to_string() } else { "nowhere".to_owned() };
            eprintln!("run {} failed; its input is kept in {place}", self.seed);
        }
    }
}

/// xorshift64*: the same numbers in every run.
pub struct Random(u64);

impl Random {
    /// A sequence for each seed.
    pub fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        // Neighbouring seeds start alike.
        for _ in 0..4 {
            random.next();
        }
        random
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`; 0 when that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { (self.next() >> 11) as usize % bound }
    }
}

fn mutated(samples: &[Sample], random: &mut Random) -> Vec<u8> {
    // What lies deep is reached from what is good, so most runs start there.
    let valid = samples.iter().filter(|(name, _)| name.starts_with("valid-")).count();
    let mut bytes = match random.below(4) {
        0 => samples[random.below(samples.len())].1.clone(),
        _ => samples[samples.len() - valid + random.below(valid)].1.clone(),
    };
    let most = [1, 1, 2, 4][random.below(4)];
    for _ in 0..most {
        let other = &samples[random.below(samples.len())].1;
        mutate(&mut bytes, other, random);
        bytes.truncate(MOST_BYTES);
    }
    bytes
}

fn mutate(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.below(bytes.len());
    let end = at + random.below((bytes.len() - at).min(600) + 1);
    match random.below(9) {
        0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
        1 if !bytes.is_empty() => bytes[at] = [0, b' ', b'0', b'\n', 0x7f, 0xff][random.below(6)],
        2 => drop(bytes.drain(at..end)),
        3 => {
            let piece = bytes[at..end].to_vec();
            let to = random.below(bytes.len() + 1);
            bytes.splice(to..to, piece);
        }
        4 => {
            let from = random.below(other.len());
            let to = from + random.below((other.len() - from).min(1200) + 1);
            bytes.splice(at..end, other[from..to].iter().copied());
        }
        5 => bytes.truncate(at),
        6 => replace_number(bytes, at, random),
        7 => drop(bytes.splice(at..at, WORDS[random.below(WORDS.len())].iter().copied())),
        _ => swap_lines(bytes, random),
    }
}

/// Replaces the next run of digits, as often as not by as many bytes: fields have fixed widths.
fn replace_number(bytes: &mut Vec<u8>, at: usize, random: &mut Random) {
    let Some(start) = (at..bytes.len()).find(|&at| bytes[at].is_ascii_digit()) else { return };
    let digits = bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = NUMBERS[random.below(NUMBERS.len())];
    let number = match random.below(2) {
        0 => number.to_owned(),
        _ => format!("{number:0>digits$}").chars().take(digits).collect(),
    };
    bytes.splice(start..start + digits, number.bytes());
}

fn swap_lines(bytes: &mut Vec<u8>, random: &mut Random) {
    let mut lines: Vec<&[u8]> = bytes.split_inclusive(|&byte| byte == b'\n').collect();
    let (one, two) = (random.below(lines.len()), random.below(lines.len()));
    if !lines.is_empty() {
        lines.swap(one, two);
    }
    *bytes = lines.concat();
}

/// Mends the checksums of all blocks that look like headers of a tar, or nearly so.
pub fn mend_tar(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(512) {
        if &block[257..262] != b"ustar" {
            continue;
        }
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

/// For formats without checksums.
#[allow(dead_code, reason = "one of the programs has formats of this kind only")]
pub fn leave(_: &mut [u8]) {}
