//! Small universes, each for one rule.

use proptest::prelude::*;

use super::*;
use crate::debian::index::read_packages;
use crate::debian::relation::RelationField;
use crate::debian::universe::{Polarity, Reach, matches};

/// Makes an index: each line is `name version | Field: value | ...`.
pub(in crate::debian) fn index(repository: &str, lines: &str) -> Vec<PackageRecord> {
    let mut text = String::new();
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let mut parts = line.split(" ; ");
        let (name, version) = parts.next().unwrap().split_once(' ').unwrap();
        let (version, hash) = (version.trim(), "0".repeat(64));
        text += &format!("Package: {name}\nVersion: {version}\nArchitecture: amd64\n");
        text += &format!("Filename: pool/{name}.deb\nSize: 1\nSHA256: {hash}\n");
        parts.for_each(|field| text += &format!("{field}\n"));
        text += "\n";
    }
    read_packages(repository, &text).unwrap()
}

fn universe(lines: &str) -> Universe {
    let mut universe = Universe::new("amd64");
    universe.add(Reach::Default, index("debian", lines));
    universe
}

fn request(names: &str) -> SolveRequest<'static> {
    let roots = names.split_whitespace().map(PackageRequest::named).collect();
    SolveRequest { roots, ..SolveRequest::default() }
}

fn names(solution: &Solution<'_>) -> String {
    let names: Vec<&str> = solution.packages.iter().map(|record| record.name.as_str()).collect();
    names.join(" ")
}

/// Solves and names the packages, or explains.
fn outcome(lines: &str, request: &SolveRequest<'_>) -> String {
    match solve(&universe(lines), request) {
        Ok(solution) => names(&solution),
        Err(unsolvable) => unsolvable.to_string(),
    }
}

#[test]
fn choices_are_those_of_apt() {
    // Every expected value here was obtained from apt-get -s with the same index.
    for (why, roots, lines, expected) in [
        (
            "groups in the order of the text",
            "a",
            "a 1 ; Depends: x | y, b\nb 1 ; Depends: y\nx 1\ny 1",
            "a b x y",
        ),
        (
            "what is chosen satisfies",
            "a",
            "a 1 ; Depends: zz | yy, v\nyy 1 ; Provides: v\nzz 1",
            "a yy zz",
        ),
        (
            "depth first",
            "a",
            "a 1 ; Depends: d1 | d2, d3\nd1 1\nd2 1\nd3 1 ; Depends: d2",
            "a d1 d2 d3",
        ),
        (
            "pre-depends first",
            "a",
            "a 1 ; Depends: x | y ; Pre-Depends: p\np 1 ; Depends: y\nx 1\ny 1",
            "a p y",
        ),
        ("what is asked for is preferred", "a y", "a 1 ; Depends: x | y\nx 1\ny 1", "a y"),
        (
            "the last mentioned provider",
            "a",
            "a 1 ; Depends: v\nzz 1 ; Provides: v\nmm 1 ; Provides: v\nqq 1 ; Provides: v",
            "a qq",
        ),
        (
            "mentions count, not places",
            "a",
            "a 1 ; Depends: v ; Suggests: mm\nqq 1 ; Provides: v\nmm 1 ; Provides: v",
            "a qq",
        ),
        (
            "enhances are read after suggests",
            "a",
            "a 1 ; Enhances: mm ; Suggests: qq ; Depends: v\nqq 1 ; Provides: v\nmm 1 ; Provides: v",
            "a mm",
        ),
        (
            "priority before mention",
            "a",
            "a 1 ; Depends: v\nx 1 ; Provides: v ; Priority: standard\ny 1 ; Provides: v ; Priority: optional",
            "a x",
        ),
        (
            "the real package first",
            "a",
            "a 1 ; Depends: v\nv 1\nx 1 ; Provides: v ; Priority: required",
            "a v",
        ),
        (
            "a versioned Provides",
            "a",
            "a 1 ; Depends: v (>= 2)\nx 1 ; Provides: v\ny 1 ; Provides: v (= 3)\nz 1 ; Provides: v (= 1)",
            "a y",
        ),
        (
            "back from a conflict",
            "a",
            "a 1 ; Depends: m, n\nm 1 ; Depends: x | y\nn 1 ; Depends: k\nk 1 ; Conflicts: x\nx 1\ny 1",
            "a k m n y",
        ),
        (
            "a package satisfies itself",
            "a",
            "a 1 ; Depends: v ; Conflicts: v ; Provides: v\nb 1 ; Provides: v",
            "a",
        ),
        ("a virtual root", "v", "y 1 ; Provides: v (= 3)", "y"),
        (
            ":any needs Multi-Arch: allowed",
            "a",
            "a 1 ; Depends: x:any | y:any\nx 1 ; Multi-Arch: foreign\ny 1 ; Multi-Arch: allowed",
            "a y",
        ),
        (
            ":any and Provides",
            "a",
            "a 1 ; Depends: v:any\nx 1 ; Multi-Arch: allowed ; Provides: v",
            "a x",
        ),
        (
            "the native architecture by name",
            "a",
            "a 1 ; Depends: x:amd64 | y, z:i386 | y\nx 1\ny 1\nz 1",
            "a x y",
        ),
    ] {
        assert_eq!(outcome(lines, &request(roots)), expected, "{why}");
    }
}

