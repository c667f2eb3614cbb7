//! Paths inside trees, validated once, in a type.

use std::cmp::Ordering;
use std::fmt;

/// Why a path cannot stand in a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The path has no component: it names the root, which has no entry.
    #[error("a path in a tree may not be empty")]
    Empty,
    /// The path starts with a slash.
    #[error("{0:?} is absolute; paths in a tree are relative to its root")]
    Absolute(String),
    /// The path has a component that is `.`, `..` or empty.
    #[error("{0:?} has a component that is empty, \".\" or \"..\"")]
    BadComponent(String),
    /// The path has a NUL byte.
    #[error("{0:?} has a NUL byte")]
    Nul(String),
    /// The path is not UTF-8.
    #[error("{0:?} is not UTF-8")]
    NotUtf8(String),
    /// The path, or a component, is longer than Linux allows.
    #[error("{0:?} is longer than 4095 bytes, or one of its names is longer than 255")]
    TooLong(String),
}

/// A path in a tree: UTF-8, relative, without `.`, `..`, empty or NUL parts.
///
/// The order is the canonical tar's: component by component, so a directory is followed by
/// everything below it before its next sibling.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TreePath(Box<str>);

impl TreePath {
    /// Checks a path.
    pub fn new(path: impl Into<String>) -> Result<Self, PathError> {
        let path: String = path.into();
        if path.is_empty() {
            return Err(PathError::Empty);
        }
        if path.starts_with('/') {
            return Err(PathError::Absolute(path));
        }
        if path.contains('\0') {
            return Err(PathError::Nul(path));
        }
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(PathError::BadComponent(path));
        }
        if path.len() > 4095 || path.split('/').any(|part| part.len() > 255) {
            return Err(PathError::TooLong(path));
        }
        Ok(Self(path.into_boxed_str()))
    }

    /// Checks a path that came as bytes.
    pub fn from_bytes(path: &[u8]) -> Result<Self, PathError> {
        let text = std::str::from_utf8(path)
            .map_err(|_| PathError::NotUtf8(String::from_utf8_lossy(path).into_owned()))?;
        Self::new(text)
    }

    /// Checks a path as people and archives write it: a leading `/` or `./` and trailing slashes
    /// are dropped. `None` is the root itself.
    pub fn from_rooted(path: &str) -> Result<Option<Self>, PathError> {
        let mut rest = path;
        loop {
            let stripped = rest.strip_prefix("./").unwrap_or(rest);
            let stripped = stripped.trim_start_matches('/');
            if stripped.len() == rest.len() {
                break;
            }
            rest = stripped;
        }
        let rest = rest.trim_end_matches('/');
        if rest.is_empty() || rest == "." {
            return Ok(None);
        }
        Self::new(rest).map(Some)
    }

    /// The path as text, relative to the root.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last component.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// The directory that holds this path; `None` when that is the root.
    pub fn parent(&self) -> Option<Self> {
        self.0.rsplit_once('/').map(|(parent, _)| Self(parent.into()))
    }

    /// The components, first to last.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// This path with one more component.
    pub fn join(&self, name: &str) -> Result<Self, PathError> {
        Self::new(format!("{}/{name}", self.0))
    }

    /// This path with its last component replaced.
    pub fn with_name(&self, name: &str) -> Result<Self, PathError> {
        match self.parent() {
            Some(parent) => parent.join(name),
            None => Self::new(name),
        }
    }

    /// Whether `self` is `other` or lies below it.
    pub fn starts_with(&self, other: &Self) -> bool {
        self.0.strip_prefix(&*other.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl Ord for TreePath {
    fn cmp(&self, other: &Self) -> Ordering {
        // Component order equals byte order when `/` sorts before every other byte.
        let key = |byte: u8| if byte == b'/' { 0 } else { byte };
        let (left, right) = (self.0.as_bytes(), other.0.as_bytes());
        match left.iter().zip(right).position(|(a, b)| a != b) {
            Some(at) => key(left[at]).cmp(&key(right[at])),
            None => left.len().cmp(&right.len()),
        }
    }
}

impl PartialOrd for TreePath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_each_bad_form_by_name() {
        assert_eq!(TreePath::new(""), Err(PathError::Empty));
        assert!(matches!(TreePath::new("/etc"), Err(PathError::Absolute(_))));
        for bad in ["a//b", "a/", "./a", "a/../b", ".."] {
            assert!(matches!(TreePath::new(bad), Err(PathError::BadComponent(_))), "{bad}");
        }
        assert!(matches!(TreePath::new("a\0b"), Err(PathError::Nul(_))));
        assert!(matches!(TreePath::from_bytes(b"a\xff"), Err(PathError::NotUtf8(_))));
        assert!(matches!(TreePath::new("a".repeat(256)), Err(PathError::TooLong(_))));
    }

    #[test]
    fn rooted_forms_are_accepted() {
        for form in ["/etc/x", "./etc/x", "etc/x/", ".//etc/x", "/./etc/x"] {
            assert_eq!(TreePath::from_rooted(form).unwrap().unwrap().as_str(), "etc/x", "{form}");
        }
        for root in ["/", ".", "./", ""] {
            assert_eq!(TreePath::from_rooted(root), Ok(None), "{root:?}");
        }
        assert!(TreePath::from_rooted("./../x").is_err());
    }

    proptest! {
        #[test]
        fn order_is_component_by_component(
            left in proptest::collection::vec("[ -.0-~]{1,3}", 1..4),
            right in proptest::collection::vec("[ -.0-~]{1,3}", 1..4),
        ) {
            let (a, b) = (TreePath::new(left.join("/")), TreePath::new(right.join("/")));
            prop_assume!(a.is_ok() && b.is_ok());
            prop_assert_eq!(a.unwrap().cmp(&b.unwrap()), left.cmp(&right));
        }
    }
}
