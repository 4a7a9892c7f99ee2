//! A laboratory's schema changes under the connections that serve it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use futures_util::future::join_all;
use serde_json::json;

use crate::support::{Call, World, connect};

/// As many at once as the laboratory has connections, and as many again that wait.
const CLIENTS: usize = 8;
/// How many requests each client has to see answered after each change.
const ROUNDS: usize = 12;

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_a_columns_type_under_traffic_is_seen_by_no_client() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let patient = lab.patient(d).await;
    let id = patient["id"].as_str().unwrap();
    let database = format!("{}_tenant_{}", world.space.namespace.as_str(), lab.slug);
    let owner = connect(&world.space.server.with_database(database)).await;

    let done = AtomicBool::new(false);
    let answered: Vec<AtomicUsize> = (0..CLIENTS).map(|_| AtomicUsize::new(0)).collect();
    let client = async |n: usize| {
        while !done.load(SeqCst) {
            // Each reads, and every second one also writes, with a key and without.
            let mut calls = vec![
                Call::new("GET", format!("/api/v1/patients/{id}")),
                Call::new("GET", "/api/v1/patients?limit=5"),
            ];
            if n.is_multiple_of(2) {
                let own = uuid::Uuid::now_v7().simple();
                let body = json!({ "familyName": format!("F{own}"), "givenName": format!("G{own}"), "sex": "F",
                                   "birthDate": "1980-04-01" });
                calls.push(Call::new("POST", "/api/v1/patients").json(&body));
                let keyed = Call::new("POST", "/api/v1/patients").json(&body);
                calls.push(keyed.header("idempotency-key", own.to_string()));
            }
            for call in calls {
                let reply = d.send(&call, &lab.receptionist).await;
                assert!(reply.status < 300, "{call:?}: {} {}", reply.status, reply.text);
            }
            answered[n].fetch_add(1, SeqCst);
        }
    };
    let changes = async {
        for to in ["varchar(300)", "text", "varchar(400)", "text"] {
            let before: Vec<usize> = answered.iter().map(|count| count.load(SeqCst)).collect();
            owner
                .batch_execute(&format!(
                    "BEGIN; DROP TRIGGER patient_form ON patient; ALTER TABLE patient ALTER COLUMN given_name TYPE {to};
                     CREATE TRIGGER patient_form BEFORE INSERT OR UPDATE OF national_id, family_name, given_name ON patient
                       FOR EACH ROW EXECUTE FUNCTION refuse_other_forms('national_id', 'family_name', 'given_name');
                     COMMIT"
                ))
                .await
                .unwrap();
            testkit::eventually("requests after the change", crate::support::LIMIT, async || {
                answered
                    .iter()
                    .zip(&before)
                    .all(|(count, before)| count.load(SeqCst) >= before + ROUNDS)
            })
            .await;
        }
        done.store(true, SeqCst);
    };
    tokio::join!(changes, join_all((0..CLIENTS).map(client)));
    world.stop().await;
}

/// An acceptance is a transaction of two databases, and a person who follows a link tries it once.
#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_is_accepted_right_after_a_change_of_a_columns_type() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let mut tokens = Vec::new();
    for name in ["one", "two", "three"] {
        let body =
            json!({ "email": format!("{name}@acme.example"), "displayName": name, "role": "technician" });
        let made = d.post(&lab.admin, "/api/v1/staff", body).await.expect(201);
        tokens.push(made["invitation"]["token"].as_str().unwrap().to_owned());
    }
    let database = format!("{}_tenant_{}", world.space.namespace.as_str(), lab.slug);
    let owner = connect(&world.space.server.with_database(database)).await;
    let registry = connect(&world.space.registry).await;
    for (at, token) in tokens.iter().enumerate() {
        let body = json!({ "token": token, "password": "a pass phrase that is long" });
        let reply = d.post("", "/api/v1/auth/invitations/accept", body).await;
        assert_eq!(reply.status, 200, "{at}: {}", reply.text);
        let to = 300 + at;
        owner
            .batch_execute(&format!(
                "BEGIN; DROP TRIGGER staff_form ON staff; ALTER TABLE staff ALTER COLUMN display_name TYPE varchar({to});
                 CREATE TRIGGER staff_form BEFORE INSERT OR UPDATE OF display_name ON staff
                   FOR EACH ROW EXECUTE FUNCTION refuse_other_forms('display_name');
                 COMMIT"
            ))
            .await
            .unwrap();
        let sql = format!("ALTER TABLE tenants ALTER COLUMN time_zone TYPE varchar({to})");
        registry.batch_execute(&sql).await.unwrap();
    }
    world.stop().await;
}
