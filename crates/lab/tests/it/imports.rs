//! Files from instruments: what lands, what is set aside, and that neither is lost.

use std::fmt::Write as _;

use lab::{
    Comparator, Flag, ImportFormat, LabError, PageRequest, ResultStatus, When,
    imports::{self, ImportError},
    orders, results,
    signoff::{self},
    specimens,
};

use crate::support::{Lab, adult, conflict, is_invalid, is_missing, items, new_order, received, value};

async fn set_aside(txn: &lab::Txn<'_>, id: lab::ImportId) -> Vec<ImportError> {
    imports::errors(txn, id, &PageRequest::default())
        .await
        .unwrap()
        .items
}

#[tokio::test]
async fn good_rows_land_as_entered_and_bad_ones_are_set_aside_with_their_reason() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patient = adult(&txn, &lab).await;
    let order = received(&txn, &lab, &patient, &["K", "NA", "CL", "CA", "CRP"]).await;
    let waiting = orders::create(&txn, &lab.receptionist, &new_order(&patient, &["K"]))
        .await
        .unwrap();
    let (tube, unreceived) = (&order.specimens[0].barcode, &waiting.specimens[0].barcode);
    let by_code = |code: &str| order.results.iter().find(|r| r.code == code).unwrap().id;
    results::enter(&txn, &lab.technician, by_code("CA"), 1, &value("9.0", "mg/dL"))
        .await
        .unwrap();
    let file = format!(
        "barcode,code,loinc,value,comparator,unit,instrument,resultedAt\r\n\
         {tube},K,,5.0,,mmol/L,AU-680,2026-01-31T08:00:00Z\r\n\
         {tube},,2951-2,140,,mmol/L,,\r\n\
         {tube},CL,,100,,mEq/L,,\r\n\
         {tube},CRP,1988-5,0.07,<,mg/L,\"AU, \"\"680\"\"\",\r\n\
         {tube},K,,5.0,,mmol/l,,\r\n\
         {tube},CA,,9.1,,mg/dL,,\r\n\
         {tube},MG,,2.0,,mg/dL,,\r\n\
         {tube},NOPE,,2.0,,mg/dL,,\r\n\
         nothing,K,,4.0,,mmol/L,,\r\n\
         qc-LOW,K,,4.0,,mmol/L,,\r\n\
         {unreceived},K,,4.0,,mmol/L,,\r\n\
         {tube},CL,,1e2,,mmol/L,,\r\n\
         {tube},CL,,100,,mmol/L,,2999-01-01T00:00:00Z\r\n\
         {tube},CL,2951-2,100,,mmol/L,,\r\n\
         {tube},\"CL,,100\r\n"
    );
    let batch = imports::run(&txn, &lab.technician, ImportFormat::Csv, false, file.as_bytes())
        .await
        .unwrap();
    assert_eq!(
        (
            batch.rows_total,
            batch.rows_ok,
            batch.rows_rejected,
            batch.repeated
        ),
        (15, 3, 12, false)
    );
    let rows = set_aside(&txn, batch.id).await;
    let codes: Vec<(i32, &str)> = rows.iter().map(|row| (row.line, row.code.as_str())).collect();
    let expected = [
        (4, "wrong_unit"),
        (6, "duplicate_in_file"),
        (7, "conflict"),
        (8, "not_ordered"),
        (9, "unknown_test"),
        (10, "unknown_specimen"),
        (11, "control_sample"),
        (12, "not_received"),
        (13, "bad_value"),
        (14, "bad_value"),
        (15, "unknown_test"),
        (16, "bad_row"),
    ];
    assert_eq!(codes, expected);
    assert!(
        rows[0].raw.contains("mEq/L") && rows[0].reason.contains("mmol/L"),
        "{:?}",
        rows[0]
    );

    let k = results::get(&txn, by_code("K")).await.unwrap();
    assert_eq!(
        (k.status, k.value.as_deref(), k.flag),
        (ResultStatus::Entered, Some("5.0"), Some(Flag::Normal))
    );
    assert_eq!(
        (k.instrument.as_deref(), k.entered_by),
        (Some("AU-680"), Some(lab.technician.staff.as_uuid()))
    );
    assert_eq!(k.resulted_at, Some("2026-01-31T08:00:00Z".parse().unwrap()));
    let crp = results::get(&txn, by_code("CRP")).await.unwrap();
    assert_eq!(
        (crp.value.as_deref(), crp.comparator),
        (Some("0.07"), Some(Comparator::Less))
    );
    assert_eq!(crp.instrument.as_deref(), Some("AU, \"680\""));
    assert_eq!(
        results::get(&txn, by_code("CL")).await.unwrap().status,
        ResultStatus::Pending
    );

    // The same file gives the same batch, and nothing twice; an import touches nothing that was signed.
    let again = imports::run(&txn, &lab.technician, ImportFormat::Csv, false, file.as_bytes())
        .await
        .unwrap();
    assert_eq!((again.id, again.repeated), (batch.id, true));
    // The second row for K says what K has by now.
    assert_eq!(
        (again.rows_ok, again.rows_unchanged, again.rows_rejected),
        (0, 4, 11)
    );
    signoff::verify(&txn, &lab.supervisor, &items(&txn, &[k.id]).await)
        .await
        .unwrap();
    let late = format!("barcode,code,value,unit\n{tube},K,4.4,mmol/L");
    let late = imports::run(&txn, &lab.technician, ImportFormat::Csv, false, late.as_bytes())
        .await
        .unwrap();
    assert_eq!(set_aside(&txn, late.id).await[0].code, "conflict");
    is_missing(imports::get(&txn, lab::ImportId::generate()).await);
    is_missing(imports::errors(&txn, lab::ImportId::generate(), &PageRequest::default()).await);
}

