//! The keys that a table may have, as data: for checks, messages and the reference in `docs/`.

/// One key of a table.
#[derive(Debug)]
pub struct Key {
    /// The key as written.
    pub name: &'static str,
    /// What its value must be, as in "must be {expects}".
    pub expects: &'static str,
    /// A line that shows it, as it stands in its own table.
    pub example: &'static str,
}

/// The keys of one kind of table.
#[derive(Debug)]
pub struct Schema {
    /// How the table is written: `[debian]`, `[recipe.NAME]`; empty for the top of the file.
    pub title: &'static str,
    /// All keys, in the order in which the reference describes them.
    pub keys: &'static [Key],
    /// Keys that have a meaning to come, refused with "not in this version".
    pub reserved: &'static [&'static str],
    /// The schemas of the same document, to say where a misplaced key belongs.
    pub family: fn() -> &'static [&'static Schema],
}

impl Schema {
    /// Finds a key by its name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// What to tell someone who wrote the unknown key `name` here.
    pub(super) fn advice(&self, name: &str) -> String {
        if let Some(near) = nearest(name, self.keys.iter().map(|key| key.name)) {
            return format!("did you mean `{near}`?");
        }
        let elsewhere = (self.family)()
            .iter()
            .filter(|schema| schema.title != self.title && schema.key(name).is_some())
            .map(|schema| match schema.title {
                "" => "at the top of the file, before the first [table]".to_owned(),
                title => format!("in {title}"),
            })
            .collect::<Vec<_>>();
        if (1..=3).contains(&elsewhere.len()) {
            return format!("`{name}` belongs {}", elsewhere.join(", or "));
        }
        let names = self.keys.iter().map(|key| key.name).collect::<Vec<_>>();
        format!("known here: {}", names.join(", "))
    }
}

/// The known word that is nearest to `word`, if one is near enough to be meant.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if word.chars().count() > 64 {
        return None;
    }
    let folded = word.to_lowercase().replace('_', "-");
    let allowed = (folded.chars().count() / 3).clamp(1, 3);
    known
        .map(|candidate| {
            (strsim::damerau_levenshtein(&folded, &candidate.to_lowercase()), candidate)
        })
        .filter(|(distance, candidate)| *distance <= allowed && *distance < candidate.len())
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn the_nearest_key_is_near() {
        let known = ["packages", "suite", "check-valid-until", "uid", "gid"];
        let near = |word| nearest(word, known.into_iter());
        assert_eq!(near("package"), Some("packages"));
        assert_eq!(near("Suite"), Some("suite"));
        assert_eq!(near("check_valid_until"), Some("check-valid-until"));
        assert_eq!(near("user"), None);
        assert_eq!(near("uidd"), Some("uid"));
        assert_eq!(near(&"x".repeat(100_000)), None);
    }
}
