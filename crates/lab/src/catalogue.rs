//! The tests that the laboratory offers: the standard catalogue and what it adds itself.

use std::collections::HashMap;

use tokio_postgres::Row;

use crate::{
    Actor, Age, LabError, RangeSex, Txn, ValueType, audit,
    error::same_version,
    evaluation::{self, Affected},
    is_loinc,
    limits::{CODE_MAX, GROUP_MAX},
    number::Number,
    patch,
    rows::Reader,
    schema,
    text::{LINE_MAX, Line, Problems},
};

/// What the code that creates a laboratory must know of the standard catalogue.
pub const COVERAGE_NOTE: &str = "The reference ranges and critical limits of the standard catalogue hold from 18 years. Values of younger \
     patients get no flag and no critical limit, and their results say so (noRangeReason), until the laboratory adds ranges for them.";

const MEMBERS_MAX: usize = 100;
// The descriptions of `NewTest` and `TestPatch` say so.
const _: () = assert!(MEMBERS_MAX == 100);
/// Most tests of one laboratory: the whole catalogue is read at once when values are judged.
const TESTS_MAX: i64 = 5_000;

/// A test to add.
#[derive(Debug, Clone, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewTest {
    /// Short code: 1 to 16 capital letters, digits and underscores.
    #[schema(value_type = schema::TestCode)]
    pub code: String,
    /// Name.
    #[schema(value_type = schema::Line)]
    pub name: String,
    /// LOINC code; its check digit must be right.
    #[schema(value_type = Option<schema::Loinc>)]
    pub loinc: Option<String>,
    /// Section of the laboratory, such as `chemistry`.
    #[schema(value_type = schema::Group)]
    pub section: String,
    /// What must be drawn, such as `serum`; one specimen serves all tests of an order with the same words
    /// here.
    #[schema(value_type = schema::Group)]
    pub specimen_type: String,
    /// What kind of value it has.
    pub value_type: ValueType,
    /// UCUM unit; required for a quantity, and only there.
    #[schema(value_type = Option<schema::Unit>)]
    pub unit: Option<String>,
    /// How many decimals a screen offers for entry; values are kept as given.
    #[schema(minimum = 0, maximum = 9)]
    pub decimals: Option<i16>,
    /// The values that a coded test may have.
    #[schema(value_type = Option<Vec<schema::Line>>, min_items = 1, max_items = 100)]
    pub allowed_values: Option<Vec<String>>,
    /// Critical values of a test without numbers: of a coded test some of its values; of a text test words
    /// that a critical text contains, in any case of letters. Such a value is flagged `AA`, and is not
    /// released before its notice is recorded.
    #[schema(value_type = Option<Vec<schema::Line>>, min_items = 1, max_items = 100)]
    pub critical_values: Option<Vec<String>>,
    /// Codes of the tests that a panel stands for.
    #[schema(value_type = Option<Vec<schema::TestCode>>, min_items = 1, max_items = 100)]
    pub members: Option<Vec<String>>,
    /// Mark a quantity that differs from the patient's previous one by more percent than this; with
    /// `deltaDays`.
    pub delta_pct: Option<Number>,
    /// How old the previous value may be, in days; with `deltaPct`.
    #[schema(minimum = 1, maximum = 3_650)]
    pub delta_days: Option<i32>,
    /// How soon a result is expected, in minutes; a day when absent.
    #[schema(minimum = 1, maximum = 525_600)]
    pub tat_minutes: Option<i32>,
}

