//! All that the database records, as one consistent set of values: what garbage collection,
//! verification and reports start from. Reading it touches nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use rusqlite::{Connection, params_from_iter};
use serde::Serialize;

use super::StoreError;
use super::database::{Database, parse};
use crate::digest::{BlobDigest, DerivationId, TreeHash};
use crate::layer::{Compression, Layer};
use crate::path::StorePath;
use crate::realisation::{ListingRef, Output};

/// A row of the database that cannot be understood, or that belongs to nothing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct MalformedRow {
    /// The table.
    pub table: &'static str,
    /// The row's primary key: columns and values.
    pub key: Vec<(&'static str, String)>,
    /// What is wrong with the row.
    pub problem: String,
}

impl fmt::Display for MalformedRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key: Vec<&str> = self.key.iter().map(|(_, value)| value.as_str()).collect();
        write!(f, "row {} of table {}: {}", key.join(" "), self.table, self.problem)
    }
}

/// A tree that is recorded.
pub(super) struct TreeRecord {
    pub(super) output: Output,
    /// When it was last used, in seconds since 1970.
    pub(super) used: i64,
}

impl TreeRecord {
    /// The blobs that the record names.
    pub(super) fn blobs(&self) -> impl Iterator<Item = BlobDigest> + '_ {
        let layers = self.output.layers.iter().map(|layer| layer.digest);
        layers.chain([self.output.listing.digest])
    }
}

/// A derivation that is recorded, and the trees that it gave.
pub(super) struct DerivationRecord {
    /// When it was last used, in seconds since 1970.
    pub(super) used: i64,
    pub(super) outputs: BTreeMap<String, TreeHash>,
}

/// All records.
#[derive(Default)]
pub(super) struct Inventory {
    pub(super) trees: BTreeMap<TreeHash, TreeRecord>,
    pub(super) derivations: BTreeMap<DerivationId, DerivationRecord>,
    pub(super) malformed: Vec<MalformedRow>,
}

/// Rows that go, in one transaction.
#[derive(Debug, Default)]
pub(super) struct Removal {
    pub(super) trees: BTreeSet<TreeHash>,
    pub(super) derivations: BTreeSet<DerivationId>,
    pub(super) layers: BTreeSet<(TreeHash, Compression)>,
    pub(super) malformed: Vec<MalformedRow>,
    /// Facts and substitutes that were last used before this time go too.
    pub(super) facts_before: Option<i64>,
}

type Texts = Vec<String>;

/// A query whose columns are all read as text, so that no value is of a wrong type; the first
/// `keys` columns are the primary key.
struct Query {
    table: &'static str,
    keys: &'static [&'static str],
    columns: &'static str,
    count: usize,
}

const TREES: Query = Query {
    table: "trees",
    keys: &["hash"],
    columns: "name, diff_id, size, listing, listing_size, used",
    count: 6,
};
const LAYERS: Query =
    Query { table: "layers", keys: &["tree", "compression"], columns: "digest, size", count: 2 };
const REFERENCES: Query =
    Query { table: "tree_references", keys: &["tree", "reference"], columns: "0", count: 1 };
const DERIVATIONS: Query = Query { table: "derivations", keys: &["id"], columns: "used", count: 1 };
const OUTPUTS: Query =
    Query { table: "outputs", keys: &["derivation", "name"], columns: "tree", count: 1 };

impl Query {
    fn rows(&self, connection: &Connection) -> Result<Vec<Texts>, rusqlite::Error> {
        let columns: Vec<String> = self
            .keys
            .iter()
            .copied()
            .chain(self.columns.split(", "))
            .map(|column| format!("CAST({column} AS TEXT)"))
            .collect();
        let sql = format!("SELECT {} FROM {} ORDER BY 1", columns.join(", "), self.table);
        let total = self.keys.len() + self.count;
        let mut statement = connection.prepare(&sql)?;
        let rows = statement.query_map([], |row| (0..total).map(|at| row.get(at)).collect())?;
        rows.collect()
    }

