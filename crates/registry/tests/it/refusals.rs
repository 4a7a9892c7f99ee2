//! Refused log-ins are counted within bounds, and log-ins are remembered for each client.

use model::{ClientNetwork, Email, TenantId};
use registry::{NewRefusal, client_has_logged_in, refusal_count};

use crate::harness::Harness;

fn client(text: &str) -> ClientNetwork {
    ClientNetwork::of(text.parse().unwrap())
}

#[tokio::test]
async fn an_hour_has_a_bounded_number_of_rows_and_every_refusal_is_counted() {
    let harness = Harness::new().await;
    let registry = harness.client().await;
    registry
        .batch_execute(
            "INSERT INTO login_refusals (since, audience, reason) VALUES (now() - interval '91 days', 'lab', 'login-failed'),
                                                                         (now() - interval '89 days', 'lab', 'login-failed')",
        )
        .await
        .unwrap();
    let tenant = TenantId::generate();
    for at in 0..250 {
        let email = Email::parse(&format!("P{at}@lab.example")).unwrap();
        for _ in 0..2 {
            let refusal = NewRefusal {
                audience: "lab",
                reason: "login-failed",
                tenant: Some(tenant),
                email: Some(&email),
                client: Some(client("2001:db8:1:2::7")),
                request_id: Some("r-1"),
            };
            refusal_count(&registry, &refusal).await.unwrap();
        }
    }
    let sql = "SELECT count(*), sum(refusals)::int8, count(email), max(text(client)), max(refusals)
               FROM login_refusals WHERE since > now() - interval '2 days'";
    let row = registry.query_one(sql, &[]).await.unwrap();
    let (rows, refusals, named): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
    // A full hour may begin in the middle of it.
    let hours = rows / 200;
    assert!(
        hours <= 2 && refusals == 500 && named >= 200,
        "{rows} rows, {refusals} refusals, {named} named"
    );
    assert_eq!(row.get::<_, String>(3), "2001:db8:1:2::/64");
    assert!(
        row.get::<_, i64>(4) == 100 || hours == 2,
        "what is beyond the bound is one row"
    );
    let sql = "SELECT count(*) FROM login_refusals WHERE since < now() - interval '2 days'";
    let old: i64 = registry.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(old, 1, "what is older than 90 days is removed");
}

#[tokio::test]
async fn a_client_is_known_at_the_account_to_which_it_has_logged_in_lately() {
    let harness = Harness::new().await;
    let registry = harness.client().await;
    let tenant = TenantId::generate();
    let sql = format!(
        "INSERT INTO audit_log (actor, action, tenant_id, detail, client_ip, at) VALUES
            ('staff:1', 'login.succeeded', '{tenant}', '{{\"email\": \"Ada@lab.example\", \"audience\": \"lab\"}}', '2001:db8:1:2::7', now()),
            ('staff:1', 'login.succeeded', '{tenant}', '{{\"email\": \"ada@lab.example\", \"audience\": \"lab\"}}', '203.0.113.7',
             now() - interval '31 days'),
            ('operator:1', 'login.succeeded', NULL, '{{\"email\": \"ops@lab.example\", \"audience\": \"operator\"}}', '203.0.113.8', now())"
    );
    registry.batch_execute(&sql).await.unwrap();
    for (audience, tenant, email, from, known) in [
        (
            "lab",
            Some(tenant),
            "ada@LAB.example",
            "2001:db8:1:2:ffff::1",
            true,
        ),
        ("lab", Some(tenant), "ada@lab.example", "2001:db8:1:3::7", false),
        ("lab", Some(tenant), "ada@lab.example", "203.0.113.7", false),
        (
            "lab",
            Some(TenantId::generate()),
            "ada@lab.example",
            "2001:db8:1:2::7",
            false,
        ),
        ("lab", None, "ada@lab.example", "2001:db8:1:2::7", false),
        ("operator", None, "ops@lab.example", "203.0.113.8", true),
        ("lab", None, "ops@lab.example", "203.0.113.8", false),
        ("operator", None, "ops@lab.example", "203.0.113.9", false),
    ] {
        let email = Email::parse(email).unwrap();
        let found = client_has_logged_in(&registry, audience, tenant, &email, client(from)).await;
        assert_eq!(found.unwrap(), known, "{audience} {email} {from}");
    }
}
