//! Every value that a PostgreSQL column can hold comes back equal through the description alone: an
//! independent reader (Python's standard library) reads the archive, and what it read goes into a table of
//! the same shape.

use std::process::Command;

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use serde_json::Value;
use testkit::Space;
use tokio_postgres::Client;

use crate::reading::{Opened, client, exported};

/// Rows of each table of generated values. Enough for every branch of every generator to come up.
const ROWS: usize = 60;

/// A column's type, and PostgreSQL literals of it: first those that were wrong or could be, then generated
/// ones.
struct Sample {
    type_name: &'static str,
    edges: &'static [&'static str],
    generated: fn() -> BoxedStrategy<String>,
}

/// Nothing beside the edges.
fn none() -> BoxedStrategy<String> {
    Just(String::new()).boxed()
}

fn text() -> BoxedStrategy<String> {
    prop_oneof![
        proptest::string::string_regex("[ -~]{0,12}").unwrap(),
        // Line ends, quotes, separators and backslashes by themselves and beside each other.
        proptest::string::string_regex("[\r\n\t\",\\\\Na ]{0,6}").unwrap(),
        any::<String>().prop_map(|text| text.replace('\0', "")),
    ]
    .boxed()
}

fn integer() -> BoxedStrategy<String> {
    any::<i64>().prop_map(|n| n.to_string()).boxed()
}

fn number() -> BoxedStrategy<String> {
    proptest::string::string_regex("-?[0-9]{1,20}(\\.[0-9]{1,20})?")
        .unwrap()
        .boxed()
}

fn double() -> BoxedStrategy<String> {
    any::<f64>().prop_map(|n| format!("{n:e}")).boxed()
}

fn single() -> BoxedStrategy<String> {
    any::<f32>().prop_map(|n| format!("{n:e}")).boxed()
}

fn day() -> BoxedStrategy<String> {
    (1..=9999_i32, 1..=12_u8, 1..=28_u8)
        .prop_map(|(y, m, d)| format!("{y:04}-{m:02}-{d:02}"))
        .boxed()
}

fn moment() -> BoxedStrategy<String> {
    (
        1..=9999_i32,
        1..=12_u8,
        1..=28_u8,
        0..24_u8,
        0..60_u8,
        0..60_u8,
        0..1_000_000_u32,
    )
        .prop_map(|(y, m, d, h, min, s, us)| format!("{y:04}-{m:02}-{d:02} {h:02}:{min:02}:{s:02}.{us:06}"))
        .boxed()
}

fn bytes() -> BoxedStrategy<String> {
    prop::collection::vec(any::<u8>(), 0..90)
        .prop_map(|bytes| format!("\\x{}", hex::encode(bytes)))
        .boxed()
}

fn uuid() -> BoxedStrategy<String> {
    any::<u128>().prop_map(|n| format!("{n:032x}")).boxed()
}