    fn malformed(&self, row: &[String], problem: impl fmt::Display) -> MalformedRow {
        let key = self.keys.iter().copied().zip(row.iter().cloned()).collect();
        MalformedRow { table: self.table, key, problem: problem.to_string() }
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, StoreError> {
    text.parse().map_err(|_| StoreError::Corrupt { what: format!("{text:?} as a number") })
}

impl Inventory {
    fn add_tree(&mut self, row: &[String]) -> Result<(), StoreError> {
        let hash: TreeHash = parse(&row[0])?;
        let listing = ListingRef { digest: parse(&row[4])?, size: number(&row[5])? };
        let output = Output {
            path: StorePath::new(hash, &row[1]),
            diff_id: parse(&row[2])?,
            size: number(&row[3])?,
            layers: Vec::new(),
            listing,
            references: Vec::new(),
        };
        self.trees.insert(hash, TreeRecord { output, used: number(&row[6])? });
        Ok(())
    }

    fn tree(&mut self, text: &str) -> Result<&mut TreeRecord, StoreError> {
        let orphan = || StoreError::Corrupt { what: format!("{text:?}, no recorded tree") };
        self.trees.get_mut(&parse::<TreeHash>(text)?).ok_or_else(orphan)
    }

    fn add_layer(&mut self, row: &[String]) -> Result<(), StoreError> {
        let (compression, digest) = (parse(&row[1])?, parse(&row[2])?);
        let size = number(&row[3])?;
        let output = &mut self.tree(&row[0])?.output;
        let diff_id = output.diff_id;
        output.layers.push(Layer { compression, digest, size, diff_id });
        Ok(())
    }

    fn add_reference(&mut self, row: &[String]) -> Result<(), StoreError> {
        let reference = parse(&row[1])?;
        self.tree(&row[0])?.output.references.push(reference);
        Ok(())
    }

    fn add_derivation(&mut self, row: &[String]) -> Result<(), StoreError> {
        let record = DerivationRecord { used: number(&row[1])?, outputs: BTreeMap::new() };
        self.derivations.insert(parse(&row[0])?, record);
        Ok(())
    }

    fn add_output(&mut self, row: &[String]) -> Result<(), StoreError> {
        let tree = parse(&row[2])?;
        let text = &row[0];
        let orphan = || StoreError::Corrupt { what: format!("{text:?}, no recorded derivation") };
        let record = self.derivations.get_mut(&parse(text)?).ok_or_else(orphan)?;
        record.outputs.insert(row[1].clone(), tree);
        Ok(())
    }

    /// The records, or the first malformed row as an error.
    pub(super) fn whole(self) -> Result<Self, StoreError> {
        match self.malformed.first() {
            None => Ok(self),
            Some(row) => Err(StoreError::Corrupt { what: row.to_string() }),
        }
    }
}

impl Database {
    /// Reads all records, at one instant.
    pub(super) fn inventory(&self) -> Result<Inventory, StoreError> {
        type Add = fn(&mut Inventory, &[String]) -> Result<(), StoreError>;
        // Trees before what belongs to trees, derivations before their outputs.
        let tables: [(&Query, Add); 5] = [
            (&TREES, Inventory::add_tree),
            (&LAYERS, Inventory::add_layer),
            (&REFERENCES, Inventory::add_reference),
            (&DERIVATIONS, Inventory::add_derivation),
            (&OUTPUTS, Inventory::add_output),
        ];
        let rows = self.read(|connection| {
            let snapshot = connection.unchecked_transaction()?;
            tables.iter().map(|(query, _)| query.rows(&snapshot)).collect::<Result<Vec<_>, _>>()
        })?;
        let mut inventory = Inventory::default();
        for ((query, add), rows) in tables.iter().zip(rows) {
            for row in rows {
                if let Err(error) = add(&mut inventory, &row) {
                    inventory.malformed.push(query.malformed(&row, error));
                }
            }
        }
        Ok(inventory)
    }

    /// Visits each derivation's id and JSON as they are recorded.
    pub(super) fn each_derivation(
        &self,
        mut visit: impl FnMut(&str, &str),
    ) -> Result<(), StoreError> {
        self.read(|connection| {
            let sql = "SELECT CAST(id AS TEXT), CAST(json AS TEXT) FROM derivations ORDER BY 1";
            let mut statement = connection.prepare(sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                visit(row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_str()?);
            }
            Ok(())
        })
    }

    /// What SQLite itself finds wrong with its file.
    pub(super) fn integrity(&self) -> Result<Vec<String>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare("PRAGMA integrity_check")?;
            let lines = statement.query_map([], |row| row.get::<_, String>(0))?;
            lines.filter(|line| line.as_ref().map_or(true, |line| line != "ok")).collect()
        })
    }

    /// How many facts were last used before a time.
    pub(super) fn facts_before(&self, time: i64) -> Result<u64, StoreError> {
        let count: i64 = self.read(|connection| {
            let sql = "SELECT count(*) FROM facts WHERE used < ?1";
            connection.query_row(sql, [time], |row| row.get(0))
        })?;
        Ok(count.unsigned_abs())
    }

    /// Removes rows. When this returns they are gone for good: files that they named may go.
    pub(super) fn remove(&self, removal: &Removal) -> Result<(), StoreError> {
        // Normally a commit may be lost with the power; a file that is deleted after it may not
        // come back, and would then be missed.
        self.read(|connection| connection.execute_batch("PRAGMA synchronous = FULL"))?;
        let removed = self.write(|connection| remove(connection, removal));
        self.read(|connection| connection.execute_batch("PRAGMA synchronous = NORMAL"))?;
        removed
    }
}

fn remove(connection: &Connection, removal: &Removal) -> Result<(), rusqlite::Error> {
    let run = |sql: &str, values: &[String]| -> Result<(), rusqlite::Error> {
        connection.prepare_cached(sql)?.execute(params_from_iter(values)).map(|_| ())
    };
    for id in &removal.derivations {
        let key = [id.to_string()];
        run("DELETE FROM outputs WHERE derivation = ?1", &key)?;
        run("DELETE FROM derivations WHERE id = ?1", &key)?;
    }
    for tree in &removal.trees {
        let key = [tree.to_string()];
        run("DELETE FROM layers WHERE tree = ?1", &key)?;
        run("DELETE FROM tree_references WHERE tree = ?1", &key)?;
        run("DELETE FROM trees WHERE hash = ?1", &key)?;
    }
    for (tree, compression) in &removal.layers {
        let key = [tree.to_string(), compression.id().to_owned()];
        run("DELETE FROM layers WHERE tree = ?1 AND compression = ?2", &key)?;
    }
    for row in &removal.malformed {
        let (columns, values): (Vec<_>, Vec<_>) = row.key.iter().cloned().unzip();
        let terms: Vec<String> =
            columns.iter().map(|column| format!("CAST({column} AS TEXT) = ?")).collect();
        run(&format!("DELETE FROM {} WHERE {}", row.table, terms.join(" AND ")), &values)?;
    }
    if let Some(time) = removal.facts_before {
        for table in ["facts", "substitutes"] {
            let sql = format!("DELETE FROM {table} WHERE used < CAST(?1 AS INTEGER)");
            run(&sql, &[time.to_string()])?;
        }
    }
    Ok(())
}
