//! Patients: names of every kind, duplicates, search, and changes that cannot be lost.

use jiff::civil::{Date, date};
use lab::{
    LabError, PageRequest, Sex, orders,
    patients::{self, PatientMerge, PatientPatch, PatientSearch},
};

use crate::support::{Lab, adult, conflict, is_invalid, is_missing, new_order, new_patient};

#[tokio::test]
async fn names_are_kept_as_typed_and_found_however_they_are_typed() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let names = [
        ("O'Brien\"; DROP TABLE patient;--", "Robert'); --"),
        ("José", "Zoë"),
        ("Nguyễn", "Thị Minh"),
        ("李", "小龙"),
        ("محمد", "علي"),
        ("100%_\\", "می\u{200c}نا"),
    ];
    for (family, given) in names {
        let mut new = new_patient(Sex::Unknown, date(1990, 1, 1));
        (new.family_name, new.given_name) = (family.to_owned(), given.to_owned());
        let patient = patients::create(&txn, &lab.receptionist, &new).await.unwrap();
        assert_eq!(
            (patient.family_name.as_str(), patient.given_name.as_str()),
            (family, given)
        );
        let found = search(&txn, family).await;
        assert!(found.contains(&patient.mrn), "{family}");
        assert_eq!(search(&txn, &patient.mrn).await, [patient.mrn]);
    }
    assert_eq!(search(&txn, "JOSÉ").await.len(), 1);
    assert_eq!(search(&txn, "jose zoe").await.len(), 1);
    assert_eq!(search(&txn, "zoe jos").await.len(), 1);
    assert_eq!(
        search(&txn, "%").await.len(),
        0,
        "a wildcard is a letter like any other"
    );
    assert_eq!(search(&txn, "100%").await.len(), 1);
    is_invalid(
        patients::search(
            &txn,
            &PatientSearch {
                q: Some("x".repeat(101)),
                birth_date: None,
            },
            &PageRequest::default(),
        )
        .await,
        "q",
    );
}

async fn search(txn: &lab::Txn<'_>, q: &str) -> Vec<String> {
    let search = PatientSearch {
        q: Some(q.to_owned()),
        birth_date: None,
    };
    let page = patients::search(txn, &search, &PageRequest::default())
        .await
        .unwrap();
    page.items.into_iter().map(|p| p.mrn).collect()
}

#[tokio::test]
async fn a_search_with_a_nul_is_told_so() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let search = PatientSearch {
        q: Some("a\0b".to_owned()),
        birth_date: None,
    };
    let outcome = patients::search(&txn, &search, &PageRequest::default()).await;
    assert!(matches!(outcome, Err(LabError::Invalid(_))), "{outcome:?}");
}

#[tokio::test]
async fn a_registration_names_everything_that_is_wrong() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let mut new = new_patient(Sex::Male, date(2999, 1, 1));
    new.family_name = "a\0".to_owned();
    new.given_name = String::new();
    let Err(LabError::Invalid(problems)) = patients::create(&txn, &lab.receptionist, &new).await else {
        panic!()
    };
    let fields: Vec<&str> = problems.iter().map(|p| p.field.as_str()).collect();
    assert_eq!(fields, ["familyName", "givenName", "birthDate"]);
    is_missing(patients::get(&txn, lab::PatientId::generate()).await);
}

#[tokio::test]
async fn a_national_number_belongs_to_one_patient() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let mut new = new_patient(Sex::Male, date(1970, 1, 1));
    new.national_id = Some("A-1".to_owned());
    patients::create(&txn, &lab.receptionist, &new).await.unwrap();
    let nested = client_savepoint(&txn).await;
    assert_eq!(
        conflict(patients::create(&txn, &lab.receptionist, &new).await),
        "duplicate"
    );
    txn.batch_execute(nested).await.unwrap();
    let other = adult(&txn, &lab).await;
    let patch = PatientPatch {
        national_id: Some(Some("A-1".to_owned())),
        ..PatientPatch::default()
    };
    let taken = patients::update(&txn, &lab.receptionist, other.id, other.version, &patch).await;
    assert_eq!(conflict(taken), "duplicate");
}

