//! Reference ranges. A range is never edited: it is closed, and another begins, so that what an old result
//! was judged by stays readable. Two ranges for the same sex that overlap in age are refused: which one holds
//! must never be luck. So are two whose ages meet for some people and leave a gap of days for others, such as
//! until P1M and from P31D. A critical limit ends only by an explicit request: closing or replacing a range
//! leaves no person without a limit who had one, unless the administrator gives a reason.

use jiff::{Timestamp, civil::Date};
use tokio_postgres::Row;

use crate::{
    Actor, Age, LabError, Number, RangeId, RangeSex, Txn, ValueType, audit, catalogue,
    evaluation::{self, Affected},
    rows::Reader,
    schema,
    text::{Line, Problems},
};

/// A range to add.
#[derive(Debug, Clone, Default, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewRange {
    /// `F` or `M`; all when absent. A person of other or unknown sex has the stricter critical
    /// limits of both.
    pub sex: Option<RangeSex>,
    /// From this age on, an ISO 8601 duration such as `P18Y`; from birth when absent.
    pub age_from: Option<Age>,
    /// Until just before this age; without end when absent.
    pub age_to: Option<Age>,
    /// Lowest usual value.
    pub low: Option<Number>,
    /// Highest usual value.
    pub high: Option<Number>,
    /// A value below it is critical: its notice must be recorded.
    pub crit_low: Option<Number>,
    /// A value above it is critical: its notice must be recorded.
    pub crit_high: Option<Number>,
    /// Take the place of the ranges that it overlaps, from now on; for the ages that they cover beside it
    /// they go on as they are. Without it an overlap is refused.
    #[serde(default)]
    pub replace: bool,
    /// The unit that the bounds are written in, which must be the test's; not compared when absent.
    #[schema(value_type = Option<schema::Unit>)]
    pub unit: Option<String>,
    /// Why people need no critical limit any more who have one now. Needed where this range replaces one with
    /// a critical limit and states none.
    #[schema(value_type = Option<schema::Line>)]
    pub without_limits: Option<String>,
}

/// How a range is closed.
#[derive(Debug, Clone, Default, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CloseRange {
    /// Why people need no critical limit any more who have one by this range. Needed where no other range has
    /// one for them.
    #[schema(value_type = Option<schema::Line>)]
    pub without_limits: Option<String>,
}

/// A range.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RangeView {
    /// Id.
    pub id: RangeId,
    /// The test.
    pub test_code: String,
    /// The sex for which it holds; all when absent.
    pub sex: Option<RangeSex>,
    /// From this age on.
    #[schema(value_type = String)]
    pub age_from: Age,
    /// Until just before this age.
    #[schema(value_type = Option<String>)]
    pub age_to: Option<Age>,
    /// Lowest usual value.
    #[schema(value_type = Option<String>)]
    pub low: Option<Number>,
    /// Highest usual value.
    #[schema(value_type = Option<String>)]
    pub high: Option<Number>,
    /// A value below it is critical: its notice must be recorded.
    #[schema(value_type = Option<String>)]
    pub crit_low: Option<Number>,
    /// A value above it is critical: its notice must be recorded.
    #[schema(value_type = Option<String>)]
    pub crit_high: Option<Number>,
    /// In force since.
    pub valid_from: Timestamp,
    /// In force until; absent while it is.
    pub valid_to: Option<Timestamp>,
    /// Why its critical limits are not needed any more; absent where others took their place.
    pub without_limits: Option<String>,
}

const COLUMNS: &str = "id, test_code, sex, age_from, age_to, low, high, crit_low, crit_high, valid_from, valid_to, limits_withdrawn";

/// All ranges of a test, those in force first.
///
/// # Errors
/// [`LabError::NotFound`] when there is no such test.
pub async fn list(txn: &Txn<'_>, test_code: &str) -> Result<Vec<RangeView>, LabError> {
    catalogue::get(txn, test_code).await?;
    let statement = txn
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM ref_range WHERE test_code = $1 ORDER BY valid_to DESC NULLS FIRST, valid_from DESC, id LIMIT 1000"
        ))
        .await?;
    txn.query(&statement, &[&test_code])
        .await?
        .iter()
        .map(view)
        .collect()
}

