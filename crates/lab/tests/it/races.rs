//! Two people at once: each test holds one transaction open and waits until the database says that the other
//! waits for it.

use std::time::Duration;

use lab::{
    LabError, OrderId, OrderStatus, ResultId, SpecimenStatus,
    orders::{self, AddTests},
    patients::{self, PatientPatch},
    rejection::Rejection,
    results, signoff,
};

use crate::support::{Lab, adult, items, reason, received, value};

const LIMIT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn two_who_finish_the_last_two_results_at_once_complete_the_order() {
    let lab = Lab::new().await;
    let (mut one, mut two) = (lab.client().await, lab.client().await);
    let setup = one.transaction().await.unwrap();
    let patient = adult(&setup, &lab).await;
    let order = received(&setup, &lab, &patient, &["K", "NA"]).await;
    for result in &order.results {
        let text = if result.code == "K" { "4.0" } else { "140" };
        results::enter(&setup, &lab.technician, result.id, 1, &value(text, "mmol/L"))
            .await
            .unwrap();
    }
    let ids: Vec<ResultId> = order.results.iter().map(|r| r.id).collect();
    signoff::verify(&setup, &lab.supervisor, &items(&setup, &ids).await)
        .await
        .unwrap();
    let (first_items, second_items) = (items(&setup, &ids[..1]).await, items(&setup, &ids[1..]).await);
    setup.commit().await.unwrap();

    let first = one.transaction().await.unwrap();
    signoff::release(&first, &lab.supervisor, &first_items)
        .await
        .unwrap();
    let second = two.transaction().await.unwrap();
    let release = signoff::release(&second, &lab.second_supervisor, &second_items);
    // The second waits for the order's row, so it can only end after the first has committed.
    let (outcome, ()) = tokio::join!(release, async { first.commit().await.unwrap() });
    outcome.unwrap();
    second.commit().await.unwrap();
    let txn = one.transaction().await.unwrap();
    assert_eq!(
        orders::get(&txn, order.head.id).await.unwrap().head.status,
        OrderStatus::Completed
    );
}

/// Waits until the database says that another transaction waits for one of this laboratory's locks.
pub(crate) async fn somebody_waits(lab: &Lab) {
    let watcher = lab.owner().await;
    testkit::eventually("another transaction waits for a lock", LIMIT, async || {
        let sql = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')";
        watcher.query_one(sql, &[]).await.unwrap().get::<_, bool>(0)
    })
    .await;
}

fn rejection() -> Rejection {
    Rejection {
        reason: "haemolysed".to_owned(),
        recollect: true,
    }
}

fn sodium() -> AddTests {
    AddTests {
        tests: vec!["NA".to_owned()],
    }
}

/// No open result may wait for a specimen that nobody will ever look at.
async fn nothing_is_stuck(lab: &Lab, order: OrderId) {
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let order = orders::get(&txn, order).await.unwrap();
    for result in order.results.iter().filter(|r| !r.status.is_final()) {
        let specimen = order
            .specimens
            .iter()
            .find(|s| s.id == result.specimen_id)
            .unwrap();
        assert_eq!(specimen.status, SpecimenStatus::Expected, "{}", result.code);
    }
    assert_eq!(order.results.len(), 2);
}

#[tokio::test]
async fn a_test_added_while_its_specimen_is_rejected_moves_along() {
    let lab = Lab::new().await;
    let (mut one, mut two) = (lab.client().await, lab.client().await);
    let setup = one.transaction().await.unwrap();
    let patient = adult(&setup, &lab).await;
    let order = received(&setup, &lab, &patient, &["K"]).await;
    let (id, barcode) = (order.head.id, order.specimens[0].barcode.clone());
    setup.commit().await.unwrap();

    let adding = one.transaction().await.unwrap();
    orders::add_tests(&adding, &lab.receptionist, id, &sodium())
        .await
        .unwrap();
    let rejecting = two.transaction().await.unwrap();
    let rejection = rejection();
    let reject = lab::rejection::reject(&rejecting, &lab.technician, &barcode, &rejection);
    let (rejected, ()) = tokio::join!(reject, async {
        somebody_waits(&lab).await;
        adding.commit().await.unwrap();
    });
    assert_eq!(rejected.unwrap().replacement.unwrap().tests, ["K", "NA"]);
    rejecting.commit().await.unwrap();
    nothing_is_stuck(&lab, id).await;
}

