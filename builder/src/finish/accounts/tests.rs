//! Accounts against what a fresh Debian bookworm has, and conflicts.

use super::*;

/// A part of base-passwd's master files.
const PASSWD_MASTER: &str = "\
root:*:0:0:root:/root:/bin/bash
daemon:*:1:1:daemon:/usr/sbin:/usr/sbin/nologin
list:*:38:38:Mailing List Manager:/var/list:/usr/sbin/nologin
_apt:*:42:65534::/nonexistent:/usr/sbin/nologin
nobody:*:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
";
const GROUP_MASTER: &str = "\
root:*:0:
daemon:*:1:
list:*:38:
shadow:*:42:
users:*:100:
nogroup:*:65534:
";

fn base() -> Accounts {
    Accounts::from_master(PASSWD_MASTER, GROUP_MASTER, Some(LAST_CHANGE)).unwrap()
}

/// What redis-server's postinst adds by `adduser --system --group`.
fn redis() -> AccountTexts {
    AccountTexts {
        passwd: "redis:x:100:101::/var/lib/redis:/usr/sbin/nologin\n".to_owned(),
        group: "redis:x:101:\n".to_owned(),
        shadow: "redis:!:3652::::::\n".to_owned(),
        gshadow: "redis:!::\n".to_owned(),
    }
}

fn user(name: &str, uid: u32) -> RequestedUser {
    RequestedUser {
        name: name.to_owned(),
        uid,
        gid: None,
        home: None,
        shell: None,
        comment: None,
        groups: Vec::new(),
    }
}

#[test]
fn a_fresh_system_has_its_passwords_in_the_shadow_files() {
    let texts = base().to_texts();
    assert!(texts.passwd.starts_with("root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1:"));
    assert!(texts.group.starts_with("root:x:0:\ndaemon:x:1:\n"));
    assert!(texts.shadow.starts_with("root:*:3652:0:99999:7:::\ndaemon:*:3652:0:99999:7:::\n"));
    assert!(texts.gshadow.starts_with("root:*::\ndaemon:*::\n"));
    let without = Accounts::from_master(PASSWD_MASTER, GROUP_MASTER, None).unwrap();
    assert!(without.to_texts().shadow.starts_with("root:*::0:99999:7:::\n"));
}

#[test]
fn files_have_debians_modes_and_owners() {
    let files = base().to_files();
    let facts: Vec<_> =
        files.iter().map(|file| (file.path.as_str(), file.mode, file.uid, file.gid)).collect();
    let expected = [
        ("etc/group", 0o644, 0, 0),
        ("etc/gshadow", 0o640, 0, 42),
        ("etc/passwd", 0o644, 0, 0),
        ("etc/shadow", 0o640, 0, 42),
    ];
    assert_eq!(facts, expected);
}

#[test]
fn packages_add_lines_at_the_end() {
    let mut accounts = base();
    accounts.add_package("redis-server", &redis()).unwrap();
    let texts = accounts.to_texts();
    assert!(texts.passwd.ends_with("redis:x:100:101::/var/lib/redis:/usr/sbin/nologin\n"));
    assert!(texts.shadow.ends_with("redis:!:3652::::::\n"));
    // A package without the passwd tools at hand gives no shadow lines: they are made.
    let mut short = base();
    let lines = AccountTexts { shadow: String::new(), gshadow: String::new(), ..redis() };
    short.add_package("redis-server", &lines).unwrap();
    assert_eq!(short.to_texts(), texts);
}

#[test]
fn a_package_may_add_members_to_a_group() {
    let mut accounts = base();
    accounts.add_package("redis-server", &redis()).unwrap();
    let lines = AccountTexts {
        group: "users:x:100:redis\n".to_owned(),
        gshadow: "users:*::redis\n".to_owned(),
        ..AccountTexts::default()
    };
    accounts.add_package("other", &lines).unwrap();
    let texts = accounts.to_texts();
    assert!(texts.group.contains("\nusers:x:100:redis\n"));
    assert!(texts.gshadow.contains("\nusers:*::redis\n"));
}

#[test]
fn requested_users_get_a_group_and_a_lock() {
    let mut accounts = base();
    let mut app = user("app", 10_001);
    app.groups = vec!["users".to_owned(), "data".to_owned()];
    app.home = Some("/srv".to_owned());
    let mut worker = user("worker", 10_000);
    worker.gid = Some(20_000);
    let groups = [RequestedGroup { name: "data".to_owned(), gid: 20_000 }];
    accounts.add_requested(&[app, worker], &groups).unwrap();
    let texts = accounts.to_texts();
    let expected = "worker:x:10000:20000::/nonexistent:/usr/sbin/nologin\n\
                    app:x:10001:10001::/srv:/usr/sbin/nologin\n";
    assert!(texts.passwd.ends_with(expected), "{}", texts.passwd);
    assert!(texts.group.ends_with("data:x:20000:app\napp:x:10001:\n"), "{}", texts.group);
    assert!(texts.group.contains("\nusers:x:100:app\n"));
    assert!(texts.gshadow.contains("\nusers:*::app\n"));
    assert!(texts.shadow.ends_with("worker:!:3652::::::\napp:!:3652::::::\n"));
    assert_eq!(accounts.user_id("app"), Some(10_001));
    assert_eq!(accounts.primary_group_id(10_000), Some(20_000));
    assert_eq!(accounts.group_id("data"), Some(20_000));
}