/// A change to a test; what is absent stays, and null takes away what a test can be without. Kind and unit
/// change while the test has no result and no range in force; code and specimen never: results mean what they
/// mean.
#[derive(Debug, Clone, Default, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TestPatch {
    /// Name.
    #[serde(default, deserialize_with = "patch::kept")]
    #[schema(value_type = schema::Line, required = false)]
    pub name: Option<String>,
    /// LOINC code.
    #[serde(default, deserialize_with = "patch::clearable")]
    #[schema(value_type = Option<schema::Loinc>)]
    pub loinc: Option<Option<String>>,
    /// Section.
    #[serde(default, deserialize_with = "patch::kept")]
    #[schema(value_type = schema::Group, required = false)]
    pub section: Option<String>,
    /// Kind of value, with what goes with it: `unit`, `allowedValues` or `members`.
    #[serde(default, deserialize_with = "patch::kept")]
    #[schema(value_type = ValueType, required = false)]
    pub value_type: Option<ValueType>,
    /// UCUM unit.
    #[serde(default, deserialize_with = "patch::clearable")]
    #[schema(value_type = Option<schema::Unit>)]
    pub unit: Option<Option<String>>,
    /// Values of a coded test.
    #[serde(default, deserialize_with = "patch::clearable")]
    #[schema(value_type = Option<Vec<schema::Line>>, min_items = 1, max_items = 100)]
    pub allowed_values: Option<Option<Vec<String>>>,
    /// Critical values of a test without numbers. Results that are not released are evaluated again.
    #[serde(default, deserialize_with = "patch::clearable")]
    #[schema(value_type = Option<Vec<schema::Line>>, min_items = 1, max_items = 100)]
    pub critical_values: Option<Option<Vec<String>>>,
    /// Why a value that is critical now needs no notice any more. Needed where `criticalValues`
    /// leaves one out.
    #[serde(default, deserialize_with = "patch::kept")]
    #[schema(value_type = schema::Line, required = false)]
    pub without_limits: Option<String>,
    /// Members of a panel.
    #[serde(default, deserialize_with = "patch::clearable")]
    #[schema(value_type = Option<Vec<schema::TestCode>>, min_items = 1, max_items = 100)]
    pub members: Option<Option<Vec<String>>>,
    /// Decimals for entry.
    #[serde(default, deserialize_with = "patch::clearable")]
    #[schema(value_type = Option<i16>, minimum = 0, maximum = 9)]
    pub decimals: Option<Option<i16>>,
    /// How soon a result is expected, in minutes.
    #[serde(default, deserialize_with = "patch::kept")]
    #[schema(value_type = i32, required = false, minimum = 1, maximum = 525_600)]
    pub tat_minutes: Option<i32>,
    /// Offer it or not. Open orders go on.
    #[serde(default, deserialize_with = "patch::kept")]
    #[schema(value_type = bool, required = false)]
    pub active: Option<bool>,
    /// Delta check, percent; with `deltaDays`.
    #[serde(default, deserialize_with = "patch::clearable")]
    #[schema(value_type = Option<Number>)]
    pub delta_pct: Option<Option<Number>>,
    /// Delta check, days; with `deltaPct`.
    #[serde(default, deserialize_with = "patch::clearable")]
    #[schema(value_type = Option<i32>, minimum = 1, maximum = 3_650)]
    pub delta_days: Option<Option<i32>>,
}

/// A test.
#[derive(Debug, Clone, PartialEq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Test {
    /// Code.
    pub code: String,
    /// Name.
    pub name: String,
    /// LOINC code.
    pub loinc: Option<String>,
    /// Section.
    pub section: String,
    /// What must be drawn.
    pub specimen_type: String,
    /// Kind of value.
    pub value_type: ValueType,
    /// UCUM unit.
    pub unit: Option<String>,
    /// Decimals for entry.
    pub decimals: Option<i16>,
    /// Values of a coded test.
    pub allowed_values: Option<Vec<String>>,
    /// Critical values of a test without numbers.
    pub critical_values: Option<Vec<String>>,
    /// Members of a panel.
    pub members: Option<Vec<String>>,
    /// Delta check, percent.
    #[schema(value_type = Option<String>)]
    pub delta_pct: Option<Number>,
    /// Delta check, days.
    pub delta_days: Option<i32>,
    /// Expected time, minutes.
    pub tat_minutes: i32,
    /// The ages for which a range is in force. At any other age there is no range and no critical limit, and
    /// results say so (`noRangeReason`). The standard catalogue's ranges hold from 18 years.
    pub covered_ages: Vec<CoveredAges>,
    /// Whether it came with the standard catalogue.
    pub standard: bool,
    /// Whether it can be ordered.
    pub active: bool,
    /// Raised by every change.
    pub version: i32,
}

