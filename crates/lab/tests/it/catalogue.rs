//! The standard catalogue, row by row against the file it was made from, and the laboratory's own tests.

use lab::{
    Number, ValueType,
    catalogue::{self, NewTest, TestPatch},
    is_loinc, orders,
    profile::ProfilePatch,
    ranges, results,
};

use crate::support::{Lab, conflict, is_invalid, is_missing, new_order, received, value};

#[tokio::test]
async fn the_standard_catalogue_is_the_file() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/data/catalogue.csv");
    let mut reader = csv::Reader::from_path(path).unwrap();
    let columns = reader.headers().unwrap().clone();
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    let tests = catalogue::list(&txn, None).await.unwrap();
    assert_eq!(tests.len(), rows.len());
    for row in &rows {
        let field = |name: &str| row.get(columns.iter().position(|c| c == name).unwrap()).unwrap();
        let test = tests.iter().find(|t| t.code == field("code")).unwrap();
        let loinc = test.loinc.as_deref().unwrap();
        assert!(is_loinc(loinc), "{loinc}");
        let got = [
            &test.name,
            loinc,
            test.unit.as_deref().unwrap(),
            &test.specimen_type,
            &test.section,
        ];
        assert_eq!(
            got,
            [
                field("name"),
                field("loinc"),
                field("unit_ucum"),
                field("specimen"),
                field("section")
            ]
        );
        assert!(test.standard && test.active && test.value_type == ValueType::Quantity);
        let ranges = ranges::list(&txn, &test.code).await.unwrap();
        for (sex, low, high) in [
            ("M", field("ref_low_m"), field("ref_high_m")),
            ("F", field("ref_low_f"), field("ref_high_f")),
        ] {
            let of_sex: Vec<_> = ranges
                .iter()
                .filter(|r| r.sex.is_none_or(|s| s.as_str() == sex))
                .collect();
            assert_eq!(of_sex.len(), 1, "{} {sex}", test.code);
            let range = of_sex[0];
            let text = |bound: Option<Number>| bound.map(|n| n.to_string()).unwrap_or_default();
            assert_eq!(
                [text(range.low), text(range.high)],
                [low, high],
                "{} {sex}",
                test.code
            );
            assert_eq!(
                [text(range.crit_low), text(range.crit_high)],
                [field("crit_low"), field("crit_high")]
            );
            assert_eq!(
                (range.age_from.to_string(), range.age_to),
                ("P18Y".to_owned(), None)
            );
        }
    }
}

fn own(code: &str, value_type: ValueType) -> NewTest {
    NewTest {
        code: code.to_owned(),
        name: "Own".to_owned(),
        loinc: None,
        section: "own".to_owned(),
        specimen_type: "serum".to_owned(),
        value_type,
        unit: (value_type == ValueType::Quantity).then(|| "ug/L".to_owned()),
        decimals: None,
        allowed_values: (value_type == ValueType::Coded)
            .then(|| vec!["negative".to_owned(), "positive".to_owned()]),
        critical_values: None,
        members: (value_type == ValueType::Panel).then(|| vec!["K".to_owned(), "NA".to_owned()]),
        delta_pct: None,
        delta_days: None,
        tat_minutes: None,
    }
}