#[test]
fn unsolvable_requests_say_why() {
    let lines = "web 1 ; Depends: libweb (>= 2)
        libweb 1.5
        app 1 ; Depends: web | missing, other
        other 1 ; Conflicts: clash
        clash 1
        clasher 1 ; Depends: other
        pair 1 ; Depends: clash, clasher
        v1 1 ; Provides: virtual
        v2 1 ; Provides: virtual
        wants 1 ; Depends: virtual (>= 1)";
    for (roots, expected) in [
        (
            "web",
            "the packages cannot be installed:
  web 1 is asked for
  web 1 depends on libweb (>= 2)
    libweb (>= 2): the newest is 1.5 (from debian)",
        ),
        (
            "wbe libwebb",
            "the packages cannot be installed:
  wbe is asked for
    wbe: no repository has it; did you mean web?
  libwebb is asked for
    libwebb: no repository has it; did you mean libweb?",
        ),
        (
            "pair",
            "the packages cannot be installed:
  pair 1 is asked for
  pair 1 depends on clasher
  clasher 1 depends on other
    other 1: other 1 conflicts with clash:
      pair 1 is asked for
      pair 1 depends on clash",
        ),
        (
            "virtual",
            "the packages cannot be installed:
  virtual is asked for
    virtual: it is virtual; ask for one of v1, v2",
        ),
        (
            "wants",
            "the packages cannot be installed:
  wants 1 is asked for
  wants 1 depends on virtual (>= 1)
    virtual (>= 1): it is virtual, and no candidate suits of v1, v2",
        ),
        (
            "clash other",
            "the packages cannot be installed:
  other 1 is asked for
    other 1: other 1 conflicts with clash:
      clash 1 is asked for",
        ),
    ] {
        assert_eq!(outcome(lines, &request(roots)), expected, "{roots}");
    }
    let text = outcome(lines, &SolveRequest { exclude: ["web".into()].into(), ..request("app") });
    assert!(text.contains("web: it is excluded"), "{text}");
    assert!(text.contains("missing: no repository has it"), "{text}");
}

