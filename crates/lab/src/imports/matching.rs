//! From rows to results: which result each row's value belongs to, or why to none. Everything is looked up
//! for all rows at once; the number of statements does not grow with the file.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;

use super::{
    lines::{self, ImportRow},
    set_aside::SetAside,
};
use crate::{
    ImportId, LabError, ResultId, ResultStatus, SpecimenStatus, Txn,
    catalogue::{self, Test},
    entry::{self, Bench, Value},
    moment::plausible,
    rows::Reader,
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
            resulted_at: self.row.resulted_at.as_ref().ok().copied().flatten(),
            reason: None,
        }
    }
}

type Reject = (&'static str, String);

/// The code of a row that contradicts a value which is there.
pub(crate) const CONFLICT: &str = "conflict";

/// The code of a row that contradicts another one of its file.
const CONTRADICTION: &str = "contradiction";
const BAD_VALUE: &str = "bad_value";
const WRONG_UNIT: &str = "wrong_unit";
const NOT_RECEIVED: &str = "not_received";
/// The codes of a row that agrees with the value which is there. It contradicts another one that replaces it.
const ALREADY_ENTERED: &str = "already_entered";
const ALREADY_FINAL: &str = "already_final";

/// What the laboratory knows about the barcodes of a file.
struct Known {
    tests: HashMap<String, Test>,
    by_loinc: HashMap<String, Vec<String>>,
    specimens: HashMap<String, SpecimenStatus>,
    /// The live result of a barcode and test.
    results: HashMap<(String, String), ResultId>,
    bench: HashMap<ResultId, Bench>,
    /// What this batch has given to results before.
    landed: HashMap<ResultId, Vec<Value>>,
    /// What any file has given to results before, with the time of the measurement.
    measured: HashMap<ResultId, Vec<(Value, Timestamp)>>,
    now: Timestamp,
}

/// What a row that is set aside says of a result: a person has to look at it when the value that is there, or
/// comes, is another one.
pub(crate) struct Said {
    pub(crate) line: i32,
    pub(crate) result: ResultId,
    /// Absent when it cannot be read, or has another unit: then it differs from every value but one that is
    /// typed in later by somebody who has the file at hand.
    pub(crate) value: Option<Value>,
}

/// What became of the rows.
#[derive(Default)]
pub(crate) struct Matched {
    pub(crate) landing: Vec<Landing>,
    /// Rows whose value landed before, from this batch.
    pub(crate) unchanged: usize,
    /// Rows that say that nothing was measured.
    pub(crate) not_done: usize,
    /// What rows that are set aside say of results.
    pub(crate) said: Vec<Said>,
}

/// What a row comes to by itself.
enum Fit<'a> {
    Lands(&'a Bench, Value),
    Unchanged,
    NotDone,
}

/// Splits the rows into those that land and, with their reason, those that do not. The results are locked
/// from here on.
///
/// Rows that give different values for one result contradict each other, and none of them lands: nothing says
/// which is right.
pub(crate) async fn match_rows(
    txn: &Txn<'_>,
    batch: ImportId,
    rows: Vec<ImportRow>,
    set_aside: &mut Vec<SetAside>,
) -> Result<Matched, LabError> {
    let known = look_up(txn, batch, &rows).await?;
    let mut matched = Matched::default();
    let mut fitting: Vec<(ImportRow, &Bench, Value)> = Vec::new();
    for row in rows {
        match fit(&row, &known) {
            Ok(Fit::Lands(bench, value)) => fitting.push((row, bench, value)),
            Ok(Fit::Unchanged) => matched.unchanged += 1,
            Ok(Fit::NotDone) => matched.not_done += 1,
            Err(reject) => {
                matched.said.extend(said(&row, &known, reject.0));
                set_aside.push(refused(row, reject));
            }
        }
    }
    let same_result = group(fitting.iter().enumerate().map(|(n, (_, bench, _))| (bench.id, n)));
    let verdicts: Vec<Option<Reject>> = fitting
        .iter()
        .enumerate()
        .map(|(n, (_, bench, _))| among(&fitting, &same_result[&bench.id], n))
        .collect();
    for ((row, bench, value), verdict) in fitting.into_iter().zip(verdicts) {
        match verdict {
            None => matched.landing.push(Landing {
                bench: bench.clone(),
                value,
                row,
            }),
            Some(reject) => {
                if reject.0 == CONTRADICTION {
                    matched.said.push(Said {
                        line: row.line,
                        result: bench.id,
                        value: Some(value),
                    });
                }
                set_aside.push(refused(row, reject));
            }
        }
    }
    Ok(matched)
}

/// Why a row does not land because of the other rows for the same result.
fn among(fitting: &[(ImportRow, &Bench, Value)], same: &[usize], n: usize) -> Option<Reject> {
    let own = &fitting[n].2;
    if let Some(&other) = same.iter().find(|&&other| fitting[other].2 != *own) {
        let line = fitting[other].0.line;
        let reason =
            format!("line {line} has another value for the same specimen and test; neither was taken");
        return Some((CONTRADICTION, reason));
    }
    let first = same[0];
    (first != n).then(|| {
        let line = fitting[first].0.line;
        (
            "duplicate_in_file",
            format!("line {line} has the same value for the same specimen and test"),
        )
    })
}

fn refused(row: ImportRow, (code, reason): Reject) -> SetAside {
    SetAside {
        line: row.line,
        raw: row.raw,
        code: code.to_owned(),
        reason,
        fields: Some(row.fields),
    }
}

/// What files have given to results before, values sent back or replaced since among them: from this batch,
/// and with the time of their measurement from any.
type LandedBefore = (
    HashMap<ResultId, Vec<Value>>,
    HashMap<ResultId, Vec<(Value, Timestamp)>>,
);

async fn landed_before(txn: &Txn<'_>, batch: ImportId, ids: &[ResultId]) -> Result<LandedBefore, LabError> {
    let statement = txn
        .prepare_cached(
            "SELECT r.id, r.value_num, r.comparator, r.value_text, r.resulted_at, r.import_id = $1 AS own
               FROM result r WHERE r.id = ANY($2) AND r.import_id IS NOT NULL
             UNION ALL
             SELECT v.result_id, v.value_num, v.comparator, v.value_text, v.resulted_at, v.import_id = $1
               FROM result_revision v WHERE v.result_id = ANY($2) AND v.import_id IS NOT NULL",
        )
        .await?;
    let (mut landed, mut measured): LandedBefore = Default::default();
    for row in &txn.query(&statement, &[&batch, &ids]).await? {
        let row = Reader::new("result", row);
        let Some(value) = entry::stored(&row)? else {
            continue;
        };
        let id: ResultId = row.get("id")?;
        if let Some(at) = row.get("resulted_at")? {
            measured.entry(id).or_default().push((value.clone(), at));
        }
        if row.get("own")? {
            landed.entry(id).or_default().push(value);
        }
    }
    Ok((landed, measured))
}

async fn look_up(txn: &Txn<'_>, batch: ImportId, rows: &[ImportRow]) -> Result<Known, LabError> {
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
    let bench = entry::bench(txn, &wanted).await?;
    let (landed, measured) = landed_before(txn, batch, &wanted).await?;
    Ok(Known {
        bench,
        landed,
        measured,
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

fn fit<'a>(row: &ImportRow, known: &'a Known) -> Result<Fit<'a>, Reject> {
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
    // A row's own fault comes first, whatever has become of the result.
    let fault = row.comparator.as_ref().err().or(row.resulted_at.as_ref().err());
    if let Some(fault) = fault {
        return Err((BAD_VALUE, fault.clone()));
    }
    let (bench, test) = find(row, known)?;
    let Some(value) = read(row, test)? else {
        return Ok(Fit::NotDone);
    };
    let resulted_at = row.resulted_at.as_ref().ok().copied().flatten();
    let landed = known.landed.get(&bench.id);
    let landed_itself = landed.is_some_and(|landed| landed.contains(&value));
    let same_measurement = || {
        let before = known.measured.get(&bench.id).map_or(&[][..], Vec::as_slice);
        before
            .iter()
            .any(|(seen, when)| *seen == value && Some(*when) == resulted_at)
    };
    match bench.status {
        ResultStatus::Pending if landed.is_some() => {
            return Err((
                "sent_back",
                "a value of this file was entered and sent back since; a new measurement comes in a new file, or is entered by hand"
                    .to_owned(),
            ));
        }
        ResultStatus::Pending if same_measurement() => {
            return Err((
                "sent_back",
                "this very measurement was entered from another file and sent back since; a new one has another resultedAt, or is \
                 entered by hand"
                    .to_owned(),
            ));
        }
        ResultStatus::Pending => {}
        _ if landed_itself => return Ok(Fit::Unchanged),
        status => return Err(taken(status, bench.value.as_ref(), &value)),
    }
    if bench.specimen_status != SpecimenStatus::Received {
        return Err((
            NOT_RECEIVED,
            format!(
                "the specimen is {}; a value needs a received one",
                bench.specimen_status
            ),
        ));
    }
    if let Some(at) = resulted_at {
        plausible(at, known.now).map_err(|message| (BAD_VALUE, format!("resultedAt: {message}")))?;
    }
    Ok(Fit::Lands(bench, value))
}

/// The value of a row; `None` when it says that nothing was measured.
fn read(row: &ImportRow, test: &Test) -> Result<Option<Value>, Reject> {
    let comparator = row
        .comparator
        .as_ref()
        .map_err(|fault| (BAD_VALUE, fault.clone()))?;
    let value = match &row.value {
        // A word that a coded test has for its own is a value there.
        Some(value) if is_value(test, value) => value,
        _ if comparator.is_some() => {
            let reason =
                "it has a comparator and no value; something was measured, and the row does not say what";
            return Err((BAD_VALUE, reason.to_owned()));
        }
        _ => return Ok(None),
    };
    entry::read(test, value, *comparator, row.unit.as_deref())
        .map(Some)
        .map_err(|bad| {
            let code = if bad.field == "unit" {
                WRONG_UNIT
            } else {
                BAD_VALUE
            };
            (code, bad.message)
        })
}

/// What a row that is refused with this code says of its result.
fn said(row: &ImportRow, known: &Known, code: &str) -> Option<Said> {
    if ![
        CONFLICT,
        NOT_RECEIVED,
        BAD_VALUE,
        WRONG_UNIT,
        ALREADY_ENTERED,
        ALREADY_FINAL,
    ]
    .contains(&code)
    {
        return None;
    }
    let (bench, test) = find(row, known).ok()?;
    let value = match read(row, test) {
        Ok(Some(value)) => Some(value),
        Ok(None) => return None,
        Err(_) => None,
    };
    (!is_closed(bench.status)).then_some(Said {
        line: row.line,
        result: bench.id,
        value,
    })
}

fn is_closed(status: ResultStatus) -> bool {
    matches!(status, ResultStatus::Cancelled | ResultStatus::Voided)
}

/// Why a row does not land where there is a value: it says the same, or somebody has to look which is right.
fn taken(status: ResultStatus, there: Option<&Value>, given: &Value) -> Reject {
    if !is_closed(status) && there != Some(given) {
        return (
            CONFLICT,
            format!(
                "the result is {status} and has another value; an import replaces none: look which is right, and repeat or amend it"
            ),
        );
    }
    match status {
        ResultStatus::Entered => (
            ALREADY_ENTERED,
            "it has this value already; an import replaces none".to_owned(),
        ),
        status => (
            ALREADY_FINAL,
            format!("the result is {status}; an import does not touch it"),
        ),
    }
}

/// Whether a text is a value of this test, and not a word for "nothing was measured".
fn is_value(test: &Test, value: &str) -> bool {
    let allowed = test.allowed_values.as_deref().unwrap_or_default();
    !lines::is_not_done(value) || allowed.iter().any(|word| word == value)
}

/// The result of a row, and its test.
fn find<'a>(row: &ImportRow, known: &'a Known) -> Result<(&'a Bench, &'a Test), Reject> {
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
    let bench = match (found.next(), found.next()) {
        (Some(bench), None) => bench,
        (Some(_), Some(_)) => {
            let reason = "several tests of this specimen have this loinc; name the code";
            return Err(("ambiguous", reason.to_owned()));
        }
        (None, _) => {
            return Err((
                "not_ordered",
                "this test is not ordered on this specimen".to_owned(),
            ));
        }
    };
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
    Ok((bench, test))
}

/// Groups by key, for lookups that many rows share.
fn group<K: std::hash::Hash + Eq, V>(pairs: impl IntoIterator<Item = (K, V)>) -> HashMap<K, Vec<V>> {
    let mut groups: HashMap<K, Vec<V>> = HashMap::new();
    for (key, value) in pairs {
        groups.entry(key).or_default().push(value);
    }
    groups
}
