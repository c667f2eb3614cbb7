//! References to images, as `from` names its base.

use std::fmt;
use std::str::FromStr;

use drystone_store::digest::BlobDigest;

use crate::document::ValueError;

use super::names::{ImageName, Tag};

/// `HOST[:PORT]/NAME[:TAG][@sha256:…]`: an image in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageReference {
    /// The registry: host and port.
    pub registry: String,
    /// The repository.
    pub repository: ImageName,
    /// The tag, if written.
    pub tag: Option<Tag>,
    /// The digest, if written: then the tag is only for people.
    pub digest: Option<BlobDigest>,
}

impl ImageReference {
    /// Reads a reference. The registry must be written: no default host is assumed.
    pub fn new(text: &str) -> Result<Self, ValueError> {
        const WHAT: &str = "image reference";
        let refuse = |reason: &'static str| {
            ValueError::new(WHAT, text, reason).with_help(
                "for example: \"registry.example.com/team/base:1\"; images of Docker Hub are \
                     \"docker.io/library/NAME\"",
            )
        };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = BlobDigest::from_str(digest);
                (rest, Some(digest.map_err(|_| refuse("after @ stands sha256: and 64 digits"))?))
            }
            None => (text, None),
        };
        let (registry, path) =
            rest.split_once('/').ok_or_else(|| refuse("the registry is missing"))?;
        let named = registry.contains(['.', ':']) || registry == "localhost";
        let good =
            registry.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".:-".contains(&byte));
        if !named || !good {
            return Err(refuse("it must start with the registry's host name"));
        }
        let (name, tag) = match path.split_once(':') {
            Some((name, tag)) => (name, Some(Tag::new(tag)?)),
            None => (path, None),
        };
        let repository = ImageName::new(name)?;
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_round_trip() {
        let digest = BlobDigest::of(b"x");
        for good in [
            "registry.example.com/team/base:1".to_owned(),
            "127.0.0.1:5000/base".to_owned(),
            format!("localhost/base@{digest}"),
            format!("localhost:5000/a/b:t@{digest}"),
        ] {
            assert_eq!(ImageReference::new(&good).unwrap().to_string(), good);
        }
        for bad in
            ["base", "team/base:1", "h.example.com/", "h.example.com/x@sha256:1", "é.x/y", ""]
        {
            assert!(ImageReference::new(bad).is_err(), "{bad}");
        }
    }
}
