use export::LeftOut;
use serde_json::json;
use testkit::Space;

use crate::reading::{Opened, client, exported, rows_of};

const SCHEMA: &str = "
    CREATE TYPE mood AS ENUM ('good', 'bad');
    CREATE DOMAIN tiny AS numeric(6,3);
    CREATE TABLE person (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        name text NOT NULL,
        email text,
        mood mood,
        born date,
        seen timestamptz,
        local timestamp,
        counted bigint,
        measured numeric,
        small tiny,
        yes boolean,
        tags text[],
        detail jsonb,
        raw bytea,
        address inet,
        password_hash text CHECK (password_hash LIKE '$argon2id$%'),
        api_token text
    );
    COMMENT ON TABLE person IS 'People, with everything odd.';
    COMMENT ON COLUMN person.name IS 'As typed.';
    CREATE TABLE \"Visit\" (
        person uuid NOT NULL REFERENCES person (id),
        number int NOT NULL CHECK (number > 0),
        before int,
        note text,
        PRIMARY KEY (person, number),
        FOREIGN KEY (person, before) REFERENCES \"Visit\" (person, number)
    );
    CREATE TABLE nothing (id int PRIMARY KEY);
    CREATE TABLE kept_for_a_day (id int PRIMARY KEY, answer text);
    CREATE SCHEMA other;
    CREATE TABLE other.person (id int);
    CREATE VIEW everybody AS SELECT * FROM person;
";

const ROWS: &str = r#"
    INSERT INTO person (name, email, mood, born, seen, local, counted, measured, small, yes, tags, detail, raw, address,
                        password_hash, api_token) VALUES
      ('Ada, "the first"', '', 'good', '1815-12-10', '2031-05-06 07:08:09.123456+02', '2031-05-06 07:08:09', 9007199254740993,
       123456789012345678901234567890.10, 1.100, true, '{a,"b,c",NULL,"\"q\""}', '{"a": [1, null, "x\ny"]}', '\x00ff0a', '10.0.0.1',
       '$argon2id$v=19$the-hash', 'the-token'),
      (E'line one\nline two\r\nline three', NULL, NULL, NULL, 'infinity', NULL, -1, 'NaN', NULL, false, '{}', '[]', '', '::1', NULL, NULL),
      (E'tab\tand \\ and \\n and ''quotes''', E'\n', 'bad', '2024-02-29', '1999-12-31 23:59:59.999999+00', NULL, 0, 0.0, -0.001, NULL,
       NULL, '"\u00e9"', NULL, NULL, NULL, NULL),
      ('Zoë Ødegård 検査 🧪', E'"', NULL, NULL, '0044-03-15 12:00:00+00', NULL, NULL, 1e-20, NULL, NULL, NULL, 'null', NULL, NULL, NULL, NULL);
    INSERT INTO "Visit" SELECT id, 1, NULL, 'first' FROM person;
    INSERT INTO "Visit" SELECT id, 2, 1, '' FROM person;
    INSERT INTO kept_for_a_day VALUES (1, 'an answer');
    INSERT INTO other.person VALUES (7);
"#;

fn rules() -> Vec<LeftOut> {
    vec![
        LeftOut {
            table: "person".to_owned(),
            column: Some("password_hash".to_owned()),
            why: "it is a secret of that person".to_owned(),
        },
        LeftOut {
            table: "kept_for_a_day".to_owned(),
            column: None,
            why: "no record".to_owned(),
        },
    ]
}

#[tokio::test]
async fn every_row_comes_back_as_the_database_has_it_by_the_description_alone() {
    let space = Space::new().await;
    let client = client(&space).await;
    client.batch_execute(SCHEMA).await.unwrap();
    client.batch_execute(ROWS).await.unwrap();
    let (archive, summary) = exported(&space, &rules()).await.unwrap();
    let opened = Opened::of(&archive);
    assert_eq!(summary.bytes, u64::try_from(archive.len()).unwrap());
    assert_eq!((summary.tables, summary.rows), (4, 13));
    assert_eq!(opened.tables(), ["visit", "nothing", "person", "other.person"]);

    let people = opened.rows("person");
    assert_eq!(people.len(), 4);
    for (ours, theirs) in people.iter().zip(rows_of(&client, &opened, "person").await) {
        assert_eq!(*ours, theirs);
    }
    assert!(people.iter().any(|row| row["email"] == "") && people.iter().any(|row| row["email"].is_null()));
    assert_eq!(opened.rows("nothing"), Vec::<serde_json::Value>::new());
    assert_eq!(opened.rows("visit").len(), 8);
    assert_eq!(opened.rows("other.person"), [json!({ "id": 7 })]);
}

