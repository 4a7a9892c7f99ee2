//! A laboratory of a test's own: migrated as the migrator does it, used as its own role.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use deadpool_postgres::{Manager, Object, Pool};
use jiff::civil::{Date, date};
use lab::{
    Actor, AmendmentStatus, LabError, LabSeed, Reason, ResultId, ResultStatus, Sex, Txn, When, amendments,
    critical::{self, CriticalNotice, CriticalNoticeEntry},
    orders::{self, NewOrder, Order},
    patients::{self, NewPatient, Patient},
    results::{self, ResultView, ValueEntry},
    signoff::{self, Item, Items},
    specimens,
    staff::{self, NewStaff},
};
use model::{Email, Role, StaffId, TenantId, quote_ident};
use pg::ConnectTarget;
use secrecy::SecretString;
use testkit::Space;
use tokio_postgres::NoTls;

pub(crate) const LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Lab {
    pool: Pool,
    owner: ConnectTarget,
    pub(crate) tenant: TenantId,
    pub(crate) admin: Actor,
    pub(crate) receptionist: Actor,
    pub(crate) technician: Actor,
    pub(crate) supervisor: Actor,
    pub(crate) second_supervisor: Actor,
    // Last: the connections above must be gone before it cleans up.
    _space: Space,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations-tenant")
}

/// All migrations in the order of their numbers, then the grants for `group`.
pub(crate) fn migrations(group: &str) -> String {
    let mut sql: String = numbered_migrations().into_iter().map(|(_, sql)| sql).collect();
    let grants = std::fs::read_to_string(folder().join("grants.sql")).unwrap();
    sql.push_str(&grants.replace("{group}", &quote_ident(group)));
    sql
}

/// The migrations with their numbers, in order.
pub(crate) fn numbered_migrations() -> Vec<(u32, String)> {
    let mut files: Vec<(u32, String)> = std::fs::read_dir(folder())
        .unwrap()
        .filter_map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name()?.to_str()?.to_owned();
            let number = name.strip_prefix('V')?.split_once("__")?.0.parse().ok()?;
            Some((number, std::fs::read_to_string(&path).unwrap()))
        })
        .collect();
    files.sort();
    files
}

impl Lab {
    pub(crate) async fn new() -> Self {
        Self::on(Space::new().await).await
    }

    pub(crate) async fn on(space: Space) -> Self {
        let (group, role) = (
            format!("{}_dml", space.namespace.as_str()),
            format!("{}_tenant_x", space.namespace.as_str()),
        );
        let server = pg::connect(&space.server, "lab test", LIMIT).await.unwrap();
        server
            .batch_execute(&format!(
                "CREATE ROLE {group} NOLOGIN; CREATE ROLE {role} LOGIN PASSWORD 'secret' IN ROLE {group};"
            ))
            .await
            .unwrap();
        server
            .batch_execute(&format!("CREATE DATABASE {role} TEMPLATE template0"))
            .await
            .unwrap();
        let owner = space.server.with_database(&role);
        let mut client = pg::connect(&owner, "lab test", LIMIT).await.unwrap();
        client.batch_execute(&migrations(&group)).await.unwrap();
        let tenant = TenantId::generate();
        let admin = actor(StaffId::generate(), Role::LabAdmin);
        let txn = client.transaction().await.unwrap();
        lab::seed(&txn, &seed(tenant, admin.staff)).await.unwrap();
        txn.commit().await.unwrap();
        let config = owner
            .with_user(&role, SecretString::from("secret".to_owned()))
            .to_config("lab test", LIMIT);
        let pool = Pool::builder(Manager::new(config, NoTls))
            .max_size(8)
            .build()
            .unwrap();
        let mut object = pool.get().await.unwrap();
        let txn = object.transaction().await.unwrap();
        let mut people = Vec::new();
        for (n, role) in [
            Role::Receptionist,
            Role::Technician,
            Role::Supervisor,
            Role::Supervisor,
        ]
        .into_iter()
        .enumerate()
        {
            let new = NewStaff {
                email: Email::parse(&format!("p{n}@example.org")).unwrap(),
                display_name: format!("Person {n}"),
                role,
            };
            people.push(actor(staff::create(&txn, &admin, &new).await.unwrap().id, role));
        }
        txn.commit().await.unwrap();
        drop(object);
        let mut people = people.into_iter();
        let mut next = || people.next().unwrap();
        Self {
            pool,
            owner,
            tenant,
            admin,
            receptionist: next(),
            technician: next(),
            supervisor: next(),
            second_supervisor: next(),
            _space: space,
        }
    }

    /// A connection as the laboratory's own role.
    pub(crate) async fn client(&self) -> Object {
        self.pool.get().await.unwrap()
    }

    /// The laboratory's database, as the tables' owner.
    pub(crate) fn target(&self) -> &ConnectTarget {
        &self.owner
    }

    /// A connection as the tables' owner (who is a superuser here).
    pub(crate) async fn owner(&self) -> tokio_postgres::Client {
        pg::connect(&self.owner, "lab test", LIMIT).await.unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.pool.close();
    }
}

pub(crate) fn seed(tenant: TenantId, admin: StaffId) -> LabSeed {
    LabSeed {
        tenant,
        name: "St. Mary's \"Lab\"".to_owned(),
        time_zone: "Europe/Berlin".to_owned(),
        admin_id: admin,
        admin_email: Email::parse("Admin@Example.org").unwrap(),
        admin_name: "Ada".to_owned(),
    }
}

pub(crate) fn actor(staff: StaffId, role: Role) -> Actor {
    Actor {
        staff,
        role,
        request_id: Some("req-1".to_owned()),
        client_ip: Some([192, 0, 2, 7].into()),
    }
}