const SAMPLES: &[Sample] = &[
    Sample {
        type_name: "text",
        edges: &[
            "",
            "\\N",
            "\\N1",
            "\\n",
            "\\.",
            "NULL",
            "null",
            "NaN",
            " padded ",
            "\u{feff}x",
        ],
        generated: text,
    },
    Sample {
        type_name: "varchar(40)",
        edges: &["", "\\N", "\\N2"],
        generated: none,
    },
    Sample {
        type_name: "char(4)",
        edges: &["", "\\N", "ab"],
        generated: none,
    },
    Sample {
        type_name: "name",
        edges: &["\\N", "a"],
        generated: none,
    },
    Sample {
        type_name: "\"char\"",
        edges: &["a", "\\"],
        generated: none,
    },
    Sample {
        type_name: "word",
        edges: &["good", "\\N", "with, comma"],
        generated: none,
    },
    Sample {
        type_name: "pair",
        edges: &["(1,\"a,b\")", "(,)", "(1,\"\\\\N\")"],
        generated: none,
    },
    Sample {
        type_name: "line_of_text",
        edges: &["\\N", "x"],
        generated: none,
    },
    Sample {
        type_name: "smallint",
        edges: &["-32768", "32767"],
        generated: none,
    },
    Sample {
        type_name: "integer",
        edges: &["-2147483648", "2147483647"],
        generated: none,
    },
    Sample {
        type_name: "bigint",
        edges: &["-9223372036854775808", "9007199254740993"],
        generated: integer,
    },
    Sample {
        type_name: "oid",
        edges: &["4294967295"],
        generated: none,
    },
    Sample {
        type_name: "numeric",
        edges: &["1.10", "NaN", "Infinity", "-Infinity", "1e-20", "-0.000"],
        generated: number,
    },
    Sample {
        type_name: "numeric(30,3)",
        edges: &["1.100", "123456789012345678901234567.890"],
        generated: none,
    },
    Sample {
        type_name: "double precision",
        edges: &["-0", "NaN", "Infinity", "-Infinity", "1e308", "5e-324", "0.1"],
        generated: double,
    },
    Sample {
        type_name: "real",
        edges: &["-0", "NaN", "Infinity", "3.4e38", "0.1"],
        generated: single,
    },
    Sample {
        type_name: "money",
        edges: &["-12.34", "92233720368547758.07"],
        generated: none,
    },
    Sample {
        type_name: "boolean",
        edges: &["true", "false"],
        generated: none,
    },
    Sample {
        type_name: "date",
        edges: &[
            "infinity",
            "-infinity",
            "0044-03-15 BC",
            "5874897-12-31",
            "4713-01-01 BC",
            "2024-02-29",
        ],
        generated: day,
    },
    Sample {
        type_name: "timestamptz",
        edges: &[
            "infinity",
            "-infinity",
            "0044-03-15 12:00:00+00 BC",
            "294276-12-31 23:59:59.999999+00",
            "1999-12-31 23:59:59.999999-12",
        ],
        generated: moment,
    },
    Sample {
        type_name: "timestamp",
        edges: &[
            "infinity",
            "-infinity",
            "0044-03-15 12:00:00 BC",
            "10000-01-01 00:00:00",
            "2031-05-06 07:08:09.000001",
        ],
        generated: moment,
    },
    Sample {
        type_name: "time",
        edges: &["24:00:00", "00:00:00", "23:59:59.999999"],
        generated: none,
    },
    Sample {
        type_name: "timetz",
        edges: &["24:00:00+00", "00:00:00-15:59", "12:00:00.5+05:30"],
        generated: none,
    },
    Sample {
        type_name: "interval",
        edges: &[
            "0",
            "-1 year +2 days -03:04:05.6",
            "1 mon 2 days 03:04:05.678",
            "-178000000 years",
        ],
        generated: none,
    },
    Sample {
        type_name: "bytea",
        edges: &["\\x", "\\x00ff0a0d"],
        generated: bytes,
    },
    Sample {
        type_name: "uuid",
        edges: &["00000000-0000-0000-0000-000000000000"],
        generated: uuid,
    },
    Sample {
        type_name: "json",
        edges: &[
            "null",
            "{\"b\": 1,  \"a\": [1.10, 12345678901234567890]}",
            "\"\\u00e9\"",
            "[]",
        ],
        generated: none,
    },
    Sample {
        type_name: "jsonb",
        edges: &["null", "{\"a\": 1.10}", "\"x\\ny\""],
        generated: none,
    },
    Sample {
        type_name: "jsonpath",
        edges: &["$.a[*]"],
        generated: none,
    },
    Sample {
        type_name: "xml",
        edges: &["<a>1</a>", "<a b=\"c\">\n</a>"],
        generated: none,
    },
    Sample {
        type_name: "inet",
        edges: &["10.0.0.1", "10.0.0.0/8", "::1"],
        generated: none,
    },
    Sample {
        type_name: "cidr",
        edges: &["10.0.0.0/8"],
        generated: none,
    },
    Sample {
        type_name: "macaddr",
        edges: &["08:00:2b:01:02:03"],
        generated: none,
    },
    Sample {
        type_name: "macaddr8",
        edges: &["08:00:2b:01:02:03:04:05"],
        generated: none,
    },
    Sample {
        type_name: "bit(3)",
        edges: &["101"],
        generated: none,
    },
    Sample {
        type_name: "bit varying",
        edges: &["", "1"],
        generated: none,
    },
    Sample {
        type_name: "point",
        edges: &["(0.1,-2)", "(Infinity,NaN)"],
        generated: none,
    },
    Sample {
        type_name: "line",
        edges: &["{1,-1,0}"],
        generated: none,
    },
    Sample {
        type_name: "lseg",
        edges: &["[(0,0),(1,1)]"],
        generated: none,
    },
    Sample {
        type_name: "box",
        edges: &["(1,1),(0,0)"],
        generated: none,
    },
    Sample {
        type_name: "path",
        edges: &["[(0,0),(1,1)]", "((0,0),(1,1))"],
        generated: none,
    },
    Sample {
        type_name: "polygon",
        edges: &["((0,0),(1,1),(1,0))"],
        generated: none,
    },
    Sample {
        type_name: "circle",
        edges: &["<(0,0),1>"],
        generated: none,
    },
    Sample {
        type_name: "tsvector",
        edges: &["'a':1 'b':2", "'\\\\N'"],
        generated: none,
    },
    Sample {
        type_name: "tsquery",
        edges: &["'a' & 'b'"],
        generated: none,
    },
    Sample {
        type_name: "int4range",
        edges: &["empty", "[1,5)", "(,)"],
        generated: none,
    },
    Sample {
        type_name: "tstzrange",
        edges: &["[2031-01-01 00:00:00+00,infinity)"],
        generated: none,
    },
    Sample {
        type_name: "nummultirange",
        edges: &["{}", "{[1.0,2.50)}"],
        generated: none,
    },
    Sample {
        type_name: "pg_lsn",
        edges: &["16/B374D848"],
        generated: none,
    },
    Sample {
        type_name: "tid",
        edges: &["(0,1)"],
        generated: none,
    },
    Sample {
        type_name: "int2vector",
        edges: &["1 2"],
        generated: none,
    },
    Sample {
        type_name: "int4[]",
        edges: &["{}", "{1,NULL,3}", "{{1,2},{3,4}}"],
        generated: none,
    },
    Sample {
        type_name: "int8[]",
        edges: &["[0:1]={9007199254740993,2}", "{1}"],
        generated: none,
    },
    Sample {
        type_name: "text[]",
        edges: &["{a,\"b,c\",NULL,\"NULL\",\"\\\\N\",\"\",\"\\\"q\\\"\"}"],
        generated: none,
    },
    Sample {
        type_name: "char(4)[]",
        edges: &["{ab,\"\"}"],
        generated: none,
    },
    Sample {
        type_name: "numeric[]",
        edges: &["{1.10,NaN,Infinity,123456789012345678901234567890.5}"],
        generated: none,
    },
    Sample {
        type_name: "float8[]",
        edges: &["{-0,0.1,NaN,-Infinity,5e-324}"],
        generated: none,
    },
    Sample {
        type_name: "boolean[]",
        edges: &["{t,f,NULL}"],
        generated: none,
    },
    Sample {
        type_name: "timestamptz[]",
        edges: &["{infinity,\"2031-05-06 07:08:09.1+02\",\"0044-03-15 12:00:00+00 BC\"}"],
        generated: none,
    },
    Sample {
        type_name: "date[]",
        edges: &["{infinity,\"0044-03-15 BC\",2024-02-29}"],
        generated: none,
    },
    Sample {
        type_name: "bytea[]",
        edges: &["{\"\\\\x00ff\",\"\\\\x\"}"],
        generated: none,
    },
    Sample {
        type_name: "json[]",
        edges: &["{null,NULL,\"[1, 1.10]\"}"],
        generated: none,
    },
    Sample {
        type_name: "inet[]",
        edges: &["{10.0.0.1,10.0.0.0/8}"],
        generated: none,
    },
    Sample {
        type_name: "interval[]",
        edges: &["{\"-1 year +2 days\",\"1 day\"}"],
        generated: none,
    },
    Sample {
        type_name: "word[]",
        edges: &["{good,\"\\\\N\",\"with, comma\"}"],
        generated: none,
    },
    Sample {
        type_name: "pair[]",
        edges: &["{\"(1,\\\"a,b\\\")\",NULL}"],
        generated: none,
    },
    Sample {
        type_name: "tiny_list",
        edges: &["{1.10,2}"],
        generated: none,
    },
];

