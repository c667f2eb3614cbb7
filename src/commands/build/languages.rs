//! What lockfiles lead to beyond this host: registries, as this host's tools are configured.

use std::collections::BTreeMap;
use std::path::Path;

use drystone_builder::build::{BuildError, LanguageNetwork};
use drystone_builder::progress::Progress;
use drystone_builder::recipe::RecipeError;
use drystone_builder::recipe::language::registry::{Host, Registries};
use drystone_builder::recipe::language::{
    Dependency, Fetching, Integrity, LanguageError, Question, fetch_all,
};
use drystone_source::fetch::Downloader;

use super::{Work, interrupted};
use crate::interrupt;
use crate::wiring::environment;

/// The network of one build.
pub(super) struct Languages<'a> {
    pub work: &'a Work<'a>,
    pub downloader: &'a Downloader,
}

impl Languages<'_> {
    fn host<'h>(&'h self, project: &'h Path) -> Host<'h> {
        Host {
            project,
            environment: &environment,
            temporary: self.work.store.temporary_directory(),
            downloader: self.downloader,
        }
    }

    /// Waits for the network, or for the user's Ctrl-C.
    fn wait<T>(
        &self,
        titles: impl Iterator<Item = String>,
        answer: impl Future<Output = Result<T, LanguageError>>,
    ) -> Result<T, BuildError> {
        interrupt::check().map_err(interrupted)?;
        let failed = |error| BuildError::Recipe(RecipeError::Language(error));
        if self.work.locking.offline {
            return Err(failed(LanguageError::Offline { titles: titles.collect() }));
        }
        let answer = self.work.runtime.block_on(interrupt::or_cancelled(answer));
        answer.map_err(interrupted)?.map_err(failed)
    }
}

impl LanguageNetwork for Languages<'_> {
    fn fetch(&self, wanted: Vec<Dependency>, project: &Path) -> Result<(), BuildError> {
        let progress: &dyn Progress = &self.work.wiring.display;
        let titles: Vec<String> = wanted.iter().map(ToString::to_string).collect();
        let fetched = async {
            let mut registries = Registries::new(self.host(project));
            let wanted = registries.addresses(wanted).await?;
            let (store, downloader, registries) = (self.work.store, self.downloader, &registries);
            fetch_all(Fetching { store, downloader, registries, progress }, wanted).await
        };
        self.wait(titles.into_iter(), fetched)
    }

    fn file_names(
        &self,
        questions: &[Question],
        project: &Path,
    ) -> Result<BTreeMap<Integrity, String>, BuildError> {
        let titles = questions.iter().map(|it| format!("{} {}", it.name, it.version));
        let asked = async {
            let mut registries = Registries::new(self.host(project));
            Ok(registries.file_names(questions).await?)
        };
        self.wait(titles, asked)
    }
}
