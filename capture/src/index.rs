//! The index: a Parquet file for each shard in the folder `index`, which DuckDB, pandas, polars and
//! pyarrow read as one table.
//!
//! One row for each token and site: prompt, position, token, layer (none outside the blocks), site,
//! shard, row. A site's rows stand together in row groups of their own, so that a reader who asks for
//! one layer skips the others.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;

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
