//! What two versions of a file say about why they differ, and where they do.

use std::collections::BTreeSet;
use std::io::Read as _;

use drystone_store::listing::ListingEntry;
use drystone_store::tree::Kind as EntryKind;

use super::Kind;
use super::cause::Examined;
use super::variation::{OTHER_FOLDER, OTHER_HOST, OTHER_USER, OTHER_ZONE};

/// How many bytes around a difference are looked at.
const WINDOW: usize = 64;
/// How much of a compressed file is looked into.
const MOST_INSIDE: u64 = 32 << 20;
/// How many bytes of a binary difference are shown.
const SHOWN_BYTES: usize = 16;
/// How many differing lines are shown of each side.
const SHOWN_LINES: usize = 3;
/// The longest part of a line that is shown, in characters.
const SHOWN_LINE: usize = 160;
/// Numbers of seconds that are taken for times: 2001 to 2065.
const TIMES: std::ops::Range<u64> = 1_000_000_000..3_000_000_000;
const TAR_BLOCK: usize = 512;
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Texts that only varied runs see, and what they are about.
const TELLING: [(&str, Kind); 6] = [
    (OTHER_HOST, Kind::HostName),
    (OTHER_FOLDER, Kind::BuildFolder),
    (OTHER_USER, Kind::User),
    (OTHER_ZONE, Kind::TimeZone),
    ("7.77.7-check", Kind::Kernel),
    ("777.77 check", Kind::Processors),
];

/// Looks at both versions of an entry, and at the bytes of those that are files.
pub(super) fn examine(
    sides: (Option<&ListingEntry>, Option<&ListingEntry>),
    bytes: (Option<&Vec<u8>>, Option<&Vec<u8>>),
) -> Examined {
    let mut it = Examination::default();
    match sides {
        (Some(one), Some(two)) => {
            it.metadata(one, two);
            if one.hash != two.hash
                && let (Some(one), Some(two)) = bytes
            {
                it.bytes(one, two);
            }
        }
        (Some(_), None) => it.summary.push("only in the stored output".to_owned()),
        _ => it.summary.push("only in the rebuilt output".to_owned()),
    }
    (it.hints, it.evidence, it.summary)
}

#[derive(Default)]
struct Examination {
    hints: BTreeSet<Kind>,
    evidence: Vec<String>,
    summary: Vec<String>,
}

impl Examination {
    fn hint(&mut self, kind: Kind, evidence: impl Into<String>) {
        self.hints.insert(kind);
        let evidence = evidence.into();
        if !self.evidence.contains(&evidence) {
            self.evidence.push(evidence);
        }
    }

    fn metadata(&mut self, one: &ListingEntry, two: &ListingEntry) {
        let (one, two) = (&one.entry, &two.entry);
        if one.mode != two.mode {
            self.summary.push(format!("mode {:04o}, rebuilt {:04o}", one.mode, two.mode));
            self.hint(Kind::Umask, "its mode differs");
        }
        if (one.uid, one.gid) != (two.uid, two.gid) {
            let text = format!("owner {}:{}, rebuilt {}:{}", one.uid, one.gid, two.uid, two.gid);
            self.summary.push(text);
            self.hint(Kind::User, "its owner differs");
        }
        match (&one.kind, &two.kind) {
            (EntryKind::Symlink { target: one }, EntryKind::Symlink { target: two })
                if one != two =>
            {
                self.summary.push(format!("a link to {one}, rebuilt to {two}"));
                self.text(one, two);
            }
            (EntryKind::File { .. }, EntryKind::File { .. }) => {}
            (one, two) if std::mem::discriminant(one) != std::mem::discriminant(two) => {
                self.summary.push("of another kind".to_owned());
            }
            _ => {}
        }
        if one.xattrs != two.xattrs {
            self.summary.push("its extended attributes differ".to_owned());
        }
    }

    fn bytes(&mut self, one: &[u8], two: &[u8]) {
        if let (Some(inner_one), Some(inner_two)) = (gunzipped(one), gunzipped(two)) {
            if one[4..8] != two[4..8] {
                self.hint(Kind::Clock, "the time in the gzip header differs");
            }
            if inner_one == inner_two {
                self.summary
                    .push("gzip: what is compressed is equal, its envelope is not".to_owned());
                return;
            }
            self.summary.push("gzip; of what is compressed:".to_owned());
            return self.content(&inner_one, &inner_two);
        }
        self.content(one, two);
    }

