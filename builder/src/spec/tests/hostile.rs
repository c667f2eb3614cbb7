//! No text makes the reader panic, and every answer can be shown.

use proptest::prelude::*;

use super::super::schema;
use super::{EXAMPLES, parse};
use crate::document::Style;

fn survive(text: &str) {
    if let Err(problems) = parse(text) {
        let shown = problems.render(Style::Plain);
        assert!(!shown.trim().is_empty());
        let hostile = |character: char| character.is_control() && character != '\n';
        assert!(!shown.contains(hostile), "control characters reach the terminal: {shown:?}");
        let _ = problems.render(Style::Coloured);
        for problem in problems.iter() {
            let place = problem.span().unwrap();
            assert!(text.get(place.start..place.end).is_some(), "{place:?}");
            assert!(problem.line() >= Some(1) && problem.column() >= Some(1));
        }
    }
}

/// Pieces that documents are made of, so that random ones get past the TOML parser.
fn fragment() -> impl Strategy<Value = String> {
    let keys: Vec<&'static str> = schema::all()
        .iter()
        .flat_map(|schema| schema.keys.iter().map(|key| key.name))
        .chain(["service", "x", "\"/etc\"", "\"\"", "\"\\u001b[31m\"", "'ö'"])
        .collect();
    let values = prop::sample::select(vec![
        "1",
        "-1",
        "99999999999999999999",
        "0x1f",
        "0o644",
        "1.5",
        "inf",
        "true",
        "1980-01-01",
        "\"\"",
        "\"a\"",
        "\"/a/b\"",
        "\"ö\\u0000\\u001b\"",
        "[]",
        "[\"a\", 1]",
        "{}",
        "{ a = 1 }",
        "[[{}]]",
        "'''\n\n'''",
        "[{ name = \"a\" }, { }]",
        "\"https://a:b@example.com\"",
    ]);
    let titles = prop::sample::select(vec![
        "[debian]",
        "[debian.repository.a]",
        "[recipe.a]",
        "[recipe.\"\"]",
        "[files]",
        "[users.a]",
        "[groups.a]",
        "[finish]",
        "[config]",
        "[config.env]",
        "[image]",
        "[cache]",
        "[[debian]]",
        "[config.healthcheck]",
        "[recipe]",
        "[a.b.c]",
        "[annotations]",
    ]);
    prop_oneof![
        (prop::sample::select(keys), values).prop_map(|(key, value)| format!("{key} = {value}\n")),
        titles.prop_map(|title| format!("{title}\n")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn arbitrary_text(text in any::<String>()) {
        survive(&text);
    }

    #[test]
    fn arbitrary_documents(parts in prop::collection::vec(fragment(), 0..30)) {
        survive(&parts.concat());
    }

    #[test]
    fn mutated_examples(
        which in 0..EXAMPLES.len(),
        at in any::<prop::sample::Index>(),
        length in 0_usize..40,
        put in prop_oneof![any::<String>(), "[\\[\\]{}\"'=.,\n#\\\\]{0,6}", fragment()],
    ) {
        let text = EXAMPLES[which].1;
        let floor = |offset: usize| (0..=offset).rev().find(|at| text.is_char_boundary(*at)).unwrap();
        let start = floor(at.index(text.len()));
        let end = floor((start + length).min(text.len())).max(start);
        survive(&format!("{}{put}{}", &text[..start], &text[end..]));
    }
}

#[test]
fn large_and_deep_documents_answer_quickly() {
    let started = std::time::Instant::now();
    survive(&format!("name = \"{}\"", "a".repeat(1 << 20)));
    survive(&format!("x = {}", "[".repeat(100_000)));
    survive(&format!("[{}]", vec!["a"; 5_000].join(".")));
    survive(&"unknown-key-1 = 1\n".repeat(2_000));
    survive(&(0..5_000).map(|number| format!("key{number} = 1\n")).collect::<String>());
    survive(&format!("name = '''{}'''", "\n".repeat(100_000)));
    let files: String = (0..3_000).map(|number| format!("\"/a{number}\" = 1\n")).collect();
    survive(&format!("name = \"a\"\n[files]\n{files}"));
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}
