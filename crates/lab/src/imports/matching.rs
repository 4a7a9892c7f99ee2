//! From rows to results: which result each row's value belongs to, or why to none. Everything is looked up for all rows at
//! once; the number of statements does not grow with the file.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;

use super::{SetAside, group, lines::ImportRow};
use crate::{
    LabError, ResultId, ResultStatus, SpecimenStatus, Txn,
    catalogue::{self, Test},
    entry::{self, Bench, Value},
    rows::Reader,
    specimens::plausible,
};

/// Control material carries this before its number.
const CONTROL_PREFIX: &str = "QC-";

/// A row whose value can land.
pub(crate) struct Landing {
    row: ImportRow,
    bench: Bench,
    value: Value,
}

impl Landing {
    pub(crate) fn entry(&self) -> entry::Entry<'_> {
        entry::Entry {
            bench: &self.bench,
            value: self.value.clone(),
            comment: None,
            instrument: self.row.instrument.as_deref(),
            resulted_at: self.row.resulted_at,
            reason: None,
        }
    }
}

type Reject = (&'static str, String);

/// What the laboratory knows about the barcodes of a file.
struct Known {
    tests: HashMap<String, Test>,
    by_loinc: HashMap<String, Vec<String>>,
    specimens: HashMap<String, SpecimenStatus>,
    /// The live result of a barcode and test.
    results: HashMap<(String, String), ResultId>,
    bench: HashMap<ResultId, Bench>,
    now: Timestamp,
}

/// Splits the rows into those that land and, with their reason, those that do not. The results are locked from here on.
pub(crate) async fn match_rows(
    txn: &Txn<'_>,
    rows: Vec<ImportRow>,
    set_aside: &mut Vec<SetAside>,
) -> Result<Vec<Landing>, LabError> {
    let known = look_up(txn, &rows).await?;
    let mut landing = Vec::with_capacity(rows.len());
    let mut lines: HashMap<ResultId, i32> = HashMap::new();
    for row in rows {
        let fits = fit(&row, &known).and_then(|(bench, value)| match lines.insert(bench.id, row.line) {
            None => Ok((bench, value)),
            Some(first) => {
                lines.insert(bench.id, first);
                Err((
                    "duplicate_in_file",
                    format!("line {first} has a value for the same specimen and test"),
                ))
            }
        });
        match fits {
            Ok((bench, value)) => landing.push(Landing {
                bench: bench.clone(),
                value,
                row,
            }),
            Err((code, reason)) => set_aside.push(SetAside {
                line: row.line,
                raw: row.raw,
                code,
                reason,
            }),
        }
    }
    Ok(landing)
}

async fn look_up(txn: &Txn<'_>, rows: &[ImportRow]) -> Result<Known, LabError> {
    let tests: HashMap<String, Test> = catalogue::list(txn, None)
        .await?
        .into_iter()
        .map(|test| (test.code.clone(), test))
        .collect();
    let by_loinc = group(
        tests
            .values()
            .filter_map(|test| Some((test.loinc.clone()?, test.code.clone()))),
    );
    let barcodes: HashSet<&str> = rows.iter().map(|row| row.barcode.as_str()).collect();
    let barcodes: Vec<&str> = barcodes.into_iter().collect();
    let statement = txn
        .prepare_cached(
            "SELECT s.barcode, s.status, r.id, r.test_code FROM specimen s LEFT JOIN result r ON r.specimen_id = s.id AND r.live
             WHERE s.barcode = ANY($1)",
        )
        .await?;
    let mut specimens = HashMap::new();
    let mut results = HashMap::new();
    for row in &txn.query(&statement, &[&barcodes]).await? {
        let row = Reader::new("specimen", row);
        let barcode: String = row.get("barcode")?;
        specimens.insert(barcode.clone(), row.get("status")?);
        if let (Some(id), Some(code)) = (
            row.get::<Option<ResultId>>("id")?,
            row.get::<Option<String>>("test_code")?,
        ) {
            results.insert((barcode, code), id);
        }
    }
    let mut wanted: Vec<ResultId> = Vec::new();
    for row in rows {
        for code in candidates(row, &by_loinc) {
            wanted.extend(results.get(&(row.barcode.clone(), code.clone())));
        }
    }
    Ok(Known {
        bench: entry::bench(txn, &wanted).await?,
        now: txn.query_one("SELECT clock_timestamp()", &[]).await?.get(0),
        tests,
        by_loinc,
        specimens,
        results,
    })
}

/// The tests that a row may mean: its code, or those with its LOINC code.
fn candidates<'a>(row: &'a ImportRow, by_loinc: &'a HashMap<String, Vec<String>>) -> &'a [String] {
    match (&row.code, &row.loinc) {
        (Some(code), _) => std::slice::from_ref(code),
        (None, Some(loinc)) => by_loinc.get(loinc).map_or(&[], Vec::as_slice),
        (None, None) => &[],
    }
}

fn fit<'a>(row: &ImportRow, known: &'a Known) -> Result<(&'a Bench, Value), Reject> {
    if row
        .barcode
        .get(..CONTROL_PREFIX.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(CONTROL_PREFIX))
    {
        return Err((
            "control_sample",
            "this is control material, not a patient's specimen".to_owned(),
        ));
    }
    let bench = find(row, known)?;
    let test = known
        .tests
        .get(&bench.test_code)
        .ok_or(("unknown_test", "the test is gone".to_owned()))?;
    if let (Some(_), Some(loinc)) = (&row.code, &row.loinc)
        && test.loinc.as_ref() != Some(loinc)
    {
        return Err((
            "unknown_test",
            format!("code {} does not have this loinc in the catalogue", test.code),
        ));
    }
    match bench.status {
        ResultStatus::Pending => {}
        ResultStatus::Entered => {
            return Err((
                "already_entered",
                "it has a value; an import replaces none".to_owned(),
            ));
        }
        status => {
            return Err((
                "already_final",
                format!("the result is {status}; an import does not touch it"),
            ));
        }
    }
    if bench.specimen_status != SpecimenStatus::Received {
        return Err((
            "not_received",
            format!(
                "the specimen is {}; a value needs a received one",
                bench.specimen_status
            ),
        ));
    }
    if let Some(at) = row.resulted_at {
        plausible(at, known.now).map_err(|message| ("bad_value", format!("resultedAt: {message}")))?;
    }
    let value = entry::read(test, &row.value, row.comparator, row.unit.as_deref()).map_err(|bad| {
        let code = if bad.field == "unit" {
            "wrong_unit"
        } else {
            "bad_value"
        };
        (code, bad.message)
    })?;
    Ok((bench, value))
}

fn find<'a>(row: &ImportRow, known: &'a Known) -> Result<&'a Bench, Reject> {
    let candidates = candidates(row, &known.by_loinc);
    if !candidates.iter().any(|code| known.tests.contains_key(code)) {
        return Err((
            "unknown_test",
            "no test of the catalogue has this code or loinc".to_owned(),
        ));
    }
    if !known.specimens.contains_key(&row.barcode) {
        return Err(("unknown_specimen", "no specimen has this barcode".to_owned()));
    }
    let mut found = candidates.iter().filter_map(|code| {
        let id = known.results.get(&(row.barcode.clone(), code.clone()))?;
        known.bench.get(id)
    });
    match (found.next(), found.next()) {
        (Some(bench), None) => Ok(bench),
        (Some(_), Some(_)) => Err((
            "ambiguous",
            "several tests of this specimen have this loinc; name the code".to_owned(),
        )),
        (None, _) => Err((
            "not_ordered",
            "this test is not ordered on this specimen".to_owned(),
        )),
    }
}