/// Ages for which a range is in force.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CoveredAges {
    /// The sex for which it holds; all when absent.
    pub sex: Option<RangeSex>,
    /// From this age on.
    #[schema(value_type = String, example = "P18Y")]
    pub age_from: Age,
    /// Until just before this age; without end when absent.
    #[schema(value_type = Option<String>)]
    pub age_to: Option<Age>,
    /// Whether it has a critical limit.
    pub critical: bool,
}

const COLUMNS: &str = "code, name, loinc, section, specimen_type, value_type, unit, decimals, allowed_values, critical_values, members, delta_pct, \
                       delta_days, tat_minutes, standard, active, version, \
                       (SELECT coalesce(jsonb_agg(jsonb_build_object('sex', g.sex, 'ageFrom', g.age_from, 'ageTo', g.age_to, \
                          'critical', num_nonnulls(g.crit_low, g.crit_high) > 0) \
                          ORDER BY g.sex NULLS FIRST, date '2000-01-01' + g.age_from::interval), '[]') \
                        FROM ref_range g WHERE g.test_code = test_def.code AND g.valid_to IS NULL) AS covered_ages";

/// All tests by code; of one section when given. The catalogue is bounded, so there are no pages.
///
/// # Errors
/// Only the database's own.
pub async fn list(txn: &Txn<'_>, section: Option<&str>) -> Result<Vec<Test>, LabError> {
    let sql = format!("SELECT {COLUMNS} FROM test_def WHERE $1::text IS NULL OR section = $1 ORDER BY code");
    let statement = txn.prepare_cached(&sql).await?;
    txn.query(&statement, &[&section])
        .await?
        .iter()
        .map(test)
        .collect()
}

/// One test.
///
/// # Errors
/// [`LabError::NotFound`].
pub async fn get(txn: &Txn<'_>, code: &str) -> Result<Test, LabError> {
    let statement = txn
        .prepare_cached(&format!("SELECT {COLUMNS} FROM test_def WHERE code = $1"))
        .await?;
    let row = txn.query_opt(&statement, &[&code]).await?;
    test(&row.ok_or_else(|| LabError::not_found("test", code))?)
}

/// The tests behind some codes; those unknown are not in the map.
pub(crate) async fn by_codes(txn: &Txn<'_>, codes: &[String]) -> Result<HashMap<String, Test>, LabError> {
    let statement = txn
        .prepare_cached(&format!("SELECT {COLUMNS} FROM test_def WHERE code = ANY($1)"))
        .await?;
    let rows = txn.query(&statement, &[&codes]).await?;
    rows.iter()
        .map(|row| test(row).map(|test| (test.code.clone(), test)))
        .collect()
}

/// The tests behind some codes, kept as they are until the transaction ends: what is ordered must not become
/// another kind of test, or get another unit, at the same moment.
pub(crate) async fn ordered(txn: &Txn<'_>, codes: &[String]) -> Result<HashMap<String, Test>, LabError> {
    let sql = "SELECT code FROM test_def WHERE code = ANY($1) ORDER BY code FOR KEY SHARE";
    txn.query(&txn.prepare_cached(sql).await?, &[&codes]).await?;
    by_codes(txn, codes).await
}

