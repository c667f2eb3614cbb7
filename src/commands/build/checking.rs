//! `check`: everything that ran a script runs again, and differences are told.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use drystone_builder::check::{Cause, Checker, Kind, Report, describe, lay_out};
use serde_json::{Value, json};

use super::Work;
use crate::answer;
use crate::arguments::{BuildArguments, CheckArguments, DiffArgument};
use crate::diagnostics::{Failure, Family};
use crate::interrupt;
use crate::quantity::counted;

/// How many differing files of a step are told about in detail.
const DETAILED: usize = 20;

impl Work<'_> {
    pub(super) fn check(
        &self,
        build: &BuildArguments,
        arguments: &CheckArguments,
    ) -> Result<(), Failure> {
        let reports = self.run_again(build, arguments)?;
        if let Some(folder) = &arguments.keep {
            for report in reports.iter().filter(|report| !report.trees.is_empty()) {
                let (stored, rebuilt) = lay_out(self.store, report, folder, false)?;
                let text = format!("{} and {} are kept", stored.display(), rebuilt.display());
                self.wiring.display.note(text);
            }
        }
        self.wiring.display.finish();
        match arguments.json {
            true => answer::json(&to_json(&reports))?,
            false => answer::print(&self.to_text(&reports, arguments)?)?,
        }
        self.verdict(&reports, arguments.accept_fixed)
    }

    fn run_again(
        &self,
        build: &BuildArguments,
        arguments: &CheckArguments,
    ) -> Result<Vec<Report>, Failure> {
        let lock = self.complete_file()?;
        let options = self.recipe_options(build, None);
        let display = &self.wiring.display;
        let kinds = kinds(arguments);
        let checker = Checker::new(self.store, display, kinds, arguments.recipe.clone());
        let mut recipes =
            self.with_checking_builder(&lock, Some(&checker), |builder, request| {
                builder.build_recipes(request, &options)
            })?;
        interrupt::check().map_err(Failure::of)?;
        if arguments.recipe.is_none() {
            let lock = self.locking.close(&self.runtime, self.image, lock, &recipes.found)?;
            self.with_checking_builder(&lock, Some(&checker), |builder, request| {
                builder.build(request, &mut recipes)
            })?;
        }
        Ok(checker.into_reports())
    }

    fn to_text(&self, reports: &[Report], arguments: &CheckArguments) -> Result<String, Failure> {
        let mut text = String::new();
        for report in reports {
            write_report(&mut text, report, arguments.diff == DiffArgument::Own);
            if arguments.diff == DiffArgument::Auto {
                match describe(self.store, report)? {
                    Some(lines) => lines.iter().for_each(|line| {
                        let _ = writeln!(text, "    {line}");
                    }),
                    None => write_summaries(&mut text, report),
                }
            }
        }
        let equal = reports.iter().filter(|report| report.is_equal()).count();
        let runs = reports.iter().map(|report| report.runs).sum::<usize>();
        let steps = counted(reports.len() as u64, "step");
        let _ =
            writeln!(text, "{equal} of {steps} reproducible, by {}", counted(runs as u64, "run"));
        Ok(text)
    }

    fn verdict(&self, reports: &[Report], accepts_fixed: bool) -> Result<(), Failure> {
        let different: Vec<&Report> = reports.iter().filter(|it| !it.is_equal()).collect();
        let (fixed, free): (Vec<&Report>, Vec<&Report>) =
            different.into_iter().partition(|report| report.is_only_fixed());
        for report in &fixed {
            let name = &report.name;
            self.wiring.display.warn(format!("{name} depends on what only the sandbox fixes"));
        }
        let failed: Vec<&str> = match accepts_fixed {
            true => free.iter().map(|report| report.name.as_str()).collect(),
            false => free.iter().chain(&fixed).map(|report| report.name.as_str()).collect(),
        };
        match failed.as_slice() {
            [] => Ok(()),
            names => {
                let text = format!("not reproducible: {}", names.join(", "));
                Err(Failure::new(Family::NotReproducible, text))
            }
        }
    }
}

/// The kinds to vary: those asked for, else all, without those excepted.
fn kinds(arguments: &CheckArguments) -> BTreeSet<Kind> {
    let wanted = match arguments.vary.as_slice() {
        [] => &Kind::ALL[..],
        some => some,
    };
    wanted.iter().copied().filter(|kind| !arguments.except.contains(kind)).collect()
}

fn causes(causes: &[Cause]) -> String {
    let words = causes.iter().map(|cause| match cause.is_fixed() {
        true => format!("{cause} (fixed by the sandbox)"),
        false => cause.to_string(),
    });
    words.collect::<Vec<_>>().join("; ")
}

fn write_report(text: &mut String, report: &Report, with_summaries: bool) {
    let entries = match report.entries {
        1 => "1 entry".to_owned(),
        count => format!("{count} entries"),
    };
    if report.is_equal() {
        let _ = writeln!(text, "{}: equal ({entries})", report.name);
        return;
    }
    if let Some((found, tail)) = &report.failure {
        let _ = writeln!(text, "{}: fails when run again", report.name);
        let _ = writeln!(text, "  likely cause: {}", causes(found));
        tail.lines().for_each(|line| {
            let _ = writeln!(text, "    {line}");
        });
        return;
    }
    let count = report.differences.len();
    let verb = if count == 1 { "differs" } else { "differ" };
    let _ = writeln!(text, "{}: {count} of {entries} {verb}", report.name);
    for it in report.differences.iter().take(DETAILED) {
        let _ = writeln!(text, "  {}", it.path);
        let _ = writeln!(text, "    likely cause: {}", causes(&it.causes));
        for evidence in &it.evidence {
            let _ = writeln!(text, "    {evidence}");
        }
        if with_summaries {
            it.summary.iter().for_each(|line| {
                let _ = writeln!(text, "    {line}");
            });
        }
    }
    for it in report.differences.iter().skip(DETAILED) {
        let _ = writeln!(text, "  {} ({})", it.path, causes(&it.causes));
    }
}

fn write_summaries(text: &mut String, report: &Report) {
    for it in report.differences.iter().take(DETAILED) {
        let _ = writeln!(text, "  {}:", it.path);
        it.summary.iter().for_each(|line| {
            let _ = writeln!(text, "    {line}");
        });
    }
}

fn to_json(reports: &[Report]) -> Value {
    let named = |causes: &[Cause]| {
        let causes = causes.iter();
        causes.map(|it| json!({ "name": it.name(), "fixed": it.is_fixed() })).collect::<Vec<_>>()
    };
    let steps: Vec<Value> = reports
        .iter()
        .map(|report| {
            let differences: Vec<Value> = report
                .differences
                .iter()
                .map(|it| {
                    json!({
                        "output": it.output,
                        "path": it.path,
                        "causes": named(&it.causes),
                        "evidence": it.evidence,
                        "difference": it.summary,
                    })
                })
                .collect();
            let failure = report
                .failure
                .as_ref()
                .map(|(causes, tail)| json!({ "causes": named(causes), "tail": tail }));
            json!({
                "step": report.name,
                "derivation": report.derivation.to_string(),
                "equal": report.is_equal(),
                "entries": report.entries,
                "runs": report.runs,
                "differences": differences,
                "failure": failure,
            })
        })
        .collect();
    json!({ "steps": steps })
}
