//! `doctor`: whether this host can build, and the exact mend for what is missing.

use std::path::Path;
use std::process::{Command, Stdio};

use drystone_builder::sandbox::preflight;
use drystone_builder::settings::Settings;
use drystone_source::debian::apt_sources::read_apt_sources;
use drystone_source::fetch::shown;
use drystone_store::store::Store;
use serde::Serialize;
use serde_json::json;

use crate::answer;
use crate::arguments::DoctorArguments;
use crate::diagnostics::{Failure, Family};
use crate::terminal::{GREEN, RED, Terminal, YELLOW};
use crate::wiring::{APT, Wiring};

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// As it should be.
    Ok,
    /// Builds work, but slower or with more flags.
    Warning,
    /// Builds fail.
    Failed,
}

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize)]
struct Finding {
    name: String,
    state: State,
    detail: String,
    mend: Option<String>,
}

impl Finding {
    fn new(name: &str, state: State, detail: impl Into<String>, mend: Option<&str>) -> Self {
        let mend = mend.map(str::to_owned);
        Self { name: name.to_owned(), state, detail: detail.into(), mend }
    }
}

/// Checks, and prints what was found.
pub fn run(wiring: &Wiring, arguments: &DoctorArguments) -> Result<(), Failure> {
    let settings = wiring.settings(&wiring.flags(), None)?;
    let mut findings = vec![store(&settings)];
    findings.extend(sandbox(&settings.store.value));
    findings.push(mirror(&settings));
    findings.extend(["docker", "podman"].map(engine));
    let failed = findings.iter().filter(|finding| finding.state == State::Failed).count();
    if arguments.json {
        answer::json(&json!({ "ok": failed == 0, "checks": findings }))?;
    } else {
        answer::print(&text(&findings, wiring.display.terminal().for_answers()))?;
    }
    match failed {
        0 => Ok(()),
        _ if arguments.json => Err(Failure::told(Family::Host)),
        count => Err(Failure::new(Family::Host, format!("{count} of the checks failed"))),
    }
}

fn store(settings: &Settings) -> Finding {
    const NAME: &str = "store";
    let (path, origin) = (&settings.store.value, &settings.store.origin);
    let place = format!("{} ({origin})", path.display());
    // Looking must not make a store, so one that is not there is judged by its folder.
    if !path.join("db.sqlite").exists() {
        let existing = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        let trial = tempfile::Builder::new().prefix(".drystone-doctor-").tempfile_in(existing);
        return match trial {
            Ok(_) => Finding::new(NAME, State::Ok, format!("{place}, not made yet"), None),
            Err(error) => {
                let detail = format!("{place} cannot be made: {error}");
                Finding::new(
                    NAME,
                    State::Failed,
                    detail,
                    Some("set DRYSTONE_STORE to a folder of yours"),
                )
            }
        };
    }
    match Store::open(path) {
        Ok(_) => Finding::new(NAME, State::Ok, place, None),
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            let detail = format!("{error}: {}", cause.unwrap_or_default());
            Finding::new(
                NAME,
                State::Failed,
                detail,
                Some("set DRYSTONE_STORE to a folder of yours"),
            )
        }
    }
}

fn sandbox(store: &Path) -> Vec<Finding> {
    // Without overlays builds copy, with little space they may fail: neither is certain to hurt.
    let tolerable = ["overlay", "disk space"];
    preflight(store)
        .into_iter()
        .map(|check| {
            let state = match (check.ok, tolerable.contains(&check.name)) {
                (true, _) => State::Ok,
                (false, true) => State::Warning,
                (false, false) => State::Failed,
            };
            Finding::new(check.name, state, check.detail, check.mend.as_deref())
        })
        .collect()
}

fn mirror(settings: &Settings) -> Finding {
    const NAME: &str = "mirror";
    const MEND: &str = "set DRYSTONE_MIRROR, or `mirror` in config.toml or under [debian]";
    if let Some(mirror) = &settings.mirror {
        let detail = format!("{} ({})", shown(&mirror.value), mirror.origin);
        return Finding::new(NAME, State::Ok, detail, None);
    }
    let sources = match read_apt_sources(Path::new(APT)) {
        Ok(sources) => sources,
        Err(error) => return Finding::new(NAME, State::Warning, error.to_string(), Some(MEND)),
    };
    let with_main = sources.iter().filter(|source| source.components.iter().any(|it| it == "main"));
    let mut suites: Vec<&str> =
        with_main.flat_map(|source| source.suites.iter().map(String::as_str)).collect();
    suites.sort_unstable();
    suites.dedup();
    match suites.as_slice() {
        [] => {
            let detail = "none is set, and this host's apt sources name none";
            Finding::new(NAME, State::Warning, detail, Some(MEND))
        }
        suites => {
            let detail = format!("this host's apt sources, for {}", suites.join(", "));
            Finding::new(NAME, State::Ok, detail, None)
        }
    }
}

/// Whether an engine answers. Images can be built without one.
fn engine(program: &str) -> Finding {
    // Podman has no daemon that could be asked.
    let side = if program == "podman" { "Client" } else { "Server" };
    let format = format!("{{{{.{side}.Version}}}}");
    let output =
        Command::new(program).args(["version", "--format", &format]).stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => {
            let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            Finding::new(program, State::Ok, format!("version {version}"), None)
        }
        Ok(output) => {
            let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            let last = message.lines().last().unwrap_or("it gives no reason").to_owned();
            let mend = "start its daemon or point DOCKER_HOST at one; only `--load` needs it";
            Finding::new(program, State::Warning, last, Some(mend))
        }
        Err(_) => {
            let detail = "not installed; only `--load` would need it";
            Finding::new(program, State::Ok, detail, None)
        }
    }
}

fn text(findings: &[Finding], terminal: Terminal) -> String {
    let mut text = String::new();
    for finding in findings {
        let mark = match finding.state {
            State::Ok => terminal.paint(GREEN, "ok     "),
            State::Warning => terminal.paint(YELLOW, "warning"),
            State::Failed => terminal.paint(RED, "failed "),
        };
        text.push_str(&format!("{mark} {}: {}\n", finding.name, finding.detail));
        if let Some(mend) = &finding.mend {
            text.push_str(&format!("        mend: {mend}\n"));
        }
    }
    text
}