/// Adds a test of the laboratory's own.
///
/// # Errors
/// [`LabError::Conflict`] `duplicate` when the code is taken, [`LabError::Invalid`] for bad fields.
pub async fn create(txn: &Txn<'_>, actor: &Actor, new: &NewTest) -> Result<Test, LabError> {
    let Checked {
        name,
        section,
        specimen_type,
        unit,
        allowed_values,
        critical_values,
    } = check(new)?;
    let members: &[String] = new.members.as_deref().unwrap_or_default();
    let counted = txn
        .query_one(
            "SELECT (SELECT count(*) FROM test_def),
                    (SELECT count(*) FROM test_def WHERE code = ANY($1) AND value_type <> 'panel')",
            &[&members],
        )
        .await?;
    if counted.get::<_, i64>(0) >= TESTS_MAX {
        return Err(LabError::conflict(
            "catalogue_full",
            format!("a catalogue holds at most {TESTS_MAX} tests"),
        ));
    }
    if counted.get::<_, i64>(1) != i64::try_from(members.len()).unwrap_or(i64::MAX) {
        return Err(LabError::invalid(
            "members",
            "each must be the code of a test, named once, that is not itself a panel",
        ));
    }
    let statement = txn
        .prepare_cached(
            "INSERT INTO test_def (code, name, loinc, section, specimen_type, value_type, unit, decimals, allowed_values, members,
               delta_pct, delta_days, tat_minutes, critical_values)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, coalesce($13, 1440), $14) ON CONFLICT (code) DO NOTHING",
        )
        .await?;
    let added = txn
        .execute(
            &statement,
            &[
                &new.code,
                &name,
                &new.loinc,
                &section,
                &specimen_type,
                &new.value_type,
                &unit,
                &new.decimals,
                &allowed_values,
                &new.members,
                &new.delta_pct,
                &new.delta_days,
                &new.tat_minutes,
                &critical_values,
            ],
        )
        .await?;
    if added == 0 {
        return Err(LabError::conflict(
            "duplicate",
            "a test with this code is in the catalogue already",
        ));
    }
    audit::write(txn, actor, "test.added", "test", &new.code, None).await?;
    get(txn, &new.code).await
}

/// Changes a test. A change that changes nothing writes nothing.
///
/// # Errors
/// [`LabError::Version`] when the row has changed since it was read, [`LabError::Invalid`] for bad fields,
/// [`LabError::Conflict`] `limits_lost` when a critical value is left out without a reason.
pub async fn update(
    txn: &Txn<'_>,
    actor: &Actor,
    code: &str,
    version: i32,
    patch: &TestPatch,
) -> Result<Test, LabError> {
    let mut problems = Problems::default();
    let name = problems.optional_line("name", patch.name.as_deref(), LINE_MAX);
    let section = problems.optional_line("section", patch.section.as_deref(), GROUP_MAX);
    let without_limits = problems.optional_line("withoutLimits", patch.without_limits.as_deref(), LINE_MAX);
    loinc_check(&mut problems, patch.loinc.as_ref().and_then(Option::as_deref));
    if patch.delta_pct.is_some() != patch.delta_days.is_some() {
        problems.add("deltaPct", "deltaPct and deltaDays go together");
    }
    figures_check(
        &mut problems,
        patch.decimals.flatten(),
        patch.delta_pct.flatten(),
        patch.delta_days.flatten(),
        patch.tat_minutes,
    );
    problems.done()?;
    // Orders that name the test at this moment hold a share of its key: they are seen, or they wait.
    txn.query_opt("SELECT 1 FROM test_def WHERE code = $1 FOR UPDATE", &[&code])
        .await?;
    let before = get(txn, code).await?;
    same_version("the test", before.version, version)?;
    let meaning = meaning(txn, &before, patch).await?;
    if patch.delta_pct.unwrap_or(before.delta_pct).is_some() && meaning.value_type != ValueType::Quantity {
        return Err(LabError::invalid("deltaPct", "only a quantity has a delta check"));
    }
    let mut problems = Problems::default();
    let critical_values = match &patch.critical_values {
        Some(list) => listed(&mut problems, "criticalValues", list.as_deref()).map(strings),
        None => before.critical_values.clone(),
    };
    critical_check(
        &mut problems,
        meaning.value_type,
        critical_values.as_deref(),
        meaning.allowed_values.as_deref(),
    );
    problems.done()?;
    let after = Test {
        name: name.map_or_else(|| before.name.clone(), |name| name.to_string()),
        loinc: patch.loinc.clone().unwrap_or_else(|| before.loinc.clone()),
        section: section.map_or_else(|| before.section.clone(), |section| section.to_string()),
        decimals: patch.decimals.unwrap_or(before.decimals),
        tat_minutes: patch.tat_minutes.unwrap_or(before.tat_minutes),
        active: patch.active.unwrap_or(before.active),
        delta_pct: patch.delta_pct.unwrap_or(before.delta_pct),
        delta_days: patch.delta_days.unwrap_or(before.delta_days),
        value_type: meaning.value_type,
        unit: meaning.unit,
        allowed_values: meaning.allowed_values,
        critical_values,
        members: meaning.members,
        ..before.clone()
    };
    if after == before {
        return Ok(before);
    }
    let left_out = before.critical_values.iter().flatten().find(|word| {
        let still = after.critical_values.as_deref().unwrap_or_default();
        !still.contains(word)
    });
    if let Some(word) = left_out
        && without_limits.is_none()
    {
        return Err(LabError::conflict(
            "limits_lost",
            format!("{word:?} would need no notice any more; keep it, or give the reason in withoutLimits"),
        ));
    }
    write(txn, &after).await?;
    let without_limits = without_limits.as_deref();
    let detail = serde_json::json!({ "before": before, "withoutLimits": without_limits });
    audit::write(txn, actor, "test.changed", "test", code, Some(detail)).await?;
    if after.critical_values != before.critical_values {
        let reason = "the test's critical values changed";
        evaluation::again(txn, actor, Affected::Test(code), reason).await?;
    }
    get(txn, code).await
}