#[tokio::test]
async fn the_description_says_types_keys_and_references_and_the_manifest_what_is_left_out() {
    let space = Space::new().await;
    let client = client(&space).await;
    client.batch_execute(SCHEMA).await.unwrap();
    client.batch_execute(ROWS).await.unwrap();
    let (archive, _) = exported(&space, &rules()).await.unwrap();
    let opened = Opened::of(&archive);
    let person = opened.resource("person");
    assert_eq!(person["schema"]["primaryKey"], json!(["id"]));
    assert_eq!(person["description"], "People, with everything odd.");
    let field = |name: &str| {
        let fields = person["schema"]["fields"].as_array().unwrap();
        fields.iter().find(|field| field["name"] == name).cloned()
    };
    assert_eq!(
        field("name").unwrap(),
        json!({ "name": "name", "type": "string", "description": "As typed.", "constraints": { "required": true },
                "postgresql:type": "text" })
    );
    assert_eq!(
        field("mood").unwrap()["constraints"]["enum"],
        json!(["good", "bad"])
    );
    assert_eq!(field("small").unwrap()["type"], "number");
    assert_eq!(field("small").unwrap()["postgresql:type"], "public.tiny");
    let visit = opened.resource("visit");
    assert_eq!(visit["title"], "Visit");
    assert_eq!(
        visit["schema"]["foreignKeys"],
        json!([
            { "fields": ["person", "before"], "reference": { "resource": "", "fields": ["person", "number"] } },
            { "fields": ["person"], "reference": { "resource": "person", "fields": ["id"] } },
        ])
    );
    assert!(
        visit["postgresql:checks"][0]
            .as_str()
            .unwrap()
            .contains("number > 0")
    );

    // What is secret is nowhere, not even as an empty column; what was left out is said, with the reason.
    assert_eq!((field("password_hash"), field("api_token")), (None, None));
    for (name, content) in &opened.files {
        let text = String::from_utf8_lossy(content);
        for secret in ["the-hash", "$argon2id$", "the-token", "an answer"] {
            assert!(!text.contains(secret), "{secret} in {name}");
        }
    }
    let left_out = opened.manifest["leftOut"].as_array().unwrap();
    let told: Vec<_> = left_out
        .iter()
        .map(|one| (one["table"].as_str().unwrap(), one["column"].as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("kept_for_a_day", None),
            ("person", Some("password_hash")),
            ("person", Some("api_token"))
        ]
    );
    let readme = String::from_utf8_lossy(&opened.files["README.txt"]).into_owned();
    for word in [
        "Acme",
        "data/person.csv",
        "RFC 4180",
        "person.api_token",
        "2031-05-06",
    ] {
        assert!(readme.contains(word), "{word} is not in:\n{readme}");
    }
}

#[tokio::test]
async fn an_export_shows_one_moment_and_many_rows_cross_every_border_between_pieces() {
    let space = Space::new().await;
    let client = client(&space).await;
    client
        .batch_execute(
            "CREATE TABLE many (id int PRIMARY KEY, note text);
             INSERT INTO many SELECT i, repeat(md5(i::text), 1 + i % 7) || E'\\n\"' || i FROM generate_series(1, 30000) i",
        )
        .await
        .unwrap();
    let mut source = crate::reading::source(&space).await;
    let txn = source.begin().await.unwrap();
    let plan = export::plan(&txn, &[]).await.unwrap();
    // What happens from here on is not in it.
    client
        .batch_execute("DELETE FROM many WHERE id <= 100; UPDATE many SET note = 'changed' WHERE id = 200")
        .await
        .unwrap();
    let mut archive = Vec::new();
    let out = async |piece: bytes::Bytes| {
        archive.extend_from_slice(&piece);
        Ok(())
    };
    export::write(&txn, &plan, &crate::reading::about(), out, |_, _| {})
        .await
        .unwrap();
    let rows = Opened::of(&archive).rows("many");
    assert_eq!(rows.len(), 30_000);
    for (at, row) in rows.iter().enumerate() {
        let id = at + 1;
        assert_eq!(row["id"], id);
        assert!(row["note"].as_str().unwrap().ends_with(&format!("\n\"{id}")));
    }
    let refused = txn.batch_execute("INSERT INTO public.many VALUES (0)").await;
    assert!(refused.is_err(), "an export writes nothing");
}
