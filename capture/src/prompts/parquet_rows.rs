//! One column of a Parquet file: text, or lists of integers. Row groups before the first row asked
//! for are skipped unread.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::serialized_reader::ReadOptionsBuilder;
use parquet::record::Field;
use parquet::record::reader::RowIter;
use parquet::schema::types::Type;

use super::Prompt;

/// Number of rows; an error where there is no such column, or none that holds prompts.
pub(super) fn rows(path: &Path, column: &str) -> Result<u64> {
    let (reader, _) = open(path, column)?;
    Ok(reader.metadata().file_metadata().num_rows() as u64)
}

/// Prompts from row `start` on.
pub(super) fn rows_from(
    path: &Path,
    column: &str,
    start: u64,
) -> Result<impl Iterator<Item = Result<Prompt>> + use<>> {
    let (reader, projection) = open(path, column)?;
    let (mut group, mut skip) = (0, start);
    for one in reader.metadata().row_groups() {
        let rows = one.num_rows() as u64;
        if skip < rows {
            break;
        }
        (skip, group) = (skip - rows, group + 1);
    }
    let failed = |error| anyhow::anyhow!("{}: not a Parquet file: {error}", path.display());
    let later = ReadOptionsBuilder::new().with_predicate(Box::new(move |_, i| i >= group)).build();
    let reader =
        SerializedFileReader::new_with_options(File::open(path)?, later).map_err(failed)?;
    let rows = RowIter::from_file_into(Box::new(reader)).project(Some(projection));
    let rows = rows.map_err(failed)?.skip(skip as usize);
    let (path, column) = (path.display().to_string(), column.to_owned());
    Ok(rows.zip(start..).map(move |(row, number)| {
        let prompt = row.map_err(anyhow::Error::from).and_then(|row| {
            let (_, field) = row.get_column_iter().next().context("the row is empty")?;
            of_field(field)
        });
        prompt.map_err(|error| anyhow::anyhow!("{path}, row {number}, {column:?}: {error:#}"))
    }))
}

fn open(path: &Path, column: &str) -> Result<(SerializedFileReader<File>, Type)> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let reader = SerializedFileReader::new(file)
        .map_err(|error| anyhow::anyhow!("{}: not a Parquet file: {error}", path.display()))?;
    let schema = reader.metadata().file_metadata().schema();
    let fields = schema.get_fields();
    let found = fields.iter().find(|field| field.name() == column).with_context(|| {
        let names: Vec<_> = fields.iter().map(|field| field.name()).collect();
        let names = names.join(", ");
        format!("{}: no column {column:?}, there are {names}: choose with --column", path.display())
    })?;
    let projection = Type::group_type_builder(schema.name())
        .with_fields(vec![Arc::clone(found)])
        .build()
        .map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
    Ok((reader, projection))
}

fn of_field(field: &Field) -> Result<Prompt> {
    match field {
        Field::Null => Ok(Prompt::Empty),
        Field::Str(text) => Ok(Prompt::of_text(text)),
        Field::Bytes(bytes) => {
            let text = std::str::from_utf8(bytes.data()).context("not UTF-8 text")?;
            Ok(Prompt::of_text(text))
        }
        Field::ListInternal(list) if list.len() == 0 => Ok(Prompt::Empty),
        Field::ListInternal(list) => {
            let ids = list.elements().iter().map(integer).collect::<Result<_>>()?;
            Ok(Prompt::Ids(ids))
        }
        other => bail!("{other}: expected text or a list of token ids"),
    }
}

fn integer(field: &Field) -> Result<i64> {
    Ok(match field {
        Field::Byte(n) => i64::from(*n),
        Field::Short(n) => i64::from(*n),
        Field::Int(n) => i64::from(*n),
        Field::Long(n) => *n,
        Field::UByte(n) => i64::from(*n),
        Field::UShort(n) => i64::from(*n),
        Field::UInt(n) => i64::from(*n),
        Field::ULong(n) => i64::try_from(*n)?,
        other => bail!("{other} among token ids: expected integers"),
    })
}