async fn write(txn: &Txn<'_>, test: &Test) -> Result<(), LabError> {
    let statement = txn
        .prepare_cached(
            "UPDATE test_def SET name = $2, loinc = $3, section = $4, decimals = $5, tat_minutes = $6, active = $7, delta_pct = $8,
               delta_days = $9, value_type = $10, unit = $11, allowed_values = $12, members = $13, critical_values = $14
             WHERE code = $1",
        )
        .await?;
    txn.execute(
        &statement,
        &[
            &test.code,
            &test.name,
            &test.loinc,
            &test.section,
            &test.decimals,
            &test.tat_minutes,
            &test.active,
            &test.delta_pct,
            &test.delta_days,
            &test.value_type,
            &test.unit,
            &test.allowed_values,
            &test.members,
            &test.critical_values,
        ],
    )
    .await?;
    Ok(())
}

fn strings(lines: Vec<Line>) -> Vec<String> {
    lines.iter().map(Line::to_string).collect()
}

/// Critical values belong to a test without numbers; those of a coded test are some of its values.
fn critical_check<T: AsRef<str>>(
    problems: &mut Problems,
    kind: ValueType,
    critical: Option<&[T]>,
    allowed: Option<&[T]>,
) {
    let Some(critical) = critical else { return };
    let allowed = allowed.unwrap_or_default();
    match kind {
        ValueType::Text => {}
        ValueType::Coded => {
            for (n, word) in critical.iter().enumerate() {
                if !allowed.iter().any(|value| value.as_ref() == word.as_ref()) {
                    problems.add(
                        format!("criticalValues[{n}]"),
                        "it is none of the test's allowedValues",
                    );
                }
            }
        }
        kind => problems.add(
            "criticalValues",
            format!("it goes with a coded or text test, and this is a {kind}; a quantity has critical limits in its ranges"),
        ),
    }
}

/// What a test's values mean.
struct Meaning {
    value_type: ValueType,
    unit: Option<String>,
    allowed_values: Option<Vec<String>>,
    members: Option<Vec<String>>,
}

