//! The jobs of docs/ci.md: their YAML matches the services' published schemas, and their commands
//! do on loopback what the page says.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod common;

use std::fs;
use std::process::{Command, Output, Stdio};

use common::can_run;
use common::registry::Registry;

const DOCUMENT: &str = include_str!("../docs/ci.md");

/// The jobs of each service.
fn jobs() -> [(&'static str, &'static str); 3] {
    let mut blocks = DOCUMENT.split("```yaml\n").skip(1);
    let mut next = || blocks.next().unwrap().split("```").next().unwrap();
    let all = [("github", next()), ("gitlab", next()), ("woodpecker", next())];
    assert!(blocks.next().is_none(), "a job that no test knows");
    all
}

#[test]
fn the_jobs_match_the_services_schemas() {
    if !can_run(&["check-jsonschema"], false) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (service, text) in jobs() {
        let file = folder.path().join(format!("{service}.yml"));
        fs::write(&file, text).unwrap();
        let schema = match service {
            "github" => vec!["vendor.github-workflows"],
            "gitlab" => vec!["vendor.gitlab-ci", "--data-transform", "gitlab-ci"],
            _ => vec!["vendor.woodpecker-ci"],
        };
        let checked = Command::new("check-jsonschema")
            .arg("--builtin-schema")
            .args(schema)
            .arg(&file)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&checked.stdout);
        assert!(checked.status.success(), "{service}: {said}");
    }
}

/// The commands of a service's jobs, in the order in which they stand.
fn commands(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| {
        let line = line.trim().trim_start_matches("- ");
        line.trim_start_matches("run: ").to_owned()
    });
    lines.filter(|line| line.starts_with("drystone ") || line.starts_with("printf ")).collect()
}

#[test]
fn the_commands_do_what_the_page_says() {
    let Some(registry) = Registry::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("image.toml"), "name = \"shop\"\n[files]\n\"/srv\" = { text = \"x\" }\n")
        .unwrap();
    let bin = path("bin");
    fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_drystone"), bin.join("drystone")).unwrap();
    let run = |command: &str, variables: &[(&str, String)]| -> Output {
        Command::new("sh")
            .args(["-ec", &command.replace("registry.example.com", &registry.host())])
            .env_clear()
            .env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display()))
            .env("HOME", folder.path())
            .env("DRYSTONE_STORE", path("store"))
            .envs(variables.iter().map(|(name, value)| (*name, value)))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let line = run("drystone key generate ci --output ci.key", &[]).stdout;
    let line = String::from_utf8(line).unwrap().trim().to_owned();
    assert!(run("drystone lock", &[]).status.success());
    let secret = fs::read_to_string(path("ci.key")).unwrap().trim().to_owned();
    let shop = registry.reference("team/shop");
    let variables = [
        ("DRYSTONE_CACHE", registry.reference("team/cache")),
        ("DRYSTONE_TRUSTED_KEYS", line),
        ("DRYSTONE_SIGNING_KEY", secret),
        ("PASSWORD", "hunter2".to_owned()),
        ("GITHUB_SHA", "github".to_owned()),
        ("CI_REGISTRY", registry.host()),
        ("CI_REGISTRY_USER", "ci".to_owned()),
        ("CI_REGISTRY_PASSWORD", "hunter2".to_owned()),
        ("CI_REGISTRY_IMAGE", shop.clone()),
        ("CI_COMMIT_SHORT_SHA", "gitlab".to_owned()),
        ("CI_COMMIT_SHA", "woodpecker".to_owned()),
    ];
    for (service, text) in jobs() {
        let commands = commands(text);
        assert!(commands.len() >= 3, "{service}: {commands:?}");
        for command in commands {
            let output = run(&command, &variables);
            let code = output.status.code();
            // A runner that cannot make sandboxes is told so, and may still build this.
            let is_well = code == Some(0) || command == "drystone doctor" && code == Some(8);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(is_well, "{service}: {command}: {code:?}: {said}");
        }
        assert!(path("image.tar").exists(), "the pull request's job wrote it");
        fs::remove_file(path("image.tar")).unwrap();
        let pushed = format!("{shop}:{service}");
        let found = run(&format!("drystone sign {pushed}"), &variables);
        assert!(found.status.success(), "{pushed} is not there");
    }
}
