//! Package URLs: the names that scanners look packages up by.

/// The package URL of a Debian package: `pkg:deb/debian/NAME@VERSION?arch=…&distro=…`.
pub fn deb(
    vendor: &str,
    name: &str,
    version: &str,
    architecture: &str,
    distribution: Option<&str>,
) -> String {
    let mut purl = format!(
        "pkg:deb/{}/{}@{}?arch={}",
        encoded(vendor),
        encoded(name),
        encoded(version),
        encoded(architecture)
    );
    if let Some(distribution) = distribution {
        purl.push_str("&distro=");
        purl.push_str(&encoded(distribution));
    }
    purl
}

/// The package URL of a package of a language's registry: `pkg:KIND/NAME@VERSION`, where an npm
/// package's scope is a part of its own.
pub fn of_registry(kind: &str, name: &str, version: &str) -> String {
    let parts: Vec<String> = name.split('/').map(encoded).collect();
    format!("pkg:{kind}/{}@{}", parts.join("/"), encoded(version))
}

/// Percent-encodes all but the unreserved characters and the colon, as the specification asks.
fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' | b':' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_characters_are_encoded() {
        assert_eq!(
            deb("debian", "libstdc++6", "1:12.2.0-14+deb12u1~x", "amd64", Some("bookworm")),
            "pkg:deb/debian/libstdc%2B%2B6@1:12.2.0-14%2Bdeb12u1~x?arch=amd64&distro=bookworm"
        );
        assert_eq!(deb("node", "nodejs", "22", "all", None), "pkg:deb/node/nodejs@22?arch=all");
        assert_eq!(of_registry("npm", "@a/b", "1.0+c"), "pkg:npm/%40a/b@1.0%2Bc");
    }
}
