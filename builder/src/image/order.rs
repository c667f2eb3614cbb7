//! The one order of layers that all images of a suite share.
//!
//! Engines name an unpacked layer by everything below it, and docker 20.10 downloads again every
//! layer above a changed one. So packages stand in the order (class, source name, package name):
//! what never changes lies lowest, the common before the rare; what changes follows, the more often for
//! its size the higher, since every change unpacks anew all that lies above.
//! The order depends on names only, never on versions, sizes or the rest of the image; therefore an
//! update moves no package, and two images order the packages that they share equally.
//!
//! A suite's classes are data, made once by `examples/make_order_table.rs` and never changed while
//! the suite lives: `data/order/SUITE.tsv`. A line is `NAME<TAB>CLASS` for a package or
//! `src:NAME<TAB>CLASS` for all other packages of a source; `#` starts a comment.

use std::collections::BTreeMap;

use super::ImageError;

/// The number of classes; a class is smaller than this.
pub const CLASS_COUNT: u8 = 8;

/// The class of a suite's packages that its table does not list: rarely used, never updated so far.
pub const DEFAULT_CLASS: u8 = 2;

/// The class of packages from outside the suite, of which nothing is known: they come last.
pub const FOREIGN_CLASS: u8 = CLASS_COUNT - 1;

/// What packages are sorted by: the derived order is the order of layers, lowest first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderKey {
    /// The package's class.
    pub class: u8,
    /// The source package's name: what is updated together lies together.
    pub source: String,
    /// The package's name.
    pub name: String,
}

/// The classes of one suite's packages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrderTable {
    packages: BTreeMap<String, u8>,
    sources: BTreeMap<String, u8>,
}

impl OrderTable {
    /// The text of the table that is built in for a suite, by codename.
    ///
    /// The plan of layers depends on it, so its digest belongs into the image's identity.
    pub fn built_in_text(codename: &str) -> Option<&'static str> {
        match codename {
            "bookworm" => Some(include_str!("../../data/order/bookworm.tsv")),
            "trixie" => Some(include_str!("../../data/order/trixie.tsv")),
            _ => None,
        }
    }

    /// The table of a suite; empty for one that has none, so that all its packages are equal.
    ///
    /// # Errors
    /// A built-in table that cannot be read, which the tests rule out.
    pub fn for_suite(codename: &str) -> Result<Self, ImageError> {
        Self::built_in_text(codename).map_or_else(|| Ok(Self::default()), Self::parse)
    }

    /// Reads a table.
    ///
    /// # Errors
    /// A line of another form, a class that does not exist, or a name that is listed twice.
    pub fn parse(text: &str) -> Result<Self, ImageError> {
        let mut table = Self::default();
        for (number, line) in text.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            table
                .add(line)
                .map_err(|reason| ImageError::OrderTable { line: number + 1, reason })?;
        }
        Ok(table)
    }

    fn add(&mut self, line: &str) -> Result<(), String> {
        let (name, class) = line.split_once('\t').ok_or("expected NAME, a tab and a class")?;
        let class: u8 = class.parse().map_err(|_| format!("{class:?} is no class"))?;
        if class >= CLASS_COUNT {
            return Err(format!("class {class} is not below {CLASS_COUNT}"));
        }
        let earlier = match name.strip_prefix("src:") {
            Some(source) => self.sources.insert(source.to_owned(), class),
            None => self.packages.insert(name.to_owned(), class),
        };
        match earlier {
            Some(_) => Err(format!("{name:?} is listed twice")),
            None => Ok(()),
        }
    }

    /// The class of one of the suite's packages: its own, else its source's, else the default.
    ///
    /// Packages of other repositories have [`FOREIGN_CLASS`] instead, whatever their names.
    pub fn class(&self, source: &str, name: &str) -> u8 {
        let listed = self.packages.get(name).or_else(|| self.sources.get(source));
        listed.copied().unwrap_or(DEFAULT_CLASS)
    }

    /// The sort key of one of the suite's packages.
    pub fn key(&self, source: &str, name: &str) -> OrderKey {
        let class = self.class(source, name);
        OrderKey { class, source: source.to_owned(), name: name.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn built_in_tables_parse_and_put_quiet_foundations_low() {
        for codename in ["bookworm", "trixie"] {
            let table = OrderTable::for_suite(codename).unwrap();
            assert!(table.packages.len() > 300, "{codename} lists {}", table.packages.len());
            assert!(table.class("acl", "libacl1") < table.class("glibc", "libc6"), "{codename}");
            assert!(table.class("glibc", "libc6") < table.class("nginx", "nginx"), "{codename}");
            assert!(table.class("curl", "libcurl4") < FOREIGN_CLASS, "{codename}");
        }
        assert_eq!(OrderTable::for_suite("unknown").unwrap(), OrderTable::default());
    }

    /// Engines share unpacked layers by prefix, so an update must not move anything. Versions are no
    /// input of the key; this pins that names of one image sort alike inside any other image.
    #[test]
    fn packages_common_to_two_images_have_one_order() {
        let table = OrderTable::for_suite("bookworm").unwrap();
        let small = ["libc6", "zlib1g", "openssl", "nginx", "perl-base", "curl"];
        let large = ["nginx", "unknown", "curl", "git", "libc6", "perl-base", "openssl", "zlib1g"];
        let sorted = |names: &[&str]| {
            let mut keys: Vec<_> = names.iter().map(|name| table.key(name, name)).collect();
            keys.sort();
            keys.into_iter().map(|key| key.name).collect::<Vec<_>>()
        };
        let large = sorted(&large);
        let common: Vec<_> = large.iter().filter(|name| small.contains(&name.as_str())).collect();
        assert_eq!(sorted(&small).iter().collect::<Vec<_>>(), common);
    }

    #[test]
    fn own_lines_win_over_the_sources() {
        let table = OrderTable::parse("# comment\nlibc6\t2\nsrc:glibc\t6\n").unwrap();
        assert_eq!(table.class("glibc", "libc6"), 2);
        assert_eq!(table.class("glibc", "libc-bin"), 6);
        assert_eq!(table.class("libc6", "other"), DEFAULT_CLASS, "a source is no package");
    }

    #[test]
    fn bad_lines_are_named() {
        for (text, line) in [("a", 1), ("a\tx", 1), ("\na\t8", 2), ("a\t1\na\t1", 2), ("a\t-1", 1)]
        {
            match OrderTable::parse(text) {
                Err(ImageError::OrderTable { line: found, .. }) => {
                    assert_eq!(found, line, "{text:?}")
                }
                other => panic!("{text:?} gave {other:?}"),
            }
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "\\PC{0,200}") {
            let _ = OrderTable::parse(&text);
        }
    }
}
