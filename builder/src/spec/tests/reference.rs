//! The published reference and the code's schemas describe the same file.

use super::super::schema;
use super::parse;

const REFERENCE: &str = include_str!("../../../../docs/image-toml.md");

#[test]
fn every_key_of_the_code_is_in_the_reference_and_back() {
    let mut section = String::new();
    let mut documented = std::collections::BTreeSet::new();
    for line in REFERENCE.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title.replace('`', "");
        }
        if let Some(key) = line.strip_prefix("### ") {
            documented.insert((section.clone(), key.trim_matches('`').to_owned()));
        }
    }
    let known: std::collections::BTreeSet<_> = schema::all()
        .iter()
        .flat_map(|schema| {
            let title = match schema.title {
                "" => "The top of the file".to_owned(),
                title => title.replace('`', ""),
            };
            schema.keys.iter().map(move |key| (title.clone(), key.name.to_owned()))
        })
        .collect();
    let missing: Vec<_> = known.difference(&documented).collect();
    let unknown: Vec<_> = documented.difference(&known).collect();
    assert!(missing.is_empty(), "not in docs/image-toml.md: {missing:?}");
    assert!(unknown.is_empty(), "docs/image-toml.md describes what no schema has: {unknown:?}");
    for name in schema::TOP.reserved {
        assert!(REFERENCE.contains(&format!("`{name}`")), "reserved name {name} is not documented");
    }
}

#[test]
fn every_example_of_the_reference_parses() {
    let blocks: Vec<_> = REFERENCE
        .split("```toml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert!(blocks.len() >= 9);
    for block in blocks {
        parse(block).unwrap_or_else(|problems| panic!("{block}\n{problems}"));
    }
}

#[test]
fn the_examples_of_the_schemas_are_toml_and_stand_in_the_reference() {
    for schema in schema::all() {
        let title = match schema.title {
            "" => "The top of the file",
            title => title,
        };
        let section = REFERENCE
            .split("\n## ")
            .find(|section| {
                section
                    .lines()
                    .next()
                    .is_some_and(|line| line.replace('`', "") == title.replace('`', ""))
            })
            .unwrap();
        for key in schema.keys {
            assert!(section.contains(&format!("Example: `{}`", key.example)), "{}", key.example);
            // A key that is a table is shown by the header of one.
            if !key.example.starts_with('[') {
                let document: toml::Table = key.example.parse().unwrap();
                assert!(document.contains_key(key.name), "{}", key.example);
            }
        }
    }
}
