//! Text, JSON lines and Parquet say the same.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::data_type::{ByteArray, ByteArrayType, Int32Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use thalweg_capture::{Captured, Prompt, Prompts};

use crate::support::{Folder, lines, model, ok, refused, run, text};

/// Rows in groups of seven; an empty text is null.
fn parquet_of_text(path: &Path, lines: &[String]) {
    let schema = parse_message_type("message m { optional binary text (string); }").unwrap();
    let file = File::create(path).unwrap();
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer = SerializedFileWriter::new(file, Arc::new(schema), properties).unwrap();
    for rows in lines.chunks(7) {
        let defined: Vec<i16> = rows.iter().map(|row| i16::from(!row.is_empty())).collect();
        let there = rows.iter().filter(|row| !row.is_empty());
        let values: Vec<ByteArray> = there.map(|row| row.as_str().into()).collect();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&values, Some(&defined), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
}

/// Lists of ids, as pyarrow writes them.
fn parquet_of_ids(path: &Path, rows: &[Vec<i64>]) {
    let schema = "message m { optional group ids (LIST) { repeated group list { optional int32 element; } } }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let file = File::create(path).unwrap();
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer = SerializedFileWriter::new(file, schema, properties).unwrap();
    let (mut values, mut defined, mut repeated) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        if row.is_empty() {
            defined.push(1); // a list of none
            repeated.push(0);
        }
        for (i, id) in row.iter().enumerate() {
            values.push(*id as i32);
            defined.push(3);
            repeated.push(i16::from(i > 0));
        }
    }
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int32Type>().write_batch(&values, Some(&defined), Some(&repeated)).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
}

#[test]
fn every_format_gives_the_same_prompts_and_the_same_shards() {
    let folder = Folder::new("formats");
    let (lines, model) = (lines(40), model());
    let ids = |line: &String| match line.is_empty() {
        true => Vec::new(),
        false => model.tokens(line).unwrap().ids()[0].clone(),
    };
    let ids: Vec<Vec<i64>> = lines.iter().map(ids).collect();
    let plain = folder.write("a.txt", &text(40));
    let of = |value: serde_json::Value| serde_json::json!({"id": 1, "said": value}).to_string();
    let texts: Vec<String> = lines.iter().map(|line| of(line.as_str().into())).collect();
    let lists: Vec<String> = ids.iter().map(|ids| of(ids.clone().into())).collect();
    let json = folder.write("b.jsonl", &texts.join("\r\n"));
    let json_ids = folder.write("c.ndjson", &(lists.join("\n") + "\n"));
    let [parquet, parquet_ids] = ["d.parquet", "e.parquet"].map(|name| folder.path(name));
    parquet_of_text(&parquet, &lines);
    parquet_of_ids(&parquet_ids, &ids);
    let words = ["--prompts-per-shard", "9", "--column"];
    let rows = [
        (plain, "text"),
        (json, "said"),
        (json_ids, "said"),
        (parquet, "text"),
        (parquet_ids, "ids"),
    ]
    .map(|(path, column)| {
        let out = path.with_extension("out");
        let said = ok(run(&path, &out, &words).arg(column));
        assert!(
            said.contains("5 shards, 36 prompts") && said.contains("4 empty rows skipped"),
            "{said}"
        );
        let captured = Captured::open(&out).unwrap();
        let all = 0..captured.len();
        let site = captured.sites().unwrap()[2];
        (captured.places(all.clone()).unwrap(), captured.rows(site, all).unwrap())
    });
    for (places, x) in &rows[1..] {
        assert_eq!(places, &rows[0].0);
        assert!(x == &rows[0].1);
    }
    assert_eq!(rows[0].0[0].prompt, 0);
    assert!(rows[0].0.iter().all(|place| place.prompt % 10 != 3), "an empty row has no tokens");
}

#[test]
fn long_prompts_are_cut_and_counted() {
    let folder = Folder::new("cut");
    let prompts = folder.write("prompts.txt", "Mary gave John a book\nMary gave\n");
    let said = ok(&mut run(&prompts, &folder.path("out"), &["--max-tokens", "3"]));
    assert!(said.contains("1 prompts cut"), "{said}");
    let captured = Captured::open(folder.path("out")).unwrap();
    assert_eq!(captured.manifest().totals.unwrap().cut, 1);
    assert!(captured.len() <= 6);
}

#[test]
fn what_cannot_be_read_is_said_in_one_line() {
    let folder = Folder::new("bad-sources");
    let out = folder.path("out");
    let cases = [
        ("a.csv", "x\n", "expected a file of prompts"),
        ("b.jsonl", "{\"text\": 3}\n", "line 1: column \"text\": 3: expected text or a list"),
        (
            "c.jsonl",
            "{\"text\": \"Mary\"}\n{\"txt\": \"\"}\n",
            "line 2: no column \"text\", there are txt",
        ),
        ("d.jsonl", "{\"text\": [1, 99999]}\n", "token id 99999: the model has 0.."),
        ("e.jsonl", "{\"text\"\n", "line 1: not JSON"),
        ("f.parquet", "PAR1", "not a Parquet file"),
        ("g.txt", "", "no prompts in it"),
    ];
    for (name, text, expected) in cases {
        let said = refused(&mut run(&folder.write(name, text), &out, &[]));
        assert!(said.contains(name) && said.contains(expected), "{name}: {said}");
    }
    let said = refused(&mut run(&folder.path("h.txt"), &out, &[]));
    assert!(said.contains("cannot read"), "{said}");
    let bytes = folder.path("i.txt");
    std::fs::write(&bytes, b"Mary\n\xff\xfe\n").unwrap();
    let said = refused(&mut run(&bytes, &out, &[]));
    assert!(said.contains("line 2: not UTF-8"), "{said}");
}

#[test]
fn rows_come_one_at_a_time() {
    let folder = Folder::new("rows");
    let path = folder.write("prompts.txt", "Mary\n\nJohn");
    let rows: Vec<Prompt> =
        Prompts::open(path, "text").unwrap().rows().unwrap().map(Result::unwrap).collect();
    let word = |word: &str| Prompt::Text(word.to_owned());
    assert_eq!(rows, [word("Mary"), Prompt::Empty, word("John")]);
}