    fn content(&mut self, one: &[u8], two: &[u8]) {
        let at = one.iter().zip(two).position(|(one, two)| one != two);
        let at = at.unwrap_or_else(|| one.len().min(two.len()));
        self.tar_field(one, two, at);
        match (std::str::from_utf8(one), std::str::from_utf8(two)) {
            (Ok(one), Ok(two)) if !one.contains('\0') => {
                self.lines(one, two);
                self.text(one, two);
            }
            _ => self.binary(one, two, at),
        }
    }

    fn lines(&mut self, one: &str, two: &str) {
        let (left, right): (Vec<&str>, Vec<&str>) = (one.lines().collect(), two.lines().collect());
        let first = left.iter().zip(&right).position(|(one, two)| one != two);
        let first = first.unwrap_or_else(|| left.len().min(right.len()));
        self.summary.push(format!("from line {}:", first + 1));
        let cut = |line: &&str| line.chars().take(SHOWN_LINE).collect::<String>();
        let shown = |sign: &str, lines: &[&str]| {
            let lines = lines.iter().skip(first).take(SHOWN_LINES);
            lines.map(|line| format!("{sign}{}", cut(line))).collect::<Vec<_>>()
        };
        self.summary.extend(shown("-", &left));
        self.summary.extend(shown("+", &right));
        let sorted = |lines: &[&str]| {
            let mut lines: Vec<String> = lines.iter().map(|&line| line.to_owned()).collect();
            lines.sort();
            lines
        };
        if left.len() > 1 && sorted(&left) == sorted(&right) {
            self.hint(Kind::DirectoryOrder, "the same lines stand in another order");
        }
    }

    /// Looks for what is known in the parts that differ.
    fn text(&mut self, one: &str, two: &str) {
        let (one_lines, two_lines): (BTreeSet<&str>, BTreeSet<&str>) =
            (one.lines().collect(), two.lines().collect());
        for line in two_lines.difference(&one_lines) {
            for (text, kind) in TELLING {
                if line.contains(text) {
                    self.hint(kind, format!("{text:?} stands in the rebuilt one"));
                }
            }
        }
        let times = |lines: std::collections::btree_set::Difference<'_, &str>| {
            lines.filter_map(|line| time_in(line)).next()
        };
        let old = times(one_lines.difference(&two_lines));
        let new = times(two_lines.difference(&one_lines));
        if let (Some(old), Some(new)) = (old, new) {
            self.hint(Kind::Clock, format!("a time: {old}, rebuilt {new}"));
        }
    }

    fn binary(&mut self, one: &[u8], two: &[u8], at: usize) {
        let hex = |bytes: &[u8]| {
            let shown = bytes.iter().skip(at).take(SHOWN_BYTES);
            shown.map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
        };
        if one.len() != two.len() {
            self.summary.push(format!("{} bytes, rebuilt {}", one.len(), two.len()));
        }
        let count = one.iter().zip(two).filter(|(one, two)| one != two).count();
        self.summary.push(format!("{count} bytes differ, the first at offset {at}:"));
        self.summary.push(format!("-{}", hex(one)));
        self.summary.push(format!("+{}", hex(two)));
        let around = |bytes: &[u8]| {
            let start = at.saturating_sub(WINDOW).min(bytes.len());
            let end = (at + WINDOW).min(bytes.len());
            String::from_utf8_lossy(&bytes[start..end]).replace('\0', "\n")
        };
        self.text(&around(one), &around(two));
        let word = |bytes: &[u8]| {
            (at.saturating_sub(3)..=at).find_map(|place| {
                let word = bytes.get(place..)?.first_chunk::<4>()?;
                let time = u64::from(u32::from_le_bytes(*word));
                TIMES.contains(&time).then_some((place, time))
            })
        };
        if let (Some((place, old)), Some((other, new))) = (word(one), word(two))
            && place == other
            && old.abs_diff(new) > 1
            && self.hints.is_empty()
        {
            self.hint(Kind::Clock, format!("bytes at {place} read as times: {old}, rebuilt {new}"));
        }
    }

    /// Names the field of a tar header that differs first.
    fn tar_field(&mut self, one: &[u8], two: &[u8], at: usize) {
        let start = at - at % TAR_BLOCK;
        let header = |bytes: &[u8]| {
            let block = bytes.get(start..start + TAR_BLOCK)?;
            (block.get(257..262)? == b"ustar").then(|| block.to_vec())
        };
        let (Some(one), Some(two)) = (header(one), header(two)) else { return };
        let name = |block: &[u8]| {
            let name = block[..100].split(|byte| *byte == 0).next().unwrap_or_default();
            String::from_utf8_lossy(name).into_owned()
        };
        let differs = |range: std::ops::Range<usize>| one[range.clone()] != two[range];
        let entry = name(&one);
        if differs(0..100) {
            self.hint(
                Kind::DirectoryOrder,
                format!("tar: {entry} stands where the rebuilt one has {}", name(&two)),
            );
            return;
        }
        for (range, kind, what) in [
            (100..108, Kind::Umask, "mode"),
            (108..124, Kind::User, "owner"),
            (136..148, Kind::Clock, "time"),
            (265..329, Kind::User, "owner's name"),
        ] {
            if differs(range) {
                self.hint(kind, format!("tar: the {what} of {entry} differs"));
            }
        }
    }
}