#[tokio::test]
async fn a_dry_run_writes_no_value_and_takes_nothing_from_the_real_run() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patient = adult(&txn, &lab).await;
    let order = received(&txn, &lab, &patient, &["K"]).await;
    let file = format!(
        "{{\"barcode\":\"{}\",\"code\":\"K\",\"value\":\"4.0\",\"unit\":\"mmol/L\"}}\nnonsense\n",
        order.specimens[0].barcode
    );
    for _ in 0..2 {
        let rehearsal = imports::run(&txn, &lab.technician, ImportFormat::Ndjson, true, file.as_bytes())
            .await
            .unwrap();
        assert_eq!(
            (rehearsal.dry_run, rehearsal.rows_ok, rehearsal.rows_rejected),
            (true, 1, 1)
        );
        assert_eq!(set_aside(&txn, rehearsal.id).await[0].code, "bad_row");
    }
    assert_eq!(
        results::get(&txn, order.results[0].id).await.unwrap().status,
        ResultStatus::Pending
    );
    let real = imports::run(
        &txn,
        &lab.technician,
        ImportFormat::Ndjson,
        false,
        file.as_bytes(),
    )
    .await
    .unwrap();
    assert_eq!((real.dry_run, real.repeated, real.rows_ok), (false, false, 1));
    assert_eq!(
        results::get(&txn, order.results[0].id).await.unwrap().status,
        ResultStatus::Entered
    );
}

#[tokio::test]
async fn a_file_that_is_being_imported_is_not_imported_beside_itself() {
    let lab = Lab::new().await;
    let (mut one, mut two) = (lab.client().await, lab.client().await);
    let file = b"barcode,code,value\nnothing,K,1\n";
    let busy = one.transaction().await.unwrap();
    let first = imports::run(&busy, &lab.technician, ImportFormat::Csv, false, file)
        .await
        .unwrap();
    let txn = two.transaction().await.unwrap();
    assert_eq!(
        conflict(imports::run(&txn, &lab.technician, ImportFormat::Csv, false, file).await),
        "in_flight"
    );
    busy.commit().await.unwrap();
    let second = imports::run(&txn, &lab.technician, ImportFormat::Csv, false, file)
        .await
        .unwrap();
    assert_eq!((second.id, second.repeated), (first.id, true));
}