#[tokio::test]
async fn a_test_added_after_a_rejection_waits_for_the_replacement() {
    let lab = Lab::new().await;
    let (mut one, mut two) = (lab.client().await, lab.client().await);
    let setup = one.transaction().await.unwrap();
    let patient = adult(&setup, &lab).await;
    let order = received(&setup, &lab, &patient, &["K"]).await;
    let (id, barcode) = (order.head.id, order.specimens[0].barcode.clone());
    setup.commit().await.unwrap();

    let rejecting = one.transaction().await.unwrap();
    lab::rejection::reject(&rejecting, &lab.technician, &barcode, &rejection())
        .await
        .unwrap();
    let adding = two.transaction().await.unwrap();
    let sodium = sodium();
    let add = orders::add_tests(&adding, &lab.receptionist, id, &sodium);
    let (added, ()) = tokio::join!(add, async {
        somebody_waits(&lab).await;
        rejecting.commit().await.unwrap();
    });
    assert_eq!(added.unwrap().specimens.len(), 2, "the replacement serves both");
    adding.commit().await.unwrap();
    nothing_is_stuck(&lab, id).await;
}

/// In the middle of a rejection the specimen is locked and the order is not yet: whoever waits for the
/// specimen must not hold the order, or neither could go on.
#[tokio::test]
async fn who_waits_for_a_specimen_does_not_hold_its_order() {
    let lab = Lab::new().await;
    let (mut one, mut two) = (lab.client().await, lab.client().await);
    let setup = one.transaction().await.unwrap();
    let patient = adult(&setup, &lab).await;
    let order = received(&setup, &lab, &patient, &["K"]).await;
    let id = order.head.id;
    setup.commit().await.unwrap();
    for adds in [true, false] {
        let rejecting = one.transaction().await.unwrap();
        let sql = "SELECT 1 FROM specimen WHERE order_id = $1 FOR NO KEY UPDATE";
        rejecting.query(sql, &[&id]).await.unwrap();
        let other = two.transaction().await.unwrap();
        let sodium = sodium();
        let change = async {
            if adds {
                orders::add_tests(&other, &lab.receptionist, id, &sodium).await
            } else {
                orders::cancel(&other, &lab.receptionist, id, &reason("not needed")).await
            }
        };
        let (changed, ()) = tokio::join!(change, async {
            somebody_waits(&lab).await;
            let sql = "SELECT 1 FROM lab_order WHERE id = $1 FOR NO KEY UPDATE NOWAIT";
            let free = rejecting.query(sql, &[&id]).await;
            assert!(free.is_ok(), "adding a test ({adds}) holds the order: {free:?}");
            rejecting.commit().await.unwrap();
        });
        changed.unwrap();
        other.commit().await.unwrap();
    }
}

#[tokio::test]
async fn who_loses_a_deadlock_is_told_to_try_again() {
    let lab = Lab::new().await;
    let (mut one, mut two) = (lab.client().await, lab.client().await);
    let (first, second) = (one.transaction().await.unwrap(), two.transaction().await.unwrap());
    let lock = "SELECT 1 FROM staff WHERE id = $1 FOR NO KEY UPDATE";
    let (ours, theirs) = (lab.technician.staff.as_uuid(), lab.supervisor.staff.as_uuid());
    first.query(lock, &[&ours]).await.unwrap();
    second.query(lock, &[&theirs]).await.unwrap();
    // Who loses takes its locks back, and the other goes on.
    let waits = async |txn: lab::Txn<'_>, id: uuid::Uuid| {
        let outcome = txn.query(lock, &[&id]).await;
        txn.rollback().await.unwrap();
        outcome.err().map(LabError::from)
    };
    let lost = tokio::join!(waits(first, theirs), waits(second, ours));
    match lost {
        (Some(error), None) | (None, Some(error)) => assert!(error.may_pass_on_retry(), "{error:?}"),
        both => panic!("expected one to lose, got {both:?}"),
    }
}

/// A child by mistake, whose potassium waits: its id and the correction of the birth date.
async fn a_supposed_child(txn: &lab::Txn<'_>, lab: &Lab) -> (lab::patients::Patient, PatientPatch, ResultId) {
    let birth = jiff::civil::date(2015, 1, 1);
    let patient = crate::unmarked::person(txn, lab, lab::Sex::Female, birth).await;
    let order = received(txn, lab, &patient, &["K"]).await;
    let grown = PatientPatch {
        birth_date: Some(jiff::civil::date(1960, 1, 1)),
        ..PatientPatch::default()
    };
    (patient, grown, order.results[0].id)
}