/// The ranges in force of several tests.
pub(crate) async fn in_force(txn: &Txn<'_>, codes: &[String]) -> Result<Vec<RangeView>, LabError> {
    let statement = txn
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM ref_range WHERE test_code = ANY($1) AND valid_to IS NULL"
        ))
        .await?;
    txn.query(&statement, &[&codes]).await?.iter().map(view).collect()
}

/// Adds a range, in force from now on: also for open results of the test, which are evaluated again.
///
/// # Errors
/// [`LabError::Conflict`]: `overlap` when one in force covers part of the same ages, `limits_lost` when
/// people would have no critical limit any more. [`LabError::Invalid`] for bad fields, another unit than the
/// test's, and ages that meet those of another range for some people only.
pub async fn create(
    txn: &Txn<'_>,
    actor: &Actor,
    test_code: &str,
    new: &NewRange,
) -> Result<RangeView, LabError> {
    let without_limits = check(new)?;
    // The test's row serialises changes to its ranges: two overlapping ones must not slip in side by side.
    txn.query_opt(
        "SELECT 1 FROM test_def WHERE code = $1 FOR NO KEY UPDATE",
        &[&test_code],
    )
    .await?;
    let test = catalogue::get(txn, test_code).await?;
    if test.value_type != ValueType::Quantity {
        return Err(LabError::invalid(
            "testCode",
            "only a quantity has reference ranges",
        ));
    }
    if new.unit.is_some() && new.unit != test.unit {
        let unit = test.unit.unwrap_or_default();
        return Err(LabError::invalid(
            "unit",
            format!("results of {test_code} are in {unit}, and so are its ranges"),
        ));
    }
    let age_from = new.age_from.unwrap_or(Age::BIRTH);
    let in_force = in_force(txn, &[test_code.to_owned()]).await?;
    meets_evenly(txn, new, &in_force).await?;
    let (mut closed, mut rests) = (Vec::new(), Vec::new());
    for other in in_force.iter().filter(|other| other.sex == new.sex) {
        if !overlap((age_from, new.age_to), (other.age_from, other.age_to)) {
            continue;
        }
        if !new.replace {
            let until = other
                .age_to
                .map_or_else(|| "without end".to_owned(), |age| format!("until {age}"));
            return Err(LabError::conflict(
                "overlap",
                format!(
                    "range {} holds from {} {until}; close it first, or set replace",
                    other.id, other.age_from
                ),
            ));
        }
        close_row(txn, actor, other.id, without_limits.as_ref()).await?;
        closed.push(other.id);
        rests.extend(rests_of(other, age_from, new.age_to));
    }
    let id = insert(txn, actor, test_code, new, None).await?;
    for (of, rest) in &rests {
        insert(txn, actor, test_code, rest, Some(*of)).await?;
    }
    limits_kept(txn, &closed).await?;
    evaluation::again(txn, actor, Affected::Test(test_code), "the test's ranges changed").await?;
    get(txn, id).await
}

