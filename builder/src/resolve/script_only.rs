//! Packages that only maintainer scripts need: they are there while an image is configured, but a
//! dependency on them brings nothing into the image. The table is data: `data/script-only.toml`.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde::Deserialize;

static TEXT: &str = include_str!("../../data/script-only.toml");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    packages: BTreeSet<String>,
    edges: BTreeSet<(String, String)>,
}

static TABLE: LazyLock<Table> =
    LazyLock::new(|| toml::from_str(TEXT).expect("the embedded table is read by a test"));

/// Tells whether a package's dependency, by the name that it has or that it is asked for by, serves
/// maintainer scripts only.
pub(super) fn is_script_only(package: &str, dependency: &str) -> bool {
    TABLE.packages.contains(dependency)
        || TABLE.edges.contains(&(package.to_owned(), dependency.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_table_is_read() {
        assert!(is_script_only("nginx-common", "debconf"));
        assert!(is_script_only("ca-certificates", "openssl"));
        assert!(!is_script_only("nginx-light", "openssl"));
        assert!(!is_script_only("nginx-light", "libc6"));
        // It is a library of update-passwd.
        assert!(!is_script_only("base-passwd", "libdebconfclient0"));
    }
}
