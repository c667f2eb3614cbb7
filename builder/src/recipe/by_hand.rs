//! Commands that people run where a recipe is built.

use std::fs::File;
use std::path::Path;

use drystone_store::store::StoreError;

use super::{BUILDER_ID, Job, RecipeError, Workbench};
use crate::sandbox::{Command, Ending, Root, SandboxError, Session};

/// Where the recipe's script stands, for people to run.
pub const SCRIPT: &str = "/build/script";

/// What is run.
#[derive(Clone, Copy)]
pub enum Wanted<'a> {
    /// A command, as a shell reads it, with its output to a file.
    Command(&'a str, &'a File),
    /// A shell, at a terminal.
    Shell(&'a Person<'a>),
}

/// A person at a terminal.
pub struct Person<'a> {
    /// What their terminal is (`TERM`).
    pub terminal: &'a str,
    /// Its rows and columns.
    pub size: (u16, u16),
    /// Carries what is typed and printed between them and the other end of the shell's terminal,
    /// until that is closed.
    pub relay: &'a (dyn Fn(File) + Sync),
}

impl Job<'_> {
    /// Runs something in the root without building, and says how it ended. `kept` is the place of
    /// a failed build; otherwise there is a new root, which goes when it ends.
    pub fn run_by_hand(
        &self,
        bench: Workbench<'_>,
        wanted: Wanted<'_>,
        kept: Option<&Path>,
    ) -> Result<Ending, RecipeError> {
        let session = bench.checkouts.session()?;
        if let Some(directory) = kept {
            let root = self.open(bench, &session, directory)?;
            return self.run_in(bench, root, wanted);
        }
        let temporary = bench.store.temporary_directory();
        let directory = tempfile::tempdir_in(temporary).map_err(|source| {
            let path = temporary.to_owned();
            StoreError::Io { action: "create a directory in", path, source }
        })?;
        let result = self.run_anew(bench, &session, directory.path(), wanted);
        session.remove(directory.path())?;
        result
    }

    fn run_anew(
        &self,
        bench: Workbench<'_>,
        session: &Session,
        directory: &Path,
        wanted: Wanted<'_>,
    ) -> Result<Ending, RecipeError> {
        let log_path = bench.store.log_path(&self.derivation().id());
        let log =
            File::options().append(true).create(true).open(&log_path).map_err(|source| {
                StoreError::Io { action: "open", path: log_path.clone(), source }
            })?;
        let root = self.open(bench, session, directory)?;
        self.prepare(&root, &log, &log_path)?;
        self.run_in(bench, root, wanted)
    }

    fn run_in(
        &self,
        bench: Workbench<'_>,
        root: Root,
        wanted: Wanted<'_>,
    ) -> Result<Ending, RecipeError> {
        let ending = match wanted {
            Wanted::Command(script, output) => {
                let command = self.unhurried(bench, &["/bin/sh", "-c", script]);
                root.execute(&command, Some(output))?.ending
            }
            Wanted::Shell(person) => self.shell(bench, &root, person)?,
        };
        root.close()?;
        Ok(ending)
    }

    fn shell(
        &self,
        bench: Workbench<'_>,
        root: &Root,
        person: &Person<'_>,
    ) -> Result<Ending, SandboxError> {
        let owner = (BUILDER_ID, BUILDER_ID);
        let script = self.script().to_owned() + "\n";
        root.write_file(SCRIPT, script.as_bytes(), 0o644, owner)?;
        let bash = root.look("/usr/bin/bash")?.is_some();
        let argv: &[&str] = match bash {
            true => &["/bin/bash", "--norc", "--noprofile", "-i"],
            false => &["/bin/sh", "-i"],
        };
        let mut command = self.unhurried(bench, argv);
        let prompt = format!("(drystone: {}) $PWD $ ", self.name);
        for (name, value) in [("PS1", prompt.as_str()), ("TERM", person.terminal), ("HISTFILE", "")]
        {
            command.env.insert(name.to_owned(), value.to_owned());
        }
        command.terminal = true;
        let other = root.open_terminal(person.size, owner)?;
        std::thread::scope(|scope| {
            scope.spawn(|| (person.relay)(other));
            Ok(root.execute(&command, None)?.ending)
        })
    }

    /// A command for people, who may take their time.
    fn unhurried(&self, bench: Workbench<'_>, argv: &[&str]) -> Command {
        let mut command = self.command(argv.iter().copied());
        bench.checkouts.limit(&mut command);
        (command.time_limit, command.silence_limit) = (None, None);
        command
    }
}