/// What a test means after a change: it may mean something else as long as no result and no range depends on
/// it.
async fn meaning(txn: &Txn<'_>, before: &Test, patch: &TestPatch) -> Result<Meaning, LabError> {
    let unchanged = Meaning {
        value_type: before.value_type,
        unit: before.unit.clone(),
        allowed_values: before.allowed_values.clone(),
        members: before.members.clone(),
    };
    let asked = patch.value_type.is_some()
        || patch.unit.is_some()
        || patch.allowed_values.is_some()
        || patch.members.is_some();
    if !asked {
        return Ok(unchanged);
    }
    let mut problems = Problems::default();
    let value_type = patch.value_type.unwrap_or(before.value_type);
    let unit = match &patch.unit {
        Some(unit) => problems
            .unit("unit", unit.as_deref())
            .map(|unit| unit.to_string()),
        None => before.unit.clone(),
    };
    let allowed_values = match &patch.allowed_values {
        Some(list) => listed(&mut problems, "allowedValues", list.as_deref()).map(strings),
        None => before.allowed_values.clone(),
    };
    let members = match &patch.members {
        Some(list) => listed(&mut problems, "members", list.as_deref()).map(strings),
        None => before.members.clone(),
    };
    goes_with_kind(
        &mut problems,
        value_type,
        unit.is_some(),
        allowed_values.is_some(),
        members.is_some(),
    );
    problems.done()?;
    let after = Meaning {
        value_type,
        unit,
        allowed_values,
        members,
    };
    let same = after.value_type == before.value_type
        && after.unit == before.unit
        && after.allowed_values == before.allowed_values
        && after.members == before.members;
    if !same {
        require_unused(txn, &before.code, &after).await?;
    }
    Ok(after)
}

async fn require_unused(txn: &Txn<'_>, code: &str, after: &Meaning) -> Result<(), LabError> {
    let members: &[String] = after.members.as_deref().unwrap_or_default();
    let statement = txn
        .prepare_cached(
            "SELECT EXISTS (SELECT FROM result WHERE test_code = $1), EXISTS (SELECT FROM ref_range WHERE test_code = $1 AND valid_to IS NULL),
                    EXISTS (SELECT FROM test_def WHERE $1 = ANY(members)),
                    (SELECT count(*) FROM test_def WHERE code = ANY($2) AND value_type <> 'panel' AND code <> $1)",
        )
        .await?;
    let found = txn.query_one(&statement, &[&code, &members]).await?;
    if found.get(0) {
        return Err(LabError::conflict(
            "has_results",
            format!("test {code} has results, which mean what it says; add a test of its own instead"),
        ));
    }
    if found.get(1) {
        return Err(LabError::conflict(
            "ranges",
            format!("test {code} has ranges in force, in its present unit; close them first"),
        ));
    }
    if after.value_type == ValueType::Panel && found.get(2) {
        return Err(LabError::conflict(
            "member",
            format!("test {code} is a member of a panel, and a panel holds no panels"),
        ));
    }
    if found.get::<_, i64>(3) != i64::try_from(members.len()).unwrap_or(i64::MAX) {
        return Err(LabError::invalid(
            "members",
            "each must be the code of a test, named once, that is not itself a panel",
        ));
    }
    Ok(())
}

/// A quantity has a unit, a coded test its values, a panel its members, and no other kind has them.
fn goes_with_kind(problems: &mut Problems, kind: ValueType, unit: bool, allowed_values: bool, members: bool) {
    let goes_with = [
        ("unit", unit, ValueType::Quantity),
        ("allowedValues", allowed_values, ValueType::Coded),
        ("members", members, ValueType::Panel),
    ];
    for (field, given, owner) in goes_with {
        if given != (kind == owner) {
            problems.add(
                field,
                format!("it goes with tests of the kind {owner}, and with no others; this one is of the kind {kind}"),
            );
        }
    }
}

/// The lines of a new test in normal form.
struct Checked {
    name: Line,
    section: Line,
    specimen_type: Line,
    unit: Option<Line>,
    allowed_values: Option<Vec<Line>>,
    critical_values: Option<Vec<Line>>,
}

