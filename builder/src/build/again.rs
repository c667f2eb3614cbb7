//! Steps that ran a script, as things that can run again for [`crate::check`].

use drystone_store::digest::DerivationId;
use drystone_store::realisation::Output;

use super::finish_script::FinishScript;
use super::{BuildError, Builder};
use crate::check::{Kind, Rebuild, Rebuilt, Variation};
use crate::configure::{ConfigureError, Configured, Stage, StateTable};
use crate::recipe::{Job, Made, RecipeError, Workbench};

/// A recipe that was built.
pub(super) struct RecipeAgain<'a> {
    pub(super) job: Job<'a>,
    pub(super) bench: Workbench<'a>,
    pub(super) made: &'a Made,
}

impl Rebuild for RecipeAgain<'_> {
    fn name(&self) -> String {
        format!("recipe {}", self.job.name)
    }

    fn derivation(&self) -> DerivationId {
        self.made.derivation
    }

    fn kinds(&self) -> Vec<Kind> {
        Kind::ALL.to_vec()
    }

    fn stored(&self) -> Vec<(String, Output)> {
        let outputs = self.made.outputs.iter();
        outputs.map(|(name, output)| (name.to_string(), output.clone())).collect()
    }

    fn rebuild(&self, variation: &Variation) -> Result<Rebuilt, BuildError> {
        match self.job.rebuild(self.bench, variation) {
            Ok(outputs) => Ok(Rebuilt::Outputs(
                outputs.into_iter().map(|(name, output)| (name.to_string(), output)).collect(),
            )),
            Err(RecipeError::Failed(failed)) => Ok(Rebuilt::Failed(format!(
                "its {} {}\n{}",
                failed.step, failed.ending, failed.tail
            ))),
            Err(error) => Err(error.into()),
        }
    }
}

/// What differs between hosts although there is a sandbox. What it fixes stays: umask, locale and
/// the like are dpkg's own to fix for maintainer scripts.
fn kinds_of_scripts() -> Vec<Kind> {
    Kind::of_hosts()
}

struct StageAgain<'a> {
    stage: &'a Stage<'a>,
    configured: &'a Configured,
    table: &'a StateTable,
}

impl Rebuild for StageAgain<'_> {
    fn name(&self) -> String {
        self.stage.title()
    }

    fn derivation(&self) -> DerivationId {
        self.configured.derivation
    }

    fn kinds(&self) -> Vec<Kind> {
        kinds_of_scripts()
    }

    fn stored(&self) -> Vec<(String, Output)> {
        vec![("out".to_owned(), self.configured.out.clone())]
    }

    fn rebuild(&self, variation: &Variation) -> Result<Rebuilt, BuildError> {
        match self.stage.rebuild(self.table, variation) {
            Ok(output) => Ok(Rebuilt::Outputs(vec![("out".to_owned(), output)])),
            Err(error @ (ConfigureError::Script { .. } | ConfigureError::Preseed { .. })) => {
                let tail = error.tail().unwrap_or_default();
                Ok(Rebuilt::Failed(format!("{error}\n{tail}")))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// A `[finish]` script that ran.
pub(super) struct FinishAgain<'a> {
    pub(super) script: &'a FinishScript<'a>,
    pub(super) output: &'a Output,
}

impl Rebuild for FinishAgain<'_> {
    fn name(&self) -> String {
        "finish script".to_owned()
    }

    fn derivation(&self) -> DerivationId {
        self.script.id()
    }

    fn kinds(&self) -> Vec<Kind> {
        kinds_of_scripts()
    }

    fn stored(&self) -> Vec<(String, Output)> {
        vec![("out".to_owned(), self.output.clone())]
    }

    fn rebuild(&self, variation: &Variation) -> Result<Rebuilt, BuildError> {
        match self.script.rebuild(variation) {
            Ok(output) => Ok(Rebuilt::Outputs(vec![("out".to_owned(), output)])),
            Err(BuildError::Finish { ending, tail, limit: _ }) => {
                Ok(Rebuilt::Failed(format!("it {ending}\n{tail}")))
            }
            Err(error) => Err(error),
        }
    }
}

impl Builder<'_> {
    /// A stage's result, made if need be, and checked if that is wanted.
    pub(super) fn realise_stage(
        &self,
        stage: &Stage<'_>,
        table: &StateTable,
    ) -> Result<Configured, BuildError> {
        let configured = stage.realise(table)?;
        if let Some(checker) = self.checker.filter(|checker| checker.wants_all()) {
            checker.check(&StageAgain { stage, configured: &configured, table })?;
        }
        Ok(configured)
    }
}