/// After an error a transaction is over; a savepoint lets a test go on in it.
async fn client_savepoint(txn: &lab::Txn<'_>) -> &'static str {
    txn.batch_execute("SAVEPOINT before").await.unwrap();
    "ROLLBACK TO SAVEPOINT before"
}

#[tokio::test]
async fn of_two_changes_to_the_same_version_one_is_refused() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patient = adult(&txn, &lab).await;
    let patch = PatientPatch {
        given_name: Some("Augusta".to_owned()),
        ..PatientPatch::default()
    };
    let changed = patients::update(&txn, &lab.receptionist, patient.id, 1, &patch)
        .await
        .unwrap();
    assert_eq!((changed.version, changed.given_name.as_str()), (2, "Augusta"));
    assert_eq!(search(&txn, "augusta").await, [patient.mrn]);
    let late = patients::update(&txn, &lab.receptionist, patient.id, 1, &patch).await;
    assert!(
        matches!(
            late,
            Err(LabError::Version {
                have: 2,
                given: 1,
                ..
            })
        ),
        "{late:?}"
    );
}

#[tokio::test]
async fn a_merged_duplicate_points_to_the_one_who_lives_on() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let (a, b, c) = (
        adult(&txn, &lab).await,
        adult(&txn, &lab).await,
        adult(&txn, &lab).await,
    );
    let into = |id| PatientMerge {
        into: id,
        reason: "registered twice".to_owned(),
    };
    is_invalid(
        patients::merge(&txn, &lab.supervisor, a.id, &into(a.id)).await,
        "into",
    );
    is_missing(patients::merge(&txn, &lab.supervisor, a.id, &into(lab::PatientId::generate())).await);
    patients::merge(&txn, &lab.supervisor, a.id, &into(b.id))
        .await
        .unwrap();
    assert_eq!(
        conflict(patients::merge(&txn, &lab.supervisor, c.id, &into(a.id)).await),
        "merged"
    );
    patients::merge(&txn, &lab.supervisor, b.id, &into(c.id))
        .await
        .unwrap();
    assert_eq!(
        patients::get(&txn, a.id).await.unwrap().merged_into,
        Some(c.id),
        "one step leads to the survivor"
    );
    assert_eq!(search(&txn, "byron").await, std::slice::from_ref(&c.mrn));
    assert_eq!(
        conflict(orders::create(&txn, &lab.receptionist, &new_order(&a, &["K"])).await),
        "merged"
    );
    let patch = PatientPatch {
        given_name: Some("X".to_owned()),
        ..PatientPatch::default()
    };
    let version = patients::get(&txn, a.id).await.unwrap().version;
    assert_eq!(
        conflict(patients::update(&txn, &lab.receptionist, a.id, version, &patch).await),
        "merged"
    );
}

#[tokio::test]
async fn pages_meet_without_a_gap_or_a_repeat() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    for _ in 0..7 {
        adult(&txn, &lab).await;
    }
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let request = PageRequest {
            limit: Some(3),
            after,
        };
        let page = patients::search(&txn, &PatientSearch::default(), &request)
            .await
            .unwrap();
        seen.extend(page.items.into_iter().map(|p| p.id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 7);
    assert!(seen.is_sorted_by(|a, b| a > b), "newest first, none twice");
    let bad = PageRequest {
        limit: None,
        after: Some("nonsense".to_owned()),
    };
    is_invalid(
        patients::search(&txn, &PatientSearch::default(), &bad).await,
        "after",
    );
}

#[tokio::test]
async fn null_takes_a_national_number_away_and_nothing_else() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let mut new = new_patient(Sex::Male, date(1970, 1, 1));
    new.national_id = Some("A-1".to_owned());
    let before = patients::create(&txn, &lab.receptionist, &new).await.unwrap();
    let change = |text: &str| serde_json::from_str::<PatientPatch>(text);
    let named = change(r#"{"givenName": "Augusta"}"#).unwrap();
    let named = patients::update(&txn, &lab.receptionist, before.id, before.version, &named)
        .await
        .unwrap();
    assert_eq!(named.national_id.as_deref(), Some("A-1"), "what is absent stays");
    let cleared = change(r#"{"nationalId": null}"#).unwrap();
    let cleared = patients::update(&txn, &lab.receptionist, before.id, named.version, &cleared)
        .await
        .unwrap();
    assert_eq!(cleared.national_id, None);
    for field in ["familyName", "givenName", "sex", "birthDate"] {
        let refused = change(&format!("{{\"{field}\": null}}"));
        assert!(refused.unwrap_err().is_data(), "{field} cannot be cleared");
    }
}

#[tokio::test]
async fn a_search_for_a_birth_that_cannot_be_is_told_so() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    for birth_date in [Date::MIN, date(1849, 12, 31), Date::MAX] {
        let search = PatientSearch {
            q: None,
            birth_date: Some(birth_date),
        };
        is_invalid(
            patients::search(&txn, &search, &PageRequest::default()).await,
            "birthDate",
        );
    }
}