#[test]
fn a_requested_user_may_refine_a_packages_user() {
    let mut accounts = base();
    accounts.add_package("redis-server", &redis()).unwrap();
    let mut redis = user("redis", 100);
    redis.shell = Some("/bin/sh".to_owned());
    accounts.add_requested(&[redis], &[]).unwrap();
    let texts = accounts.to_texts();
    assert!(
        texts.passwd.ends_with("redis:x:100:101::/var/lib/redis:/bin/sh\n"),
        "{}",
        texts.passwd
    );
    assert_eq!(texts.passwd.matches("\nredis:").count(), 1);
}

#[test]
fn conflicts_name_both_sides() {
    let mut accounts = base();
    accounts.add_package("redis-server", &redis()).unwrap();
    let messages: Vec<String> = [
        accounts.clone().add_requested(&[user("app", 100)], &[]),
        accounts.clone().add_requested(&[user("redis", 10_001)], &[]),
        accounts.clone().add_requested(&[], &[RequestedGroup { name: "app".into(), gid: 101 }]),
        accounts.clone().add_requested(&[], &[RequestedGroup { name: "redis".into(), gid: 7 }]),
        accounts.clone().add_requested(&[user("app", 42_000), user("web", 42_000)], &[]),
        // The private group of a user would share a number with another group.
        accounts.clone().add_requested(&[user("app", 101)], &[]),
        accounts.clone().add_requested(
            &[RequestedUser { groups: vec!["nobody-made-this".into()], ..user("app", 10_001) }],
            &[],
        ),
    ]
    .into_iter()
    .map(|result| result.unwrap_err().to_string())
    .collect();
    insta::assert_snapshot!(messages.join("\n"), @r#"
    user "app" (image.toml) cannot have id 100: "redis" (package redis-server) has it
    user "redis" has id 100 (package redis-server), and image.toml wants id 10001
    group "app" (image.toml) cannot have id 101: "redis" (package redis-server) has it
    group "redis" has id 101 (package redis-server), and image.toml wants id 7
    user "web" (image.toml) cannot have id 42000: "app" (image.toml) has it
    group "app" (image.toml) cannot have id 101: "redis" (package redis-server) has it
    user "app" is to be in group "nobody-made-this", which does not exist
    "#);
}

#[test]
fn bad_requests_are_refused() {
    for request in [
        user("", 1000),
        user("a:b", 1000),
        user("-x", 1000),
        user("a".repeat(33).as_str(), 1000),
        user("app", u32::MAX),
        user("app", 65_535),
        RequestedUser { home: Some("srv".into()), ..user("app", 1000) },
        RequestedUser { comment: Some("a\nroot::0:0:::".into()), ..user("app", 1000) },
        RequestedUser { shell: Some("/bin/sh:".into()), ..user("app", 1000) },
    ] {
        let error = base().add_requested(std::slice::from_ref(&request), &[]).unwrap_err();
        assert!(matches!(error, AccountError::Field { .. }), "{request:?}: {error}");
    }
}

#[test]
fn bad_lines_are_refused_with_their_place() {
    let error = Accounts::from_master("root:*:0:0\n", "", None).unwrap_err();
    assert!(matches!(error, AccountError::Line { file: "passwd", line: 1, .. }));
    for group in ["a:x:b:\n", "+::::\n", "x\n", "a:x:99999999999:\n"] {
        let lines = AccountTexts { group: group.to_owned(), ..AccountTexts::default() };
        assert!(base().add_package("p", &lines).is_err(), "{group}");
    }
}

#[test]
fn what_was_read_is_written_as_it_was() {
    let texts = base().to_texts();
    let again = Accounts::from_texts(&texts, None).unwrap();
    assert_eq!(again.to_texts(), texts);
}

/// The accounts of a root that mmdebstrap made, named by the environment: the master files and
/// the lines of its packages give exactly its files.
#[test]
fn equals_given_roots() {
    let roots = std::env::var_os("DRYSTONE_TEST_ROOTS").unwrap_or_default();
    let roots: Vec<_> =
        std::env::split_paths(&roots).filter(|path| path.join("etc/gshadow").exists()).collect();
    if roots.is_empty() {
        println!("skipped: DRYSTONE_TEST_ROOTS names no root");
    }
    for root in roots {
        let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
        let master = |name: &str| read(&format!("usr/share/base-passwd/{name}.master"));
        let (passwd, group) = (master("passwd"), master("group"));
        let mut ours = Accounts::from_master(&passwd, &group, Some(LAST_CHANGE)).unwrap();
        let theirs = AccountTexts {
            passwd: read("etc/passwd"),
            group: read("etc/group"),
            shadow: read("etc/shadow"),
            gshadow: read("etc/gshadow"),
        };
        // The lines behind the base's are the packages'.
        let added = |text: &str, base: usize| {
            text.lines().skip(base).map(|line| format!("{line}\n")).collect::<String>()
        };
        let (users, groups) = (passwd.lines().count(), group.lines().count());
        let lines = AccountTexts {
            passwd: added(&theirs.passwd, users),
            group: added(&theirs.group, groups),
            shadow: added(&theirs.shadow, users),
            gshadow: added(&theirs.gshadow, groups),
        };
        ours.add_package("packages", &lines).unwrap();
        assert_eq!(ours.to_texts(), theirs);
    }
}
