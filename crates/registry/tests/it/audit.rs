//! The audit is only ever added to.

use registry::{Actor, AuditFilter, NewAudit, audit_insert, audit_list};
use serde_json::json;

use crate::harness::Harness;

#[tokio::test]
async fn what_was_written_cannot_be_changed_deleted_or_truncated() {
    let harness = Harness::new().await;
    let client = harness.client().await;
    let entry = NewAudit {
        actor: &Actor::Anonymous,
        action: "login.refused",
        tenant: None,
        detail: json!({ "email": "eve@example.org" }),
        request_id: Some("r-1"),
        client_ip: Some("2001:db8::1".parse().unwrap()),
    };
    audit_insert(&client, &entry).await.unwrap();
    for change in [
        "UPDATE audit_log SET actor = 'anonymous'",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
    ] {
        let error = client.batch_execute(change).await.unwrap_err();
        let message = error.as_db_error().unwrap().message().to_owned();
        assert!(message.contains("append-only"), "{change}: {message}");
    }
    let lines = audit_list(&client, &AuditFilter::default(), None, 10)
        .await
        .unwrap();
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0].actor, Actor::Anonymous);
    assert_eq!(lines[0].client_ip, entry.client_ip);
    assert_eq!(lines[0].request_id.as_deref(), entry.request_id);
    assert!(
        audit_list(&client, &AuditFilter::default(), Some(lines[0].id), 10)
            .await
            .unwrap()
            .is_empty()
    );
}