/// What is wrong, whichever field it is that it is wrong with.
fn cause<T: std::fmt::Debug>(outcome: Result<T, LabError>) -> Result<T, LabError> {
    match outcome {
        Err(LabError::At { source, .. }) => Err(*source),
        other => other,
    }
}

/// The code of a conflict; panics on any other outcome.
pub(crate) fn conflict<T: std::fmt::Debug>(outcome: Result<T, LabError>) -> &'static str {
    match cause(outcome) {
        Err(LabError::Conflict { code, .. }) => code,
        other => panic!("expected a conflict, got {other:?}"),
    }
}

pub(crate) fn is_invalid<T: std::fmt::Debug>(outcome: Result<T, LabError>, field: &str) {
    match outcome {
        Err(LabError::Invalid(problems)) => {
            assert!(problems.iter().any(|p| p.field == field), "{problems:?}")
        }
        other => panic!("expected {field} to be invalid, got {other:?}"),
    }
}

pub(crate) fn is_missing<T: std::fmt::Debug>(outcome: Result<T, LabError>) {
    let outcome = cause(outcome);
    assert!(matches!(outcome, Err(LabError::NotFound { .. })), "{outcome:?}");
}

pub(crate) fn new_patient(sex: Sex, birth_date: Date) -> NewPatient {
    NewPatient {
        national_id: None,
        family_name: "Byron".to_owned(),
        given_name: "Ada".to_owned(),
        sex,
        birth_date,
    }
}

pub(crate) async fn adult(txn: &Txn<'_>, lab: &Lab) -> Patient {
    patients::create(
        txn,
        &lab.receptionist,
        &new_patient(Sex::Female, date(1980, 5, 1)),
    )
    .await
    .unwrap()
}

pub(crate) fn new_order(patient: &Patient, tests: &[&str]) -> NewOrder {
    NewOrder {
        patient_id: patient.id,
        priority: None,
        requester: Some("Dr. Osei".to_owned()),
        placer_order_no: None,
        clinical_note: None,
        tests: tests.iter().map(|code| (*code).to_owned()).collect(),
    }
}

/// An order with its specimens received.
pub(crate) async fn received(txn: &Txn<'_>, lab: &Lab, patient: &Patient, tests: &[&str]) -> Order {
    let order = orders::create(txn, &lab.receptionist, &new_order(patient, tests))
        .await
        .unwrap();
    for specimen in &order.specimens {
        specimens::collect(txn, &lab.receptionist, &specimen.barcode, &When::default())
            .await
            .unwrap();
        specimens::receive(txn, &lab.technician, &specimen.barcode, &When::default())
            .await
            .unwrap();
    }
    orders::get(txn, order.head.id).await.unwrap()
}

pub(crate) fn value(value: &str, unit: &str) -> ValueEntry {
    ValueEntry {
        value: value.to_owned(),
        comparator: None,
        unit: Some(unit.to_owned()),
        comment: None,
        reason: None,
    }
}

/// Enters, verifies and releases the one result of an order.
pub(crate) async fn released(
    txn: &Txn<'_>,
    lab: &Lab,
    patient: &Patient,
    test: &str,
    entry: &ValueEntry,
) -> ResultView {
    let order = received(txn, lab, patient, &[test]).await;
    let id = order.results[0].id;
    results::enter(txn, &lab.technician, id, order.results[0].version, entry)
        .await
        .unwrap();
    sign(txn, lab, id).await;
    let view = results::get(txn, id).await.unwrap();
    assert_eq!(view.status, ResultStatus::Released);
    view
}

pub(crate) async fn items(txn: &Txn<'_>, ids: &[ResultId]) -> Items {
    let mut items = Vec::new();
    for id in ids {
        let version = results::get(txn, *id).await.unwrap().version;
        items.push(Item {
            id: *id,
            version,
            confirm_lifted: None,
            confirm_conflict: None,
        });
    }
    Items { items }
}

pub(crate) async fn sign(txn: &Txn<'_>, lab: &Lab, id: ResultId) {
    signoff::verify(txn, &lab.supervisor, &items(txn, &[id]).await)
        .await
        .unwrap();
    signoff::release(txn, &lab.supervisor, &items(txn, &[id]).await)
        .await
        .unwrap();
}

pub(crate) fn reason(text: &str) -> Reason {
    Reason {
        reason: text.to_owned(),
    }
}

pub(crate) fn notice() -> CriticalNoticeEntry {
    CriticalNoticeEntry {
        notified_to: "Dr. Osei, ward 3".to_owned(),
        read_back: true,
        ..CriticalNoticeEntry::default()
    }
}

/// Records a notice of what stands there now: the value of an open amendment that needs one, or else of the
/// result.
pub(crate) async fn told(
    txn: &Txn<'_>,
    lab: &Lab,
    id: ResultId,
    entry: &CriticalNoticeEntry,
) -> Result<CriticalNotice, LabError> {
    let mut entry = entry.clone();
    let open = amendments::of_result(txn, id)
        .await?
        .into_iter()
        .find(|amendment| amendment.status == AmendmentStatus::Proposed && amendment.notice_required);
    if let Some(amendment) = open {
        entry.amendment_id = Some(amendment.id);
        entry.amendment_version = Some(amendment.version);
    }
    let version = results::get(txn, id).await?.version;
    critical::record(txn, &lab.technician, id, version, &entry).await
}

/// The laboratory's epoch.
pub(crate) fn epoch() -> model::SessionEpoch {
    uuid::Uuid::nil().into()
}
