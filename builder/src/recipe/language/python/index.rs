//! The page of a package in an index: its files with their hashes (PEP 503 and PEP 691).
//!
//! Nothing of it is believed: a file is used only if its content has the lockfile's hash.

use std::collections::BTreeMap;

use serde::Deserialize;
use url::Url;

/// What pages are asked for in, best first.
pub(in crate::recipe::language) const ACCEPT: &str = "application/vnd.pypi.simple.v1+json, \
    application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01";

/// A file that an index offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::recipe::language) struct OfferedFile {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub url: Url,
    /// Its hashes, in hexadecimal digits by algorithm.
    pub hashes: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Page {
    files: Vec<PageFile>,
}

#[derive(Deserialize)]
struct PageFile {
    filename: String,
    url: String,
    #[serde(default)]
    hashes: BTreeMap<String, String>,
}

/// Reads a page that was had from an address.
pub(in crate::recipe::language) fn read(
    text: &str,
    base: &Url,
) -> Result<Vec<OfferedFile>, String> {
    if !text.trim_start().starts_with('{') {
        return Ok(read_html(text, base));
    }
    let page: Page = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let files = page.files.into_iter().filter_map(|file| {
        let url = base.join(&file.url).ok()?;
        Some(OfferedFile { name: file.filename, url, hashes: file.hashes })
    });
    Ok(files.collect())
}

/// Links of a page: `<a href="URL#sha256=HEX">NAME</a>`.
fn read_html(text: &str, base: &Url) -> Vec<OfferedFile> {
    let mut files = Vec::new();
    let mut base = base.clone();
    let mut rest = text;
    while let Some((tag, after)) = next_tag(rest) {
        rest = after;
        let name = tag.split(|it: char| it.is_whitespace()).next().unwrap_or_default();
        if name.eq_ignore_ascii_case("base") {
            base = attribute(tag, "href").and_then(|href| base.join(&href).ok()).unwrap_or(base);
        }
        if !name.eq_ignore_ascii_case("a") {
            continue;
        }
        let Some(mut url) = attribute(tag, "href").and_then(|href| base.join(&href).ok()) else {
            continue;
        };
        let fragment = url.fragment().and_then(|it| it.split_once('='));
        let hashes = fragment.map(|(name, digits)| (name.to_owned(), digits.to_owned()));
        let hashes = hashes.into_iter().collect();
        url.set_fragment(None);
        let text = rest.split('<').next().unwrap_or_default();
        files.push(OfferedFile { name: unescaped(text.trim()), url, hashes });
    }
    files
}

/// What stands between the next `<` and `>`, and what follows.
fn next_tag(text: &str) -> Option<(&str, &str)> {
    let (_, inner) = text.split_once('<')?;
    let mut quote = None;
    for (at, character) in inner.char_indices() {
        match (quote, character) {
            (None, '>') => return Some((&inner[..at], &inner[at + 1..])),
            (None, '"' | '\'') => quote = Some(character),
            (Some(open), other) if open == other => quote = None,
            _ => {}
        }
    }
    None
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let mut rest = tag;
    while let Some((before, after)) = rest.split_once('=') {
        let key = before.split_whitespace().next_back().unwrap_or_default();
        let after = after.trim_start();
        let (value, later) = match after.chars().next() {
            Some(quote @ ('"' | '\'')) => after[1..].split_once(quote)?,
            _ => {
                let end = after.find(char::is_whitespace).unwrap_or(after.len());
                after.split_at(end)
            }
        };
        if key.eq_ignore_ascii_case(name) {
            return Some(unescaped(value));
        }
        rest = later;
    }
    None
}

fn unescaped(text: &str) -> String {
    let entities = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")];
    entities
        .iter()
        .fold(text.to_owned(), |text, (entity, character)| text.replace(entity, character))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Url {
        Url::parse("https://index.example.com/simple/web/").unwrap()
    }

    #[test]
    fn both_forms_mean_the_same() {
        let json = r#"{"meta":{"api-version":"1.1"},"name":"web","files":[
            {"filename":"web-1.0.tar.gz","url":"../../files/web-1.0.tar.gz",
             "hashes":{"sha256":"ab"},"requires-python":null,"yanked":false}]}"#;
        let html = "<!DOCTYPE html><html><body><h1>Links > here</h1>\n\
            <A data-requires-python=\"&gt;=3.8\" href=\"../../files/web-1.0.tar.gz#sha256=ab\">\n\
            web-1.0.tar.gz</a><br></body></html>";
        let files = read(json, &base()).unwrap();
        assert_eq!(files, read(html, &base()).unwrap());
        assert_eq!(files[0].url.as_str(), "https://index.example.com/files/web-1.0.tar.gz");
    }

    #[test]
    fn what_is_no_page_holds_nothing() {
        assert!(read("{\"files\": 3}", &base()).is_err());
        assert_eq!(read("not found", &base()).unwrap(), []);
        assert_eq!(read("<a>x</a><a href=>y", &base()).unwrap().len(), 1);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "(<a |<base |href=|[\"'>#=&;a-c é/{}])*") {
            let _ = read(&text, &base());
        }
    }
}
