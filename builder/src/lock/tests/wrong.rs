//! Wrong lock files and what is said about them, word for word.

use super::*;
use crate::document::Style;

#[track_caller]
fn wrong(name: &str, text: &str) {
    match Lock::parse(Path::new("image.lock"), text) {
        Ok(_) => panic!("{name} is accepted"),
        Err(problems) => insta::assert_snapshot!(name, problems.render(Style::Plain)),
    }
}

fn changed(name: &str, from: &str, to: &str) {
    let text = sample("web", "1").to_text();
    assert!(text.contains(from), "{from}");
    wrong(name, &text.replacen(from, to, 1));
}

#[test]
fn each_wrong_lock_is_named_by_line() {
    wrong("no_version", "");
    wrong("newer_version", "version = 2\nunknown = 1\n");
    changed("conflict_markers", "[[index]]", "<<<<<<< HEAD\n[[index]]");
    changed("unknown_key", "signer =", "signed-by =");
    changed("bad_digest", "sha256 = \"", "sha256 = \"zz");
    changed("bad_tree", "tree = \"", "tree = \"1");
    changed("path_out_of_the_pool", "path = \"pool", "path = \"../pool");
    changed("date_with_an_offset", "12:00Z\"", "12:00+00:00\"");
    changed("missing_pin", "    \"redis-tools\"", "    \"redis-server\"");
    changed("unknown_platform", "\"linux/amd64\"", "\"linux/vax\"");
    changed("id_out_of_range", "redis = 101", "redis = 4294967295");
    let twice = sample("web", "1").to_text();
    let block = twice.rsplit("\n\n").next().unwrap();
    wrong("package_twice", &format!("{twice}\n{block}"));
    let mut two = sample("web", "1");
    two.merge(sample("worker", "2")).unwrap();
    wrong(
        "ambiguous_reference",
        &two.to_text().replacen("\"redis-tools 1\"", "\"redis-tools\"", 1),
    );
}