#[tokio::test]
async fn a_value_entered_while_the_birth_date_is_corrected_is_evaluated_by_the_true_one() {
    let lab = Lab::new().await;
    let (mut one, mut two) = (lab.client().await, lab.client().await);
    for value_first in [true, false] {
        let setup = one.transaction().await.unwrap();
        let (patient, grown, id) = a_supposed_child(&setup, &lab).await;
        setup.commit().await.unwrap();

        let entering = one.transaction().await.unwrap();
        let correcting = two.transaction().await.unwrap();
        let nine = value("9.9", "mmol/L");
        let enter = results::enter(&entering, &lab.technician, id, 1, &nine);
        let correct = patients::update(&correcting, &lab.receptionist, patient.id, 1, &grown);
        if value_first {
            enter.await.unwrap();
            let (corrected, ()) = tokio::join!(correct, async {
                somebody_waits(&lab).await;
                entering.commit().await.unwrap();
            });
            corrected.unwrap();
            correcting.commit().await.unwrap();
        } else {
            correct.await.unwrap();
            let (entered, ()) = tokio::join!(enter, async {
                somebody_waits(&lab).await;
                correcting.commit().await.unwrap();
            });
            entered.unwrap();
            entering.commit().await.unwrap();
        }
        let txn = one.transaction().await.unwrap();
        let flag = results::get(&txn, id).await.unwrap().flag;
        assert_eq!(
            flag.map(lab::Flag::as_str),
            Some("HH"),
            "value first: {value_first}"
        );
        txn.commit().await.unwrap();
    }
}

#[tokio::test]
async fn a_value_released_while_the_birth_date_is_corrected_is_marked() {
    let lab = Lab::new().await;
    let (mut one, mut two) = (lab.client().await, lab.client().await);
    let setup = one.transaction().await.unwrap();
    let (patient, grown, id) = a_supposed_child(&setup, &lab).await;
    results::enter(&setup, &lab.technician, id, 1, &value("9.9", "mmol/L"))
        .await
        .unwrap();
    signoff::verify(&setup, &lab.supervisor, &items(&setup, &[id]).await)
        .await
        .unwrap();
    let last = items(&setup, &[id]).await;
    setup.commit().await.unwrap();

    let releasing = one.transaction().await.unwrap();
    let correcting = two.transaction().await.unwrap();
    signoff::release(&releasing, &lab.supervisor, &last)
        .await
        .unwrap();
    let correct = patients::update(&correcting, &lab.receptionist, patient.id, 1, &grown);
    let (corrected, ()) = tokio::join!(correct, async {
        somebody_waits(&lab).await;
        releasing.commit().await.unwrap();
    });
    corrected.unwrap();
    correcting.commit().await.unwrap();
    let txn = one.transaction().await.unwrap();
    let view = results::get(&txn, id).await.unwrap();
    assert!(
        view.flag.is_none() && view.evaluation_outdated.is_some(),
        "{view:?}"
    );
}

#[tokio::test]
async fn a_limit_added_while_a_value_is_entered_holds_for_it() {
    let lab = Lab::new().await;
    let (mut one, mut two) = (lab.client().await, lab.client().await);
    let setup = one.transaction().await.unwrap();
    lab::catalogue::create(&setup, &lab.admin, &crate::unmarked::own_test("OWN"))
        .await
        .unwrap();
    let patient = adult(&setup, &lab).await;
    let order = received(&setup, &lab, &patient, &["OWN"]).await;
    let id = order.results[0].id;
    setup.commit().await.unwrap();

    let entering = one.transaction().await.unwrap();
    results::enter(&entering, &lab.technician, id, 1, &value("9.9", "mmol/L"))
        .await
        .unwrap();
    let adding = two.transaction().await.unwrap();
    let limits = crate::unmarked::limits(None, Some("8"));
    let add = lab::ranges::create(&adding, &lab.admin, "OWN", &limits);
    let (added, ()) = tokio::join!(add, async {
        somebody_waits(&lab).await;
        entering.commit().await.unwrap();
    });
    added.unwrap();
    adding.commit().await.unwrap();
    let txn = one.transaction().await.unwrap();
    let flag = results::get(&txn, id).await.unwrap().flag;
    assert_eq!(flag.map(lab::Flag::as_str), Some("HH"));
}