async fn insert(
    txn: &Txn<'_>,
    actor: &Actor,
    test_code: &str,
    new: &NewRange,
    rest_of: Option<RangeId>,
) -> Result<RangeId, LabError> {
    let id = RangeId::generate();
    let statement = txn
        .prepare_cached(
            "INSERT INTO ref_range (id, test_code, sex, age_from, age_to, low, high, crit_low, crit_high)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .await?;
    let age_from = new.age_from.unwrap_or(Age::BIRTH).to_string();
    let age_to = new.age_to.map(|age| age.to_string());
    txn.execute(
        &statement,
        &[
            &id,
            &test_code,
            &new.sex,
            &age_from,
            &age_to,
            &new.low,
            &new.high,
            &new.crit_low,
            &new.crit_high,
        ],
    )
    .await?;
    let detail = serde_json::json!({ "test": test_code, "restOf": rest_of });
    audit::write(txn, actor, "range.added", "range", id, Some(detail)).await?;
    Ok(id)
}

/// What a range covers beside the one that takes its place in part, with the bounds that it had.
fn rests_of(other: &RangeView, from: Age, to: Option<Age>) -> Vec<(RangeId, NewRange)> {
    let rest = |age_from: Age, age_to: Option<Age>| {
        let range = NewRange {
            sex: other.sex,
            age_from: Some(age_from),
            age_to,
            low: other.low,
            high: other.high,
            crit_low: other.crit_low,
            crit_high: other.crit_high,
            ..NewRange::default()
        };
        (other.id, range)
    };
    let end = |age: Option<Age>| age.map_or(Date::MAX, on_calendar);
    let before = (on_calendar(other.age_from) < on_calendar(from)).then(|| rest(other.age_from, Some(from)));
    let after = to
        .filter(|to| on_calendar(*to) < end(other.age_to))
        .map(|to| rest(to, other.age_to));
    before.into_iter().chain(after).collect()
}

/// Refuses ages that come before those of another range for some people and after them for others: in between
/// these people would have no range, or two. The database has the same rule.
async fn meets_evenly(txn: &Txn<'_>, new: &NewRange, in_force: &[RangeView]) -> Result<(), LabError> {
    let statement = txn
        .prepare_cached("SELECT o.age FROM unnest($2::text[]) AS o (age) WHERE ages_cross($1, o.age) LIMIT 1")
        .await?;
    let ages: Vec<String> = in_force
        .iter()
        .flat_map(|range| [Some(range.age_from), range.age_to])
        .flatten()
        .map(|age| age.to_string())
        .collect();
    let mut problems = Problems::default();
    for (field, age) in [("ageFrom", new.age_from), ("ageTo", new.age_to)] {
        let Some(age) = age.map(|age| age.to_string()) else {
            continue;
        };
        if let Some(row) = txn.query_opt(&statement, &[&age, &ages]).await? {
            let other: &str = row.get(0);
            let message = format!(
                "{age} comes before {other}, where another range begins or ends, for some people only; write {other}, or an age further away"
            );
            problems.add(field, message);
        }
    }
    problems.done()
}

/// Closes a range from now on. Released results keep what they were evaluated by; open ones are evaluated
/// again.
///
/// # Errors
/// [`LabError::NotFound`]; [`LabError::Conflict`] when it is `closed` already, `limits_lost` when people
/// would have no critical limit any more and `close` does not say why; [`LabError::Invalid`] for a reason
/// that is too long.
pub async fn close(
    txn: &Txn<'_>,
    actor: &Actor,
    id: RangeId,
    close: &CloseRange,
) -> Result<RangeView, LabError> {
    let without_limits = reason(close.without_limits.as_deref())?;
    let range = get(txn, id).await?;
    txn.query_opt(
        "SELECT 1 FROM test_def WHERE code = $1 FOR NO KEY UPDATE",
        &[&range.test_code],
    )
    .await?;
    // Again, since another request may have closed it meanwhile.
    if get(txn, id).await?.valid_to.is_some() {
        return Err(LabError::conflict("closed", "this range is closed already"));
    }
    close_row(txn, actor, id, without_limits.as_ref()).await?;
    limits_kept(txn, &[id]).await?;
    evaluation::again(
        txn,
        actor,
        Affected::Test(&range.test_code),
        "the test's ranges changed",
    )
    .await?;
    get(txn, id).await
}

async fn close_row(
    txn: &Txn<'_>,
    actor: &Actor,
    id: RangeId,
    without_limits: Option<&Line>,
) -> Result<(), LabError> {
    // The guard sets the time.
    let sql = "UPDATE ref_range SET valid_to = now(), limits_withdrawn = $2 WHERE id = $1";
    txn.execute(&txn.prepare_cached(sql).await?, &[&id, &without_limits])
        .await?;
    let detail = without_limits.map(|why| serde_json::json!({ "withoutLimits": why.as_str() }));
    audit::write(txn, actor, "range.closed", "range", id, detail).await
}

/// Refuses when a person would lose a critical limit with the ranges that were just closed, unless a reason
/// was given.
async fn limits_kept(txn: &Txn<'_>, closed: &[RangeId]) -> Result<(), LabError> {
    let sql = "SELECT lost FROM ref_range g, limits_lost(g) AS lost
                WHERE g.id = ANY($1) AND g.limits_withdrawn IS NULL AND lost IS NOT NULL LIMIT 1";
    let statement = txn.prepare_cached(sql).await?;
    match txn.query_opt(&statement, &[&closed]).await? {
        None => Ok(()),
        Some(row) => Err(LabError::conflict(
            "limits_lost",
            format!(
                "{}, which they have now; state it, or give in withoutLimits the reason why no notice is needed any more",
                row.get::<_, String>(0)
            ),
        )),
    }
}

async fn get(txn: &Txn<'_>, id: RangeId) -> Result<RangeView, LabError> {
    let statement = txn
        .prepare_cached(&format!("SELECT {COLUMNS} FROM ref_range WHERE id = $1"))
        .await?;
    let row = txn.query_opt(&statement, &[&id]).await?;
    view(&row.ok_or_else(|| LabError::not_found("range", id))?)
}

fn reason(without_limits: Option<&str>) -> Result<Option<Line>, LabError> {
    let mut problems = Problems::default();
    let without_limits = problems.optional_line("withoutLimits", without_limits, crate::text::LINE_MAX);
    problems.done()?;
    Ok(without_limits)
}

/// Gives the reason for which a limit is not needed, in its normal form.
fn check(new: &NewRange) -> Result<Option<Line>, LabError> {
    let mut problems = Problems::default();
    let without_limits = problems.optional_line(
        "withoutLimits",
        new.without_limits.as_deref(),
        crate::text::LINE_MAX,
    );
    if new
        .age_to
        .is_some_and(|to| on_calendar(to) <= on_calendar(new.age_from.unwrap_or(Age::BIRTH)))
    {
        problems.add("ageTo", "it must be more than ageFrom");
    }
    if [new.low, new.high, new.crit_low, new.crit_high]
        .iter()
        .all(Option::is_none)
    {
        problems.add("low", "a range needs at least one bound");
    }
    let ascending = [new.crit_low, new.low, new.high, new.crit_high];
    let given: Vec<Number> = ascending.into_iter().flatten().collect();
    if !given.is_sorted() {
        problems.add("low", "the bounds must ascend: critLow, low, high, critHigh");
    }
    problems.done()?;
    Ok(without_limits)
}

/// Where an age ends for somebody born on a fixed day: makes ages of different units comparable, to a day or
/// two.
fn on_calendar(age: Age) -> Date {
    age.reached(jiff::civil::date(2000, 1, 1)).unwrap_or(Date::MAX)
}

fn overlap(a: (Age, Option<Age>), b: (Age, Option<Age>)) -> bool {
    let end = |to: Option<Age>| to.map_or(Date::MAX, on_calendar);
    on_calendar(a.0) < end(b.1) && on_calendar(b.0) < end(a.1)
}

fn view(row: &Row) -> Result<RangeView, LabError> {
    let row = Reader::new("ref_range", row);
    let age_to: Option<&str> = row.get("age_to")?;
    Ok(RangeView {
        id: row.get("id")?,
        test_code: row.get("test_code")?,
        sex: row.get("sex")?,
        age_from: row.parse("age_from")?,
        age_to: age_to.map(|_| row.parse("age_to")).transpose()?,
        low: row.get("low")?,
        high: row.get("high")?,
        crit_low: row.get("crit_low")?,
        crit_high: row.get("crit_high")?,
        valid_from: row.get("valid_from")?,
        valid_to: row.get("valid_to")?,
        without_limits: row.get("limits_withdrawn")?,
    })
}