#[test]
fn exhausted_alternatives_are_all_explained() {
    let text =
        outcome("a 1 ; Depends: x | y\nx 1 ; Depends: gone\ny 1 ; Depends: lost", &request("a"));
    for part in ["a 1 depends on x | y", "x 1: cannot be installed", "gone: no repository", "lost"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn recommends_are_followed_where_possible() {
    let lines = "a 1 ; Recommends: good, bad, missing, hostile\ngood 1\nbad 1 ; Depends: gone\nhostile 1 ; Breaks: a";
    assert_eq!(outcome(lines, &request("a")), "a");
    let with = SolveRequest { recommends: true, ..request("a") };
    assert_eq!(outcome(lines, &with), "a good");
}

#[test]
fn essential_packages_come_first_and_are_preferred() {
    let lines = "base 1 ; Essential: yes ; Depends: awk\nmawk 1 ; Provides: awk ; Priority: required\ngawk 1 ; Provides: awk\na 1 ; Depends: awk";
    let universe = universe(lines);
    assert_eq!(universe.essential(), ["base"]);
    let essential = SolveRequest { essential: true, ..request("gawk a") };
    let solution = solve(&universe, &essential).unwrap();
    // As when an installed system gets one more package: mawk came with base.
    assert_eq!(names(&solution), "a base gawk mawk");
    assert_eq!(solution.reasons["base"], Reason::Essential);
    assert_eq!(outcome(lines, &request("gawk a")), "a gawk");
    let way: Vec<_> = solution.chain("mawk").into_iter().map(|(name, _)| name).collect();
    assert_eq!(way, ["base", "mawk"]);
}

#[test]
fn ignored_edges_are_not_followed() {
    let lines = "a 1 ; Depends: debconf | debconf-2.0, b\nb 1 ; Depends: ucf\nucf 1\ndebconf 1";
    let ignored = |_: &str, dependency: &str| dependency == "debconf";
    assert_eq!(outcome(lines, &SolveRequest { ignored: &ignored, ..request("a") }), "a b ucf");
    let ignored = |package: &str, dependency: &str| (package, dependency) == ("b", "ucf");
    assert_eq!(outcome(lines, &SolveRequest { ignored: &ignored, ..request("a") }), "a b debconf");
}

#[test]
fn versions_and_pins_choose_the_candidate() {
    let lines = "a 1:22.1-1\na 1:22.9-1\na 1:23.0-1\nb 1 ; Depends: a (<< 1:23)\na 1:9-1";
    let version = |request: &SolveRequest<'_>| match solve(&universe(lines), request) {
        Ok(solution) => solution.packages[0].version.to_string(),
        Err(unsolvable) => unsolvable.to_string(),
    };
    let wanted = |pattern: &str| SolveRequest {
        roots: vec![PackageRequest { version: Some(pattern.into()), ..PackageRequest::named("a") }],
        ..SolveRequest::default()
    };
    assert_eq!(version(&request("a")), "1:23.0-1");
    assert_eq!(version(&wanted("22.*")), "1:22.9-1");
    assert_eq!(version(&wanted("1:22.1-1")), "1:22.1-1");
    assert!(version(&wanted("30.*")).contains("wanted version 30.*, from a default repository, but there is only 1:22.1-1 (from debian), 1:22.9-1"));
    let pin = |version: &str| SolveRequest {
        pinned: [("a".to_owned(), Version::new(version).unwrap())].into(),
        ..request("b")
    };
    assert_eq!(version(&pin("1:22.1-1")), "1:22.1-1");
    assert!(version(&request("b")).contains("the newest is 1:23.0-1"));
    assert!(version(&pin("1:22.2-1")).contains("which the lock pins"));
}

fn two_repositories() -> Universe {
    let mut universe = Universe::new("amd64");
    universe.add(
        Reach::Default,
        index("debian", "node 18\nlibssl 3\nlibpq 15\npsql 15 ; Depends: libpq (>= 15)\nother 1 ; Depends: node"),
    );
    universe.add(
        Reach::Named,
        index(
            "third",
            "node 22 ; Depends: libssl, node-extra\nnode 20\nnode-extra 1\nlibssl 99\nlibpq 17\npg 17 ; Depends: libpq (>= 17)\nonly 1",
        ),
    );
    universe
}

#[test]
fn named_repositories_give_only_what_asks_for_them() {
    let universe = two_repositories();
    let from = |name: &str| PackageRequest {
        repository: Some("third".into()),
        ..PackageRequest::named(name)
    };
    let versions = |roots: Vec<PackageRequest>| {
        let solution = solve(&universe, &SolveRequest { roots, ..SolveRequest::default() });
        let records = solution.map(|solution| {
            let list = solution.packages.iter().map(|r| format!("{} {}", r.name, r.version));
            list.collect::<Vec<_>>().join(", ")
        });
        records.unwrap_or_else(|unsolvable| unsolvable.to_string())
    };
    assert_eq!(versions(vec![PackageRequest::named("other")]), "node 18, other 1");
    assert_eq!(versions(vec![from("node")]), "libssl 3, node 22, node-extra 1");
    let pattern = PackageRequest { version: Some("20*".into()), ..from("node") };
    assert_eq!(versions(vec![pattern, PackageRequest::named("other")]), "node 20, other 1");
    // psql alone takes Debian's libpq; pg needs a newer one, which then serves both.
    assert_eq!(versions(vec![PackageRequest::named("psql")]), "libpq 15, psql 15");
    assert_eq!(
        versions(vec![PackageRequest::named("psql"), from("pg")]),
        "libpq 17, pg 17, psql 15"
    );
    assert!(
        versions(vec![PackageRequest::named("only")])
            .contains("wanted from a default repository, but there is only 1 (from third)")
    );
}

#[test]
fn hopeless_searches_end() {
    // Twenty free choices, then a contradiction that none of them has to do with.
    let mut lines = String::from("a 1 ; Depends: ");
    lines += &(0..20).map(|at| format!("x{at} | y{at}, ")).collect::<String>();
    lines += "p, q\np 1 ; Conflicts: q\nq 1\n";
    for at in 0..20 {
        lines += &format!("x{at} 1\ny{at} 1\n");
    }
    let unsolvable = solve(&universe(&lines), &request("a")).unwrap_err();
    assert!(!unsolvable.gave_up);
    assert!(unsolvable.to_string().contains("q 1: p 1 conflicts with q"), "{unsolvable}");
}

/// A random universe of eight packages, as the lines that [`index`] takes.
fn random_lines() -> impl Strategy<Value = String> {
    let name = || proptest::sample::select(vec!["a", "b", "c", "d", "e", "f", "g", "h", "v", "w"]);
    let group = proptest::collection::vec(name(), 1..3).prop_map(|group| group.join(" | "));
    let depends = proptest::collection::vec(group, 0..3).prop_map(|groups| groups.join(", "));
    let package = (depends, proptest::option::weighted(0.4, name()), proptest::option::of(name()));
    proptest::collection::vec(package, 8).prop_map(|packages| {
        let mut lines = String::new();
        for (at, (depends, conflicts, provides)) in packages.iter().enumerate() {
            lines += &format!("{} 1 ; Depends: {depends}", char::from(b'a' + at as u8));
            conflicts.iter().for_each(|name| lines += &format!(" ; Conflicts: {name}"));
            provides.iter().for_each(|name| lines += &format!(" ; Provides: {name}"));
            lines.push('\n');
        }
        lines
    })
}

fn holds(field: &RelationField, set: &[&PackageRecord]) -> bool {
    field.relations().groups.iter().all(|group| {
        let mut alternatives = group.alternatives.iter();
        alternatives.any(|a| set.iter().any(|record| matches(a, record, Polarity::Positive)))
    })
}

fn is_consistent(set: &[&PackageRecord]) -> bool {
    set.iter().all(|record| {
        let negatives = record.conflicts.relations().groups;
        let mut negatives = negatives.iter().flat_map(|group| &group.alternatives);
        let clash = negatives.any(|negative| {
            let mut others = set.iter().filter(|other| other.name != record.name);
            others.any(|other| matches(negative, other, Polarity::Negative))
        });
        holds(&record.depends, set) && !clash
    })
}

proptest! {
    /// With one version for each name, the solver finds a solution exactly when there is one.
    #[test]
    fn solutions_are_consistent_and_found_where_there_are_any(lines in random_lines()) {
        let universe = universe(&lines);
        let records: Vec<&PackageRecord> = universe.packages().iter().collect();
        let possible = (0u32..256).filter(|bits| bits & 1 == 1).any(|bits| {
            let set: Vec<_> = (0..8).filter(|at| bits >> at & 1 == 1).map(|at| records[at]).collect();
            is_consistent(&set)
        });
        match solve(&universe, &request("a")) {
            Ok(solution) => {
                prop_assert!(is_consistent(&solution.packages), "{lines}");
                prop_assert!(solution.packages.iter().any(|record| record.name == "a"));
            }
            Err(unsolvable) => {
                prop_assert!(!possible, "{lines}\n{unsolvable}");
                prop_assert!(!unsolvable.to_string().is_empty());
            }
        }
    }
}