fn check(new: &NewTest) -> Result<Checked, LabError> {
    let mut problems = Problems::default();
    let code_fits = (1..=CODE_MAX).contains(&new.code.len())
        && new
            .code
            .bytes()
            .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    if !code_fits {
        problems.add(
            "code",
            "it must have 1 to 16 capital letters, digits and underscores",
        );
    }
    let name = problems.line("name", &new.name, LINE_MAX);
    let section = problems.line("section", &new.section, GROUP_MAX);
    let specimen_type = problems.line("specimenType", &new.specimen_type, GROUP_MAX);
    let unit = problems.unit("unit", new.unit.as_deref());
    loinc_check(&mut problems, new.loinc.as_deref());
    figures_check(
        &mut problems,
        new.decimals,
        new.delta_pct,
        new.delta_days,
        new.tat_minutes,
    );
    let kind = new.value_type;
    goes_with_kind(
        &mut problems,
        kind,
        new.unit.is_some(),
        new.allowed_values.is_some(),
        new.members.is_some(),
    );
    if new.delta_pct.is_some() && kind != ValueType::Quantity {
        problems.add("deltaPct", "only a quantity has a delta check");
    }
    // Members are looked for in the catalogue, which knows no other form of a code.
    let _ = listed(&mut problems, "members", new.members.as_deref());
    let allowed_values = listed(&mut problems, "allowedValues", new.allowed_values.as_deref());
    let critical_values = listed(&mut problems, "criticalValues", new.critical_values.as_deref());
    critical_check(
        &mut problems,
        kind,
        critical_values.as_deref(),
        allowed_values.as_deref(),
    );
    problems.done()?;
    Ok(Checked {
        name,
        section,
        specimen_type,
        unit,
        allowed_values,
        critical_values,
    })
}

fn listed(problems: &mut Problems, field: &str, list: Option<&[String]>) -> Option<Vec<Line>> {
    let list = list?;
    if !(1..=MEMBERS_MAX).contains(&list.len()) {
        problems.add(field, format!("it must list 1 to {MEMBERS_MAX}"));
    }
    let items = list.iter().enumerate().take(MEMBERS_MAX);
    Some(
        items
            .map(|(n, item)| problems.line(&format!("{field}[{n}]"), item, LINE_MAX))
            .collect(),
    )
}

fn loinc_check(problems: &mut Problems, loinc: Option<&str>) {
    if loinc.is_some_and(|code| !is_loinc(code)) {
        problems.add(
            "loinc",
            "this is no LOINC code: it must look like 2345-7, and its last digit must be the check digit",
        );
    }
}

fn figures_check(
    problems: &mut Problems,
    decimals: Option<i16>,
    pct: Option<Number>,
    days: Option<i32>,
    tat: Option<i32>,
) {
    if decimals.is_some_and(|d| !(0..=9).contains(&d)) {
        problems.add("decimals", "it must be between 0 and 9");
    }
    if pct.is_some() != days.is_some() {
        problems.add("deltaPct", "deltaPct and deltaDays go together");
    }
    if pct.is_some_and(|pct| pct.as_decimal() <= rust_decimal::Decimal::ZERO) {
        problems.add("deltaPct", "it must be more than 0");
    }
    if days.is_some_and(|days| !(1..=3_650).contains(&days)) {
        problems.add("deltaDays", "it must be between 1 and 3650");
    }
    if tat.is_some_and(|minutes| !(1..=525_600).contains(&minutes)) {
        problems.add("tatMinutes", "it must be between 1 and 525600");
    }
}

fn covered(row: &Reader<'_>) -> Result<Vec<CoveredAges>, LabError> {
    let ages: serde_json::Value = row.get("covered_ages")?;
    serde_json::from_value(ages).map_err(|_| row.corrupt("covered_ages"))
}

fn test(row: &Row) -> Result<Test, LabError> {
    let row = Reader::new("test_def", row);
    Ok(Test {
        code: row.get("code")?,
        name: row.get("name")?,
        loinc: row.get("loinc")?,
        section: row.get("section")?,
        specimen_type: row.get("specimen_type")?,
        value_type: row.get("value_type")?,
        unit: row.get("unit")?,
        decimals: row.get("decimals")?,
        allowed_values: row.get("allowed_values")?,
        critical_values: row.get("critical_values")?,
        members: row.get("members")?,
        delta_pct: row.get("delta_pct")?,
        delta_days: row.get("delta_days")?,
        tat_minutes: row.get("tat_minutes")?,
        covered_ages: covered(&row)?,
        standard: row.get("standard")?,
        active: row.get("active")?,
        version: row.get("version")?,
    })
}