#[tokio::test]
async fn own_tests_are_checked_and_then_work_like_the_others() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let wrong = |change: &dyn Fn(&mut NewTest)| {
        let mut test = own("CD", ValueType::Quantity);
        change(&mut test);
        test
    };
    for (field, test) in [
        ("loinc", wrong(&|t| t.loinc = Some("5609-4".to_owned()))),
        ("code", wrong(&|t| t.code = "cd".to_owned())),
        ("unit", wrong(&|t| t.unit = None)),
        ("members", wrong(&|t| t.members = Some(vec!["K".to_owned()]))),
        ("deltaPct", wrong(&|t| t.delta_days = Some(5))),
        ("decimals", wrong(&|t| t.decimals = Some(10))),
        ("name", wrong(&|t| t.name = "a\0".to_owned())),
    ] {
        is_invalid(catalogue::create(&txn, &lab.admin, &test).await, field);
    }
    let mut unknown = own("P2", ValueType::Panel);
    unknown.members = Some(vec!["NOPE".to_owned()]);
    is_invalid(catalogue::create(&txn, &lab.admin, &unknown).await, "members");
    for kind in [
        ValueType::Quantity,
        ValueType::Coded,
        ValueType::Text,
        ValueType::Panel,
    ] {
        let code = format!("OWN_{}", kind.as_str().to_uppercase());
        catalogue::create(&txn, &lab.admin, &own(&code, kind))
            .await
            .unwrap();
    }
    is_missing(catalogue::get(&txn, "NOPE").await);
    let patient = crate::support::adult(&txn, &lab).await;
    let panel = orders::create(&txn, &lab.receptionist, &new_order(&patient, &["OWN_PANEL", "K"]))
        .await
        .unwrap();
    let codes: Vec<&str> = panel.results.iter().map(|r| r.code.as_str()).collect();
    assert_eq!(codes, ["K", "NA"], "a panel stands for its members");

    let order = received(&txn, &lab, &patient, &["OWN_CODED", "OWN_TEXT"]).await;
    let (coded, text) = (order.results[0].id, order.results[1].id);
    let mut entry = value("maybe", "x");
    entry.unit = None;
    is_invalid(
        results::enter(&txn, &lab.technician, coded, 1, &entry).await,
        "value",
    );
    is_invalid(
        results::enter(&txn, &lab.technician, coded, 1, &value("positive", "ug/L")).await,
        "unit",
    );
    entry.value = "positive".to_owned();
    assert_eq!(
        results::enter(&txn, &lab.technician, coded, 1, &entry)
            .await
            .unwrap()
            .flag,
        None
    );
    entry.value = "Few crystals\nseen; \"none\" before".to_owned();
    let view = results::enter(&txn, &lab.technician, text, 1, &entry)
        .await
        .unwrap();
    assert_eq!(view.value.as_deref(), Some(entry.value.as_str()));

    let again = catalogue::create(&txn, &lab.admin, &own("K", ValueType::Quantity)).await;
    assert_eq!(conflict(again), "duplicate");
}

#[tokio::test]
async fn null_takes_away_what_a_test_can_be_without() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let mut lead = crate::judging::lead();
    lead.loinc = Some("2823-3".to_owned());
    lead.decimals = Some(2);
    let before = catalogue::create(&txn, &lab.admin, &lead).await.unwrap();
    assert!(before.delta_pct.is_some());
    let change = |text: &str| serde_json::from_str::<TestPatch>(text);
    let half = change(r#"{"deltaPct": null}"#).unwrap();
    is_invalid(
        catalogue::update(&txn, &lab.admin, "LEAD", 1, &half).await,
        "deltaPct",
    );
    let named = change(r#"{"name": "Lead, whole blood"}"#).unwrap();
    let named = catalogue::update(&txn, &lab.admin, "LEAD", 1, &named)
        .await
        .unwrap();
    assert_eq!(
        (named.loinc, named.decimals),
        (lead.loinc, Some(2)),
        "what is absent stays"
    );
    let all = r#"{"loinc": null, "decimals": null, "deltaPct": null, "deltaDays": null}"#;
    let cleared = catalogue::update(&txn, &lab.admin, "LEAD", 2, &change(all).unwrap())
        .await
        .unwrap();
    assert_eq!(
        (
            cleared.loinc,
            cleared.decimals,
            cleared.delta_pct,
            cleared.delta_days
        ),
        (None, None, None, None)
    );
    for field in ["name", "section", "tatMinutes", "active"] {
        let refused = change(&format!("{{\"{field}\": null}}"));
        assert!(refused.unwrap_err().is_data(), "{field} cannot be cleared");
    }
    for field in ["name", "timeZone", "accessionPrefix", "allowSelfVerify"] {
        let refused = serde_json::from_str::<ProfilePatch>(&format!("{{\"{field}\": null}}"));
        assert!(refused.unwrap_err().is_data(), "{field} cannot be cleared");
    }
}