fn gunzipped(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.len() < 18 || bytes[..2] != [0x1f, 0x8b] {
        return None;
    }
    let mut inner = Vec::new();
    flate2::read::MultiGzDecoder::new(bytes).take(MOST_INSIDE).read_to_end(&mut inner).ok()?;
    Some(inner)
}

/// Something in a line that looks like a moment: seconds since 1970, a time of day, a date.
fn time_in(line: &str) -> Option<String> {
    let words = line.split(|c: char| !(c.is_ascii_alphanumeric() || ":-./".contains(c)));
    for word in words.filter(|word| !word.is_empty()) {
        let whole = word.split('.').next().unwrap_or_default();
        if whole.len() == 10 && whole.parse().is_ok_and(|number| TIMES.contains(&number)) {
            return Some(word.to_owned());
        }
        let is_digits =
            |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
        let parts: Vec<&str> = word.split(':').collect();
        if parts.len() >= 2 && parts[1..].iter().all(|part| is_digits(&part[..part.len().min(2)])) {
            return Some(word.to_owned());
        }
        let parts: Vec<&str> = word.split(['-', '/']).collect();
        if parts.len() == 3 && parts[0].len() == 4 && parts[1..].iter().all(|part| is_digits(part))
        {
            return Some(word.to_owned());
        }
        if MONTHS.contains(&word) {
            return Some(line.trim().chars().take(40).collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(one: &[u8], two: &[u8]) -> Examination {
        let mut it = Examination::default();
        it.bytes(one, two);
        it
    }

    fn hints(one: &str, two: &str) -> Vec<Kind> {
        look(one.as_bytes(), two.as_bytes()).hints.into_iter().collect()
    }

    #[test]
    fn times_are_recognised() {
        let clock = vec![Kind::Clock];
        assert_eq!(hints("built 1764374400\n", "built 1798960409\n"), clock);
        assert_eq!(hints("at 12:03:07\n", "at 19:16:36\n"), clock);
        assert_eq!(hints("2026-11-29\n", "2028-01-03\n"), clock);
        assert_eq!(hints("Sun Nov 29 2026\n", "Mon Jan  3 2028\n"), clock);
        assert_eq!(hints("serial 4711\n", "serial 4712\n"), []);
        assert_eq!(hints("00:aé\n", "00:bé\n"), []);
    }

    #[test]
    fn order_and_known_texts_are_recognised() {
        assert_eq!(hints("a\nb\n", "b\na\n"), [Kind::DirectoryOrder]);
        assert_eq!(hints("/build/x\n", "/elsewhere/x\n"), [Kind::BuildFolder]);
        assert_eq!(hints("6.1\n", "7.77.7-check\n"), [Kind::Kernel]);
    }

    #[test]
    fn fields_of_tar_headers_are_named() {
        let archive = |time: u64, mode: u32| {
            let mut header = tar::Header::new_ustar();
            header.set_path("some/file").unwrap();
            header.set_mtime(time);
            header.set_mode(mode);
            header.set_size(0);
            header.set_cksum();
            header.as_bytes().to_vec()
        };
        let it = look(&archive(1_764_374_400, 0o644), &archive(1_798_960_409, 0o644));
        assert!(it.hints.contains(&Kind::Clock), "{:?}", it.evidence);
        assert_eq!(it.evidence[0], "tar: the time of some/file differs");
        let it = look(&archive(1, 0o644), &archive(1, 0o600));
        assert_eq!(it.evidence[0], "tar: the mode of some/file differs");
    }

    #[test]
    fn differences_are_shown_by_line_or_offset() {
        let it = look(b"same\none\n", b"same\ntwo\n");
        assert_eq!(it.summary, ["from line 2:", "-one", "+two"]);
        let it = look(&[0, 1, 2, 0xff], &[0, 1, 3, 0xff]);
        assert_eq!(it.summary, ["1 bytes differ, the first at offset 2:", "-02 ff", "+03 ff"]);
    }
}
