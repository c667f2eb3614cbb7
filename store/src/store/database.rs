//! The store's metadata: SQLite in WAL mode, so that many processes read and write at once.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, TransactionBehavior, params};

use super::StoreError;
use crate::derivation::Derivation;
use crate::digest::{BlobDigest, DerivationId, TreeHash};
use crate::layer::{Compression, Layer};
use crate::path::StorePath;
use crate::realisation::{ListingRef, Output, Realisation};

/// The format of the store that this program reads and writes.
const FORMAT: i64 = 2;

const SCHEMA: &str = "
CREATE TABLE trees (
    hash TEXT PRIMARY KEY, name TEXT NOT NULL, diff_id TEXT NOT NULL, size INTEGER NOT NULL,
    listing TEXT NOT NULL, listing_size INTEGER NOT NULL, used INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE layers (
    tree TEXT NOT NULL, compression TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL,
    PRIMARY KEY (tree, compression)
) WITHOUT ROWID;
CREATE TABLE tree_references (
    tree TEXT NOT NULL, reference TEXT NOT NULL, PRIMARY KEY (tree, reference)
) WITHOUT ROWID;
CREATE TABLE derivations (
    id TEXT PRIMARY KEY, json TEXT NOT NULL, used INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE outputs (
    derivation TEXT NOT NULL, name TEXT NOT NULL, tree TEXT NOT NULL,
    PRIMARY KEY (derivation, name)
) WITHOUT ROWID;
CREATE INDEX outputs_by_tree ON outputs (tree);
CREATE TABLE facts (
    kind TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, used INTEGER NOT NULL,
    PRIMARY KEY (kind, key)
) WITHOUT ROWID;
";

/// What format 2 adds: realisations that substituters gave.
const SUBSTITUTES: &str = "
CREATE TABLE substitutes (
    derivation TEXT PRIMARY KEY, realisation TEXT NOT NULL, json TEXT NOT NULL,
    attestations TEXT NOT NULL, used INTEGER NOT NULL
) WITHOUT ROWID;
";

/// How long others are waited for.
const BUSY: Duration = Duration::from_secs(120);

/// Seconds after which a read records once more that something is in use. A day: reads stay
/// reads, and `gc --keep-days` counts days.
const TOUCH_AFTER: i64 = 24 * 60 * 60;

/// A connection to the metadata.
pub(super) struct Database {
    path: PathBuf,
    connection: Mutex<Connection>,
}

impl Database {
    pub(super) fn open(store: &Path) -> Result<Self, StoreError> {
        let path = store.join("db.sqlite");
        let start = Instant::now();
        let (connection, version) = loop {
            match Self::connect(&path) {
                // While another process makes the database, or is the last to close it, SQLite
                // does not wait by itself.
                Err(rusqlite::Error::SqliteFailure(failure, _))
                    if failure.code == ErrorCode::DatabaseBusy && start.elapsed() < BUSY =>
                {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(source) => return Err(StoreError::Database { path, source }),
                Ok(connected) => break connected,
            }
        };
        if version > FORMAT {
            let path = store.to_owned();
            return Err(StoreError::Newer { path, found: version, known: FORMAT });
        }
        Ok(Self { path, connection: Mutex::new(connection) })
    }

    /// Opens the database, made or brought to this format if need be; and the format it had.
    fn connect(path: &Path) -> Result<(Connection, i64), rusqlite::Error> {
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(BUSY)?;
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if version < FORMAT {
            Self::create(&mut connection)?;
        }
        connection.execute_batch("PRAGMA synchronous = NORMAL")?;
        // Otherwise each statement is planned anew for each value that is looked for.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        Ok((connection, version))
    }

    fn create(connection: &mut Connection) -> Result<(), rusqlite::Error> {
        connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let version: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if version < 1 {
            transaction.execute_batch(SCHEMA)?;
        }
        if version < FORMAT {
            transaction.execute_batch(SUBSTITUTES)?;
            transaction.pragma_update(None, "user_version", FORMAT)?;
        }
        transaction.commit()
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self) -> impl Fn(rusqlite::Error) -> StoreError + '_ {
        |source| StoreError::Database { path: self.path.clone(), source }
    }

    /// Runs `work` in one transaction.
    pub(super) fn write<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, rusqlite::Error>,
    ) -> Result<T, StoreError> {
        let mut connection = self.lock();
        let run = || {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        run().map_err(self.error())
    }

    /// Runs `work` outside a transaction.
    pub(super) fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, rusqlite::Error>,
    ) -> Result<T, StoreError> {
        work(&self.lock()).map_err(self.error())
    }

    pub(super) fn put_output(&self, output: &Output, now: i64) -> Result<(), StoreError> {
        self.write(|connection| put_output(connection, output, now))
    }

    pub(super) fn put_realisation(
        &self,
        derivation: &Derivation,
        realisation: &Realisation,
        now: i64,
    ) -> Result<(), StoreError> {
        let id = realisation.derivation.to_string();
        self.write(|connection| {
            connection
                .prepare_cached("INSERT OR REPLACE INTO derivations VALUES (?1, ?2, ?3)")?
                .execute(params![id, derivation.to_json(), now])?;
            connection.execute("DELETE FROM outputs WHERE derivation = ?1", [&id])?;
            for (name, output) in &realisation.outputs {
                put_output(connection, output, now)?;
                connection
                    .prepare_cached("INSERT OR REPLACE INTO outputs VALUES (?1, ?2, ?3)")?
                    .execute(params![id, name, output.path.hash().to_string()])?;
            }
            Ok(())
        })
    }

    pub(super) fn realisation(&self, id: &DerivationId) -> Result<Option<Realisation>, StoreError> {
        let key = id.to_string();
        // One statement: asking for each part by itself takes more than twice as long.
        let rows: Vec<(String, i64, String, Option<TreeRow>)> = self.read(|connection| {
            connection
                .prepare_cached(&format!(
                    "SELECT {TREE_COLUMNS}, outputs.name, derivations.used, tree
                     FROM outputs JOIN derivations ON derivations.id = derivation
                     LEFT JOIN trees ON hash = tree WHERE derivation = ?1"
                ))?
                .query_map([&key], |row| {
                    // No column of a tree that is there is null.
                    let tree = match row.get_ref(0)? {
                        ValueRef::Null => None,
                        _ => Some(read_tree(row)?),
                    };
                    Ok((row.get(8)?, row.get(9)?, row.get(10)?, tree))
                })?
                .collect()
        })?;
        let Some(used) = rows.first().map(|(_, used, ..)| *used) else { return Ok(None) };
        self.touch("UPDATE derivations SET used = ?1 WHERE id = ?2", &[&key], used);
        let mut outputs = std::collections::BTreeMap::new();
        for (name, _, tree, row) in rows {
            let Some(row) = row else { return Ok(None) };
            outputs.insert(name, self.output_of(&parse(&tree)?, &tree, &row)?);
        }
        Ok(Some(Realisation { derivation: *id, outputs }))
    }

    pub(super) fn output(&self, tree: &TreeHash) -> Result<Option<Output>, StoreError> {
        let hash = tree.to_string();
        let found = self.read(|connection| {
            connection
                .prepare_cached(&format!("SELECT {TREE_COLUMNS} FROM trees WHERE hash = ?1"))?
                .query_row([&hash], read_tree)
                .optional()
        })?;
        found.map(|row| self.output_of(tree, &hash, &row)).transpose()
    }

    /// What a row says of a tree, which is in use.
    fn output_of(&self, tree: &TreeHash, hash: &str, row: &TreeRow) -> Result<Output, StoreError> {
        self.touch("UPDATE trees SET used = ?1 WHERE hash = ?2", &[hash], row.used);
        let diff_id = parse(&row.diff_id)?;
        let layer = |line: &str| {
            let mut words = line.split(' ');
            let mut word = || words.next().unwrap_or_default();
            Ok(Layer {
                compression: parse::<Compression>(word())?,
                digest: parse(word())?,
                size: parse(word())?,
                diff_id,
            })
        };
        let mut layers: Vec<&str> = row.layers.lines().collect();
        let mut references: Vec<&str> = row.references.lines().collect();
        layers.sort_unstable();
        references.sort_unstable();
        Ok(Output {
            path: StorePath::new(*tree, &row.name),
            diff_id,
            size: unsigned(row.size)?,
            layers: layers.into_iter().map(layer).collect::<Result<_, StoreError>>()?,
            listing: ListingRef {
                digest: parse::<BlobDigest>(&row.listing)?,
                size: unsigned(row.listing_size)?,
            },
            references: references.into_iter().map(parse).collect::<Result<_, _>>()?,
        })
    }

    pub(super) fn derivation_json(&self, id: &DerivationId) -> Result<Option<String>, StoreError> {
        self.read(|connection| {
            connection
                .prepare_cached("SELECT json FROM derivations WHERE id = ?1")?
                .query_row([id.to_string()], |row| row.get(0))
                .optional()
        })
    }

    pub(super) fn fact(&self, kind: &str, key: &str) -> Result<Option<String>, StoreError> {
        let found: Option<(String, i64)> = self.read(|connection| {
            connection
                .prepare_cached("SELECT value, used FROM facts WHERE kind = ?1 AND key = ?2")?
                .query_row([kind, key], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()
        })?;
        let Some((value, used)) = found else { return Ok(None) };
        self.touch("UPDATE facts SET used = ?1 WHERE kind = ?2 AND key = ?3", &[kind, key], used);
        Ok(Some(value))
    }

    /// Records that a row is in use, at most once a day. A failure is no failure of the read that
    /// led here: a store that may only be read stays usable.
    fn touch(&self, update: &str, key: &[&str], used: i64) {
        let now = super::now();
        if now - used <= TOUCH_AFTER {
            return;
        }
        let now = now.to_string();
        let values = std::iter::once(now.as_str()).chain(key.iter().copied());
        let touched = self.write(|connection| {
            connection.prepare_cached(update)?.execute(rusqlite::params_from_iter(values))
        });
        if let Err(error) = touched {
            tracing::debug!(%error, ?key, "cannot record that this is in use");
        }
    }

    pub(super) fn put_fact(
        &self,
        kind: &str,
        key: &str,
        value: &str,
        now: i64,
    ) -> Result<(), StoreError> {
        self.write(|connection| {
            connection
                .prepare_cached("INSERT OR REPLACE INTO facts VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![kind, key, value, now])
                .map(|_| ())
        })
    }
}

/// The columns of [`read_tree`].
const TREE_COLUMNS: &str = "trees.name, diff_id, size, listing, listing_size, trees.used,
    (SELECT group_concat(compression || ' ' || digest || ' ' || size, char(10))
     FROM layers WHERE layers.tree = hash),
    (SELECT group_concat(reference, char(10)) FROM tree_references WHERE tree_references.tree = hash)";

struct TreeRow {
    name: String,
    diff_id: String,
    size: i64,
    listing: String,
    listing_size: i64,
    used: i64,
    /// Of each a line: compression, digest and size.
    layers: String,
    /// Of each a line.
    references: String,
}

fn read_tree(row: &Row<'_>) -> Result<TreeRow, rusqlite::Error> {
    Ok(TreeRow {
        name: row.get(0)?,
        diff_id: row.get(1)?,
        size: row.get(2)?,
        listing: row.get(3)?,
        listing_size: row.get(4)?,
        used: row.get(5)?,
        layers: row.get::<_, Option<String>>(6)?.unwrap_or_default(),
        references: row.get::<_, Option<String>>(7)?.unwrap_or_default(),
    })
}

fn put_output(connection: &Connection, output: &Output, now: i64) -> Result<(), rusqlite::Error> {
    let hash = output.path.hash().to_string();
    connection
        .prepare_cached("INSERT OR REPLACE INTO trees VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
        .execute(params![
            hash,
            output.path.name(),
            output.diff_id.to_string(),
            output.size.cast_signed(),
            output.listing.digest.to_string(),
            output.listing.size.cast_signed(),
            now
        ])?;
    for layer in &output.layers {
        connection
            .prepare_cached("INSERT OR REPLACE INTO layers VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![
                hash,
                layer.compression.id(),
                layer.digest.to_string(),
                layer.size.cast_signed()
            ])?;
    }
    for reference in &output.references {
        connection
            .prepare_cached("INSERT OR IGNORE INTO tree_references VALUES (?1, ?2)")?
            .execute(params![hash, reference.to_string()])?;
    }
    Ok(())
}

/// Reads a value that this program wrote into the database.
pub(super) fn parse<T: FromStr>(text: &str) -> Result<T, StoreError> {
    text.parse().map_err(|_| StoreError::Corrupt { what: format!("{text:?}") })
}

fn unsigned(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|_| StoreError::Corrupt { what: number.to_string() })
}
