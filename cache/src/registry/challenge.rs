//! `WWW-Authenticate`: how a server wants to be asked (RFC 9110, section 11.6.1).

use std::collections::BTreeMap;

/// One way to authenticate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    /// The scheme, in lower case.
    pub scheme: String,
    /// Its parameters, names in lower case.
    pub parameters: BTreeMap<String, String>,
}

/// Reads one header's challenges. What cannot be read ends the list.
pub(super) fn parse(text: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let word = token(rest);
        if word.is_empty() {
            return challenges;
        }
        rest = &rest[word.len()..];
        let after = rest.trim_start_matches([' ', '\t']);
        match (after.strip_prefix('='), challenges.last_mut()) {
            (Some(value), Some(challenge)) => {
                let Some((value, left)) = parameter(value.trim_start_matches([' ', '\t'])) else {
                    return challenges;
                };
                challenge.parameters.entry(word.to_ascii_lowercase()).or_insert(value);
                rest = left;
            }
            (Some(_), None) => return challenges,
            (None, _) => {
                let scheme = word.to_ascii_lowercase();
                challenges.push(Challenge { scheme, parameters: BTreeMap::new() });
            }
        }
    }
}

fn token(text: &str) -> &str {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let end = text.bytes().position(|byte| !is_token(byte));
    &text[..end.unwrap_or(text.len())]
}

/// A token or a quoted text, and what follows it.
fn parameter(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let value = token(text);
        return Some((value.to_owned(), &text[value.len()..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((place, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[place + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, Vec<(String, String)>)> {
        let flat =
            |challenge: Challenge| (challenge.scheme, challenge.parameters.into_iter().collect());
        parse(text).into_iter().map(flat).collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn what_registries_send_is_read() {
        let hub = r#"Bearer realm="https://auth.example.com/token",service="registry.example.com",scope="repository:a/b:pull,push",error="invalid_token""#;
        let expected = pairs(&[
            ("error", "invalid_token"),
            ("realm", "https://auth.example.com/token"),
            ("scope", "repository:a/b:pull,push"),
            ("service", "registry.example.com"),
        ]);
        assert_eq!(read(hub), [("bearer".to_owned(), expected)]);
        assert_eq!(
            read(r#"Basic realm="a \"b\", c", BEARER Realm = x , service=y"#),
            [
                ("basic".to_owned(), pairs(&[("realm", "a \"b\", c")])),
                ("bearer".to_owned(), pairs(&[("realm", "x"), ("service", "y")])),
            ]
        );
        assert_eq!(read("Negotiate"), [("negotiate".to_owned(), vec![])]);
    }

    #[test]
    fn what_is_broken_ends_the_list() {
        for text in ["", ",,", "=x", "\"x\"", "é"] {
            assert_eq!(read(text), [], "{text:?}");
        }
        assert_eq!(read(r#"Basic realm="open"#), [("basic".to_owned(), vec![])]);
        assert_eq!(read(r#"Basic realm="open\"#), [("basic".to_owned(), vec![])]);
    }

    proptest::proptest! {
        #[test]
        fn no_header_makes_the_parser_panic(text in "(Basic|Bearer|realm|=|\"|\\\\|,| |é|[a-z]){0,30}") {
            let _ = parse(&text);
        }
    }
}
