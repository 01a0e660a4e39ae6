//! The index: a Parquet file for each shard in the folder `index`, which DuckDB, pandas, polars and
//! pyarrow read as one table.
//!
//! One row for each token and site: prompt, position, token, layer (none outside the blocks), site,
//! shard, row. A site's rows stand together in row groups of their own, so that a reader who asks for
//! one layer skips the others.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, ensure};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::record::RowAccessor;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;
use thalweg::Site;

use crate::disk;
use crate::manifest::Manifest;

const FOLDER: &str = "index";
const SCHEMA: &str = "message index {
    required int64 prompt;
    required int32 position;
    required int32 token;
    optional int32 layer;
    required binary site (string);
    required int32 shard;
    required int64 row;
}";
/// Rows of a row group, at most.
const GROUP: usize = 1 << 20;

/// The index of shard `k`.
pub(crate) fn path(dir: &Path, k: usize) -> PathBuf {
    dir.join(FOLDER).join(format!("shard-{k:05}.parquet"))
}

/// Writes the index of shard `k`, whose rows are these prompts, positions and tokens.
pub(crate) fn write(
    dir: &Path,
    k: usize,
    manifest: &Manifest,
    places: &[Vec<i64>; 3],
) -> Result<()> {
    let path = path(dir, k);
    let write = || -> Result<()> {
        fs::create_dir_all(dir.join(FOLDER))?;
        let partial = disk::partial(&path);
        let schema = Arc::new(parse_message_type(SCHEMA)?);
        let file = File::create(&partial)?;
        let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties()))?;
        for site in manifest.sites()? {
            let n = places[0].len();
            for from in (0..n).step_by(GROUP) {
                let range = from..(from + GROUP).min(n);
                let mut group = writer.next_row_group()?;
                let [prompts, positions, tokens] =
                    [0, 1, 2].map(|column| &places[column][range.clone()]);
                let small = |list: &[i64]| list.iter().map(|n| *n as i32).collect::<Vec<_>>();
                let layer = site.layer().map(|layer| layer as i32);
                let layers =
                    vec![layer.unwrap_or(0); if layer.is_some() { range.len() } else { 0 }];
                let defined = vec![i16::from(layer.is_some()); range.len()];
                let names = vec![ByteArray::from(site.to_string().as_str()); range.len()];
                let rows: Vec<i64> = range.clone().map(|row| row as i64).collect();
                column::<Int64Type>(&mut group, prompts, None)?;
                column::<Int32Type>(&mut group, &small(positions), None)?;
                column::<Int32Type>(&mut group, &small(tokens), None)?;
                column::<Int32Type>(&mut group, &layers, Some(&defined))?;
                column::<ByteArrayType>(&mut group, &names, None)?;
                column::<Int32Type>(&mut group, &vec![k as i32; range.len()], None)?;
                column::<Int64Type>(&mut group, &rows, None)?;
                group.close()?;
            }
        }
        writer.close()?;
        disk::settle(&partial, &path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Whether the index of shard `k` says of its rows what the shard itself says.
pub(crate) fn compare(
    dir: &Path,
    k: usize,
    manifest: &Manifest,
    places: &[Vec<i64>; 3],
) -> Result<()> {
    let path = path(dir, k);
    let differs = |error: anyhow::Error| anyhow!("{}: {error:#}", path.display());
    compared(&path, k, &manifest.sites()?, places).map_err(differs)
}

fn compared(path: &Path, k: usize, sites: &[Site], places: &[Vec<i64>; 3]) -> Result<()> {
    let file = File::open(path).context("cannot be read")?;
    let reader = SerializedFileReader::new(file).context("damaged")?;
    let n = places[0].len();
    let mut expected = sites.iter().flat_map(|site| (0..n).map(move |row| (site, row)));
    for row in reader.get_row_iter(None)? {
        let row = row.context("damaged")?;
        let (site, at) = expected.next().context("it has rows too many")?;
        let layer = if row.is_null(3)? { None } else { Some(row.get_int(3)? as usize) };
        let found = (row.get_long(0)?, i64::from(row.get_int(1)?), i64::from(row.get_int(2)?));
        let fits = found == (places[0][at], places[1][at], places[2][at])
            && (layer, row.get_string(4)?) == (site.layer(), &site.to_string())
            && (row.get_int(5)?, row.get_long(6)?) == (k as i32, at as i64);
        ensure!(fits, "it does not say of row {at} at {site} what the shard says");
    }
    ensure!(expected.next().is_none(), "it has rows too few");
    Ok(())
}

fn column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, File>,
    values: &[T::T],
    defined: Option<&[i16]>,
) -> Result<()> {
    let mut column = group.next_column()?.context("the index has a column too few")?;
    column.typed::<T>().write_batch(values, defined, None)?;
    Ok(column.close()?)
}

/// Counted columns as differences, the others by dictionary: a few bits a row.
fn properties() -> WriterProperties {
    let level = ZstdLevel::try_new(3).unwrap_or_default();
    let mut properties = WriterProperties::builder().set_compression(Compression::ZSTD(level));
    for counted in ["prompt", "position", "row"] {
        let path = ColumnPath::from(counted);
        properties = properties
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
    }
    properties.set_created_by("thalweg capture".to_owned()).build()
}