#[tokio::test]
async fn files_are_bounded() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let large = vec![b'x'; imports::IMPORT_BYTES_MAX + 1];
    is_invalid(
        imports::run(&txn, &lab.technician, ImportFormat::Csv, false, &large).await,
        "file",
    );
    let mut long = "barcode,code,value\n".to_owned();
    long.push_str(&"a,K,1\n".repeat(imports::IMPORT_ROWS_MAX + 1));
    is_invalid(
        imports::run(&txn, &lab.technician, ImportFormat::Csv, false, long.as_bytes()).await,
        "file",
    );
    let empty = imports::run(&txn, &lab.technician, ImportFormat::Csv, false, b"").await;
    assert!(matches!(empty, Err(LabError::Invalid(_))));
}

/// Also what the figures of a large import are read from: `cargo nextest run -p lab thousands --no-capture`.
#[tokio::test]
async fn thousands_of_rows_are_imported_verified_and_released_in_bulk() {
    const ORDERS: usize = 450;
    const TESTS: [(&str, &str, &str); 12] = [
        ("K", "4.0", "mmol/L"),
        ("NA", "140", "mmol/L"),
        ("CL", "100", "mmol/L"),
        ("CO2", "25", "mmol/L"),
        ("CA", "9.0", "mg/dL"),
        ("MG", "2.0", "mg/dL"),
        ("PHOS", "3.0", "mg/dL"),
        ("GLU", "90", "mg/dL"),
        ("BUN", "10", "mg/dL"),
        ("CREA", "0.90", "mg/dL"),
        ("ALB", "4.0", "g/dL"),
        ("TSH", "2.0", "m[IU]/L"),
    ];
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patient = adult(&txn, &lab).await;
    let mut file = "barcode,code,value,unit,instrument\n".to_owned();
    let mut ids = Vec::new();
    for _ in 0..ORDERS {
        let order = orders::create(&txn, &lab.receptionist, &new_order(&patient, &TESTS.map(|t| t.0)))
            .await
            .unwrap();
        specimens::receive(
            &txn,
            &lab.technician,
            &order.specimens[0].barcode,
            &When::default(),
        )
        .await
        .unwrap();
        for (code, value, unit) in TESTS {
            writeln!(
                file,
                "{},{code},{value},{unit},AU-680",
                order.specimens[0].barcode
            )
            .unwrap();
        }
        ids.extend(order.results.iter().map(|r| r.id));
    }
    txn.commit().await.unwrap();
    lab.owner().await.batch_execute("ANALYZE").await.unwrap();

    let clock = std::time::Instant::now();
    let txn = client.transaction().await.unwrap();
    let batch = imports::run(&txn, &lab.technician, ImportFormat::Csv, false, file.as_bytes())
        .await
        .unwrap();
    txn.commit().await.unwrap();
    let imported = clock.elapsed();
    assert_eq!((batch.rows_ok, batch.rows_rejected), (5_400, 0));

    let clock = std::time::Instant::now();
    for chunk in ids.chunks(signoff::ITEMS_MAX) {
        let txn = client.transaction().await.unwrap();
        let seen = |version| signoff::Items {
            items: chunk
                .iter()
                .map(|id| signoff::Item {
                    id: *id,
                    version,
                    confirm_lifted: None,
                    confirm_conflict: None,
                })
                .collect(),
        };
        signoff::verify(&txn, &lab.supervisor, &seen(2)).await.unwrap();
        signoff::release(&txn, &lab.supervisor, &seen(3)).await.unwrap();
        txn.commit().await.unwrap();
    }
    let signed = clock.elapsed();
    let txn = client.transaction().await.unwrap();
    let done = txn
        .query_one("SELECT count(*) FROM lab_order WHERE status = 'completed'", &[])
        .await
        .unwrap();
    assert_eq!(done.get::<_, i64>(0), i64::try_from(ORDERS).unwrap());
    println!(
        "import: {:.0} rows/s; verified and released: {:.0} results/s",
        5_400.0 / imported.as_secs_f64(),
        5_400.0 / signed.as_secs_f64()
    );
}
