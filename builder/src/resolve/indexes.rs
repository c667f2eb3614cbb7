//! Package indexes: fetched as a Release lists them, read on worker threads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::try_join_all;

use super::archives::{Proved, indexed_architectures};
use super::observe::Transfers;
use super::sources::MAIN;
use super::{ResolveError, Resolver};
use crate::lock::ArchiveKey;
use crate::progress::Event;
use crate::spec::{Architecture, Component, Suite};
use drystone_source::debian::archive::{ArchiveError, Indexes};
use drystone_source::debian::index::{PackageRecord, read_packages};

/// An archive and what it offers, by the architecture of the index.
pub(super) struct Offer {
    pub archive: Proved,
    pub records: BTreeMap<String, Vec<PackageRecord>>,
}

impl Offer {
    /// Takes out the records for an architecture, `all` included.
    pub fn take(&mut self, architecture: &str) -> Vec<PackageRecord> {
        let mut records = self.records.remove(architecture).unwrap_or_default();
        records.extend(self.records.get("all").into_iter().flatten().cloned());
        records
    }

    /// Gives the archive the codename that its alias stands for. Its index stays where the alias
    /// led to.
    pub fn rename(&mut self, codename: &Suite) {
        self.archive.key.suite.clone_from(codename);
        let name: Arc<str> = record_name(&self.archive.key).into();
        for record in self.records.values_mut().flatten() {
            record.repository = Arc::clone(&name);
        }
    }
}

/// The name that an archive's records carry: the repository's for third parties, since image.toml
/// asks by it; for the main one the suite as well, so that a record leads back to its archive.
pub(super) fn record_name(key: &ArchiveKey) -> String {
    match key.repository.as_str() {
        MAIN => key.to_string(),
        other => other.to_owned(),
    }
}

/// `main` first, as people list components; then by name, so that the order as written, which the
/// lock does not record, decides nothing.
pub(super) fn ordered(components: &[Component]) -> Vec<Component> {
    let mut components = components.to_vec();
    components.sort_by_key(|component| (component.as_str() != "main", component.clone()));
    components.dedup();
    components
}

impl Resolver<'_> {
    /// Fetches and reads an archive's indexes for these architectures, all at once. With
    /// `complete`, every component must be listed for every architecture.
    pub(super) async fn offer(
        &self,
        archive: Proved,
        architectures: &BTreeSet<Architecture>,
        complete: bool,
    ) -> Result<Offer, ResolveError> {
        let names: BTreeSet<String> = architectures
            .iter()
            .flat_map(|architecture| indexed_architectures(&archive, architecture))
            .collect();
        let mut wanted = Vec::new();
        for name in &names {
            for component in &archive.components {
                if archive.lists(component, name) {
                    wanted.push((name.clone(), component));
                } else if complete && !archive.lists(component, "all") {
                    return Err(missing(&archive, component, name));
                } else if !complete && name != "all" {
                    let text = format!("{} has no `{component}` for {name}", archive.key);
                    self.progress.event(Event::Note { text });
                }
            }
        }
        let transfers = Transfers::new(self.progress);
        let lists = wanted.iter().map(async |(architecture, component)| {
            let records = self.read_index(&archive, component, architecture, &transfers).await?;
            Ok::<_, ResolveError>((architecture.clone(), records))
        });
        let mut records: BTreeMap<String, Vec<PackageRecord>> = BTreeMap::new();
        for (architecture, list) in try_join_all(lists).await? {
            records.entry(architecture).or_default().extend(list);
        }
        Ok(Offer { records, archive })
    }

    /// Where a proved archive's indexes are.
    pub(super) fn indexes<'a>(
        &'a self,
        archive: &'a Proved,
        transfers: &'a Transfers<'_>,
    ) -> Indexes<'a> {
        Indexes {
            downloader: &self.downloader,
            mirror: &archive.base,
            suite: archive.key.suite.as_str(),
            release: &*archive.release,
            observer: transfers,
        }
    }

    async fn read_index(
        &self,
        archive: &Proved,
        component: &Component,
        architecture: &str,
        transfers: &Transfers<'_>,
    ) -> Result<Vec<PackageRecord>, ResolveError> {
        let indexes = self.indexes(archive, transfers);
        let fetched = indexes.packages(component.as_str(), architecture).await;
        let index = fetched.map_err(|source| archive.failed(source))?;
        let name = record_name(&archive.key);
        let read = tokio::task::spawn_blocking(move || {
            // Descriptions of careless repositories are not always UTF-8; nothing here reads them.
            let text = String::from_utf8(index.bytes)
                .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
            read_packages(&name, &text)
        });
        read.await.map_err(ResolveError::worker)?.map_err(|source| ResolveError::Index {
            archive: archive.key.clone(),
            source: Box::new(source),
        })
    }
}

fn missing(archive: &Proved, component: &Component, architecture: &str) -> ResolveError {
    archive.failed(ArchiveError::NoIndex {
        suite: archive.key.suite.to_string(),
        component: component.to_string(),
        architecture: architecture.to_owned(),
    })
}