const TYPES: &str = "
    CREATE TYPE word AS ENUM ('good', '\\N', 'with, comma');
    CREATE TYPE pair AS (n int, t text);
    CREATE DOMAIN line_of_text AS text;
    CREATE DOMAIN tiny_list AS numeric[];
";

/// What the independent reader makes of an archive: table -> rows -> column -> literal.
fn read_by_python(space: &Space, archive: &[u8]) -> Value {
    let path = space.dir().join("export.zip");
    std::fs::write(&path, archive).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reader.py");
    let output = Command::new("python3").arg(script).arg(&path).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The rows of a table whose values differ from those of the other, as text of the same settings.
async fn differences(client: &Client, one: &str, other: &str) -> Vec<String> {
    let sql = format!(
        "SELECT '{one}, only exported: ' || v FROM (SELECT {one}::text FROM {one} EXCEPT ALL SELECT {other}::text FROM {other}) AS a (v)
         UNION ALL
         SELECT '{one}, only read: ' || v FROM (SELECT {other}::text FROM {other} EXCEPT ALL SELECT {one}::text FROM {one}) AS b (v)"
    );
    let rows = client.query(&sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Exports everything, has it read by Python, puts that into tables of the same shapes, and says which rows
/// differ.
async fn round_trip(space: &Space, client: &Client, tables: &[String]) -> Vec<String> {
    let (archive, _) = exported(space, &[]).await.unwrap();
    let read = read_by_python(space, &archive);
    let mut all = Vec::new();
    for table in tables {
        let twin = format!("{table}_twin");
        let columns = client
            .query(
                "SELECT quote_literal(attname), format_type(atttypid, atttypmod) FROM pg_attribute
                  WHERE attrelid = $1::text::regclass AND attnum > 0 ORDER BY attnum",
                &[&table],
            )
            .await
            .unwrap();
        let columns = columns
            .iter()
            .map(|row| format!("(r.value->>{})::{}", row.get::<_, &str>(0), row.get::<_, &str>(1)));
        let insert = format!(
            "INSERT INTO {twin} SELECT {} FROM jsonb_array_elements($1) AS r",
            columns.collect::<Vec<_>>().join(", ")
        );
        client
            .batch_execute(&format!("CREATE TABLE {twin} (LIKE {table})"))
            .await
            .unwrap();
        client.execute(&insert, &[&read[table]]).await.unwrap();
        all.extend(differences(client, table, &twin).await);
    }
    all
}

/// A table of one column for each of `values`, which are literals of its type; an absent value is the last
/// row.
async fn filled(client: &Client, table: &str, type_name: &str, values: &[String]) {
    client
        .batch_execute(&format!(
            "CREATE TABLE {table} (id int PRIMARY KEY, v {type_name})"
        ))
        .await
        .unwrap();
    let insert = format!(
        "INSERT INTO {table} SELECT n, v::{type_name} FROM unnest($1::text[] || NULL::text) WITH ORDINALITY AS u (v, n)"
    );
    client.execute(&insert, &[&values]).await.unwrap_or_else(|error| {
        panic!("{type_name}: {}", pg::describe(&error));
    });
}

#[tokio::test]
async fn every_value_of_every_type_comes_back_equal_through_the_description() {
    let space = Space::new().await;
    let client = client(&space).await;
    client.batch_execute(TYPES).await.unwrap();
    let mut runner = TestRunner::deterministic();
    let mut tables = Vec::new();
    for (number, sample) in SAMPLES.iter().enumerate() {
        let generated = (sample.generated)();
        let generated = (0..ROWS).map(|_| generated.new_tree(&mut runner).unwrap().current());
        let generated: Vec<String> = generated.filter(|value| !value.is_empty()).collect();
        let edges: Vec<String> = sample.edges.iter().map(|&edge| edge.to_owned()).collect();
        // Each edge alone, the generated ones, and all beside each other: how a column is written depends on
        // what it holds.
        let mut sets: Vec<Vec<String>> = edges.iter().map(|edge| vec![edge.clone()]).collect();
        sets.push(generated.clone());
        sets.push(edges.into_iter().chain(generated).collect());
        for (at, values) in sets.iter().enumerate() {
            let table = format!("t{number}_{at}");
            filled(&client, &table, sample.type_name, values).await;
            tables.push(table);
        }
    }
    let wrong = round_trip(&space, &client, &tables).await;
    assert!(
        wrong.is_empty(),
        "{} values differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[tokio::test]
async fn all_types_are_tried() {
    let space = Space::new().await;
    let client = client(&space).await;
    client.batch_execute(TYPES).await.unwrap();
    let tried: Vec<String> = SAMPLES.iter().map(|sample| sample.type_name.to_owned()).collect();
    // Base types that a person's table can have. Those without input, or of the system's own catalogues, are
    // not among them.
    let rows = client
        .query(
            "SELECT t.typname::text FROM pg_type t
              WHERE t.typtype = 'b' AND t.typnamespace = 'pg_catalog'::regnamespace AND t.typcategory <> 'A' AND t.typname !~ '^(reg|pg_|_)'
                AND t.typname NOT IN ('aclitem', 'cid', 'xid', 'xid8', 'refcursor', 'txid_snapshot', 'gtsvector', 'oidvector')
                AND NOT EXISTS (SELECT FROM unnest($1::text[]) AS tried WHERE tried::regtype = t.oid)
              ORDER BY 1",
            &[&tried],
        )
        .await
        .unwrap();
    let missing: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert!(missing.is_empty(), "no sample of {missing:?}");
}

#[tokio::test]
async fn an_empty_text_alone_in_its_line_is_a_row() {
    let space = Space::new().await;
    let client = client(&space).await;
    client
        .batch_execute("CREATE TABLE lone (note text); INSERT INTO lone VALUES (''), (NULL), ('\\N'), ('x')")
        .await
        .unwrap();
    assert_eq!(
        round_trip(&space, &client, &["lone".to_owned()]).await,
        Vec::<String>::new()
    );
}

#[tokio::test]
async fn settings_of_the_database_change_nothing() {
    let space = Space::new().await;
    let setter = client(&space).await;
    setter
        .batch_execute(
            "DO $$ BEGIN
                 EXECUTE format('ALTER DATABASE %I SET standard_conforming_strings = off', current_database());
                 EXECUTE format('ALTER DATABASE %I SET escape_string_warning = off', current_database());
                 EXECUTE format('ALTER DATABASE %I SET datestyle = ''SQL, DMY''', current_database());
                 EXECUTE format('ALTER DATABASE %I SET intervalstyle = ''sql_standard''', current_database());
                 EXECUTE format('ALTER DATABASE %I SET extra_float_digits = -15', current_database());
                 EXECUTE format('ALTER DATABASE %I SET bytea_output = ''escape''', current_database());
                 EXECUTE format('ALTER DATABASE %I SET timezone = ''Asia/Kathmandu''', current_database());
             END $$;
             CREATE TABLE odd (t text, f float8, d date, i interval, b bytea, z timestamptz);
             INSERT INTO odd VALUES ('\\N', 0.1, '2031-05-06', '1 day', '\\x00ff', '2031-05-06 07:08:09+00'), (NULL, NULL, NULL, NULL, NULL, NULL)",
        )
        .await
        .unwrap();
    let (archive, _) = exported(&space, &[]).await.unwrap();
    let read = read_by_python(&space, &archive);
    let row = |at: usize| read["odd"][at].clone();
    assert_eq!(
        row(0),
        serde_json::json!({ "t": "\\N", "f": "0.1", "d": "2031-05-06", "i": "P1D", "b": "\\x00ff",
                            "z": "2031-05-06T07:08:09+00:00" })
    );
    assert!(
        row(1).as_object().unwrap().values().all(Value::is_null),
        "{}",
        row(1)
    );
}

#[tokio::test]
async fn a_column_has_the_type_of_the_standard_where_all_its_values_have_such_a_form() {
    let space = Space::new().await;
    let client = client(&space).await;
    client
        .batch_execute(
            "CREATE TABLE plain (d date, z timestamptz, i interval, n numeric, a int[]);
             INSERT INTO plain VALUES ('2031-05-06', '2031-05-06 07:08:09+00', '1 day', 'Infinity', '{1}'), (NULL, NULL, NULL, NULL, NULL);
             CREATE TABLE odd (d date, z timestamptz, i interval, n numeric, a int[]);
             INSERT INTO odd VALUES ('infinity', '0044-03-15 12:00:00+00 BC', '-1 day', 1, '[0:0]={1}')",
        )
        .await
        .unwrap();
    let (archive, _) = exported(&space, &[]).await.unwrap();
    let opened = Opened::of(&archive);
    let types = |table: &str| -> Vec<String> {
        let fields = opened.resource(table)["schema"]["fields"].as_array().unwrap();
        fields
            .iter()
            .map(|field| field["type"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        types("plain"),
        ["date", "datetime", "duration", "number", "array"]
    );
    assert_eq!(types("odd"), ["string", "string", "string", "number", "string"]);
    let fields = opened.resource("odd")["schema"]["fields"].as_array().unwrap();
    for field in fields.iter().filter(|field| field["type"] == "string") {
        let how = field["postgresql:values"].as_str().unwrap();
        assert!(how.contains("PostgreSQL"), "{field}");
    }
    assert_eq!(opened.rows("odd")[0]["z"], "0044-03-15 12:00:00+00 BC");
}
