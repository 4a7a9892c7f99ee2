//! Admins of laboratories and the platform's own staff.

use std::time::Duration;

use model::{Email, OperatorId, StaffId, TenantEvent, TenantId};
use registry::{
    Admin, AdminPatch, AuditFilter, Invitation, NewAdmin, NewInvitation, NewOperator, RegistryError,
    admin_by_id, admin_change_in_txn, admin_insert_in_txn, admin_set_password_in_txn, admins_by_email,
    admins_of, admins_put_back_in_txn, audit_list, invitation_accept_in_txn, invitation_by_digest,
    invitation_put_in_txn, invitation_revoke_in_txn, invitations_of, operator_by_email, operator_by_id,
    operator_insert, operator_set_active_in_txn, operator_set_password_in_txn, operators_list,
    tenant_delete_in_txn,
};
use secrecy::ExposeSecret;

use crate::harness::Harness;

fn admin(tenant: TenantId, email: &str) -> NewAdmin {
    NewAdmin {
        id: StaffId::generate(),
        tenant,
        email: Email::parse(email).unwrap(),
        display_name: "Ada".to_owned(),
        password_hash: Some("$argon2id$hash".into()),
    }
}

fn hash_of(admin: &Admin) -> &str {
    admin.password_hash.as_ref().unwrap().expose_secret()
}

async fn insert(harness: &Harness, new: &NewAdmin) -> Result<registry::Admin, RegistryError> {
    let mut client = harness.client().await;
    let txn = client.transaction().await.unwrap();
    let admin = admin_insert_in_txn(&txn, new).await?;
    txn.commit().await.unwrap();
    Ok(admin)
}

#[tokio::test]
async fn an_address_may_administer_several_laboratories_but_each_once() {
    let harness = Harness::new().await;
    let (one, two) = (harness.tenant("one").await, harness.tenant("two").await);
    let first = insert(&harness, &admin(one.id, "ada@example.org")).await.unwrap();
    insert(&harness, &admin(two.id, "ADA@example.org")).await.unwrap();
    let error = insert(&harness, &admin(one.id, "Ada@Example.org"))
        .await
        .unwrap_err();
    assert!(matches!(error, RegistryError::EmailTaken { .. }), "{error:?}");
    let error = insert(&harness, &admin(TenantId::generate(), "x@example.org"))
        .await
        .unwrap_err();
    assert!(matches!(error, RegistryError::NotFound { .. }), "{error:?}");

    let client = harness.client().await;
    let found = admins_by_email(&client, &Email::parse("aDa@example.org").unwrap())
        .await
        .unwrap();
    assert_eq!(
        found.iter().map(|a| a.tenant).collect::<Vec<_>>(),
        [one.id, two.id]
    );
    assert_eq!(found[0].email.as_str(), "ada@example.org", "kept as typed");
    assert_eq!(hash_of(&found[0]), "$argon2id$hash");
    assert!(!format!("{:?}", found[0]).contains("argon2id"));
    assert_eq!(
        admin_by_id(&client, first.tenant, first.id)
            .await
            .unwrap()
            .unwrap()
            .tenant,
        one.id
    );
    assert_eq!(admins_of(&client, two.id).await.unwrap().len(), 1);
}

#[tokio::test]
async fn admins_go_with_their_laboratory() {
    let harness = Harness::new().await;
    let tenant = harness.tenant("acme").await;
    let ada = insert(&harness, &admin(tenant.id, "ada@example.org"))
        .await
        .unwrap();
    let mut client = harness.client().await;
    let txn = client.transaction().await.unwrap();
    let undone = TenantEvent::ProvisionUndone;
    assert!(
        tenant_delete_in_txn(&txn, tenant.id, undone, &harness.change())
            .await
            .unwrap()
    );
    txn.commit().await.unwrap();
    assert!(admin_by_id(&client, ada.tenant, ada.id).await.unwrap().is_none());
}

#[tokio::test]
async fn operators_are_found_without_regard_to_case() {
    let harness = Harness::new().await;
    let client = harness.client().await;
    let new = NewOperator {
        id: OperatorId::generate(),
        email: Email::parse("Ops@example.org").unwrap(),
        display_name: "Ops".to_owned(),
        password_hash: "$argon2id$hash".into(),
    };
    let operator = operator_insert(&client, &new).await.unwrap();
    let again = NewOperator {
        id: OperatorId::generate(),
        email: Email::parse("ops@EXAMPLE.org").unwrap(),
        ..new
    };
    let error = operator_insert(&client, &again).await.unwrap_err();
    assert!(matches!(error, RegistryError::EmailTaken { .. }), "{error:?}");
    let found = operator_by_email(&client, &again.email).await.unwrap().unwrap();
    assert_eq!(found.id, operator.id);
    assert!(operator_by_id(&client, operator.id).await.unwrap().is_some());
    assert_eq!(operators_list(&client).await.unwrap().len(), 1);
    assert!(!format!("{found:?}").contains("argon2id"));
}

#[tokio::test]
async fn an_admins_password_address_and_standing_change_with_a_line_in_the_audit_each() {
    let harness = Harness::new().await;
    let (tenant, other) = (harness.tenant("acme").await, harness.tenant("other").await);
    let ada = insert(&harness, &admin(tenant.id, "ada@example.org"))
        .await
        .unwrap();
    insert(&harness, &admin(tenant.id, "bea@example.org"))
        .await
        .unwrap();
    let mut client = harness.client().await;
    let change = harness.change();

    let txn = client.transaction().await.unwrap();
    // Another laboratory has no such admin.
    let nobody = admin_change_in_txn(&txn, other.id, ada.id, &AdminPatch::default(), &change).await;
    assert!(nobody.unwrap().is_none());
    let hash = "$argon2id$new".into();
    assert!(
        !admin_set_password_in_txn(&txn, other.id, ada.id, &hash, &change)
            .await
            .unwrap()
    );
    assert!(
        admin_set_password_in_txn(&txn, tenant.id, ada.id, &hash, &change)
            .await
            .unwrap()
    );
    let left = AdminPatch {
        email: Some(Email::parse("ada@new.example").unwrap()),
        active: Some(false),
        ..AdminPatch::default()
    };
    let changed = admin_change_in_txn(&txn, tenant.id, ada.id, &left, &change)
        .await
        .unwrap()
        .unwrap();
    txn.commit().await.unwrap();
    assert_eq!(changed.email.as_str(), "ada@new.example");
    assert_eq!(changed.display_name, ada.display_name);
    assert_eq!(hash_of(&changed), "$argon2id$new");

    let txn = client.transaction().await.unwrap();
    let again = admin_change_in_txn(&txn, tenant.id, ada.id, &left, &change)
        .await
        .unwrap()
        .unwrap();
    txn.commit().await.unwrap();
    assert!(changed.disabled_at.is_some());
    assert_eq!(again.disabled_at, changed.disabled_at, "the first time stays");
    let txn = client.transaction().await.unwrap();
    let back = AdminPatch {
        active: Some(true),
        ..AdminPatch::default()
    };
    let back = admin_change_in_txn(&txn, tenant.id, ada.id, &back, &change)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(back.disabled_at, None);
    let taken = AdminPatch {
        email: Some(Email::parse("BEA@example.org").unwrap()),
        ..AdminPatch::default()
    };
    let error = admin_change_in_txn(&txn, tenant.id, ada.id, &taken, &change)
        .await
        .unwrap_err();
    assert!(matches!(error, RegistryError::EmailTaken { .. }), "{error:?}");
    txn.rollback().await.unwrap();

    let filter = AuditFilter {
        tenant: Some(tenant.id),
        ..AuditFilter::default()
    };
    let lines = audit_list(&client, &filter, None, 50).await.unwrap();
    let actions: Vec<&str> = (lines.iter().rev().map(|line| line.action.as_str()))
        .filter(|action| action.starts_with("admin."))
        .collect();
    assert_eq!(actions, ["admin.password_set", "admin.changed", "admin.changed"]);
    assert!(!format!("{lines:?}").contains("argon2id"));
}

#[tokio::test]
async fn an_operators_password_and_standing_change_with_a_line_in_the_audit_each() {
    let harness = Harness::new().await;
    let mut client = harness.client().await;
    let new = NewOperator {
        id: OperatorId::generate(),
        email: Email::parse("ops@example.org").unwrap(),
        display_name: "Ops".to_owned(),
        password_hash: "$argon2id$hash".into(),
    };
    operator_insert(&client, &new).await.unwrap();
    let change = harness.change();
    let txn = client.transaction().await.unwrap();
    let changed = operator_set_password_in_txn(&txn, new.id, &"$argon2id$new".into(), &change)
        .await
        .unwrap();
    assert_eq!(changed.password_hash.expose_secret(), "$argon2id$new");
    let off = operator_set_active_in_txn(&txn, new.id, false, &change)
        .await
        .unwrap();
    assert!(off.disabled_at.is_some());
    let on = operator_set_active_in_txn(&txn, new.id, true, &change)
        .await
        .unwrap();
    assert_eq!(on.disabled_at, None);
    let error = operator_set_active_in_txn(&txn, OperatorId::generate(), false, &change)
        .await
        .unwrap_err();
    assert!(matches!(error, RegistryError::NotFound { .. }), "{error:?}");
    txn.commit().await.unwrap();
    let lines = audit_list(&client, &AuditFilter::default(), None, 50)
        .await
        .unwrap();
    let actions: Vec<&str> = lines.iter().rev().map(|line| line.action.as_str()).collect();
    assert_eq!(
        actions,
        ["operator.password_set", "operator.disabled", "operator.enabled"]
    );
    assert!(lines.iter().all(|line| line.actor == harness.actor));
    assert!(!format!("{lines:?}").contains("argon2id"));
}

async fn invited(
    harness: &Harness,
    admin: &Admin,
    token_sha256: [u8; 32],
    valid_for: Duration,
) -> Invitation {
    let mut client = harness.client().await;
    let txn = client.transaction().await.unwrap();
    let new = NewInvitation {
        tenant: admin.tenant,
        admin: admin.id,
        token_sha256,
        valid_for,
    };
    let made = invitation_put_in_txn(&txn, &new, &harness.change())
        .await
        .unwrap();
    txn.commit().await.unwrap();
    made
}

async fn accepted(harness: &Harness, token_sha256: [u8; 32]) -> bool {
    let mut client = harness.client().await;
    let txn = client.transaction().await.unwrap();
    let accepted = invitation_accept_in_txn(&txn, &token_sha256, &harness.change()).await;
    txn.commit().await.unwrap();
    accepted.unwrap()
}

#[tokio::test]
async fn an_admin_has_one_invitation_that_can_be_used_once_and_for_a_while() {
    let harness = Harness::new().await;
    let tenant = harness.tenant("one").await;
    let new = NewAdmin {
        password_hash: None,
        ..admin(tenant.id, "ada@example.org")
    };
    let ada = insert(&harness, &new).await.unwrap();
    assert!(ada.password_hash.is_none());
    let week = Duration::from_secs(604_800);
    let first = invited(&harness, &ada, [1; 32], week).await;
    assert!(!first.expired && first.accepted_at.is_none());
    assert_eq!((first.tenant, first.admin), (tenant.id, ada.id));

    // A newer one takes its place.
    invited(&harness, &ada, [2; 32], week).await;
    let client = harness.client().await;
    assert!(invitation_by_digest(&client, &[1; 32]).await.unwrap().is_none());
    assert_eq!(invitations_of(&client, tenant.id).await.unwrap().len(), 1);
    assert!(!accepted(&harness, [1; 32]).await);
    assert!(accepted(&harness, [2; 32]).await);
    assert!(!accepted(&harness, [2; 32]).await, "used is used");
    let used = invitation_by_digest(&client, &[2; 32]).await.unwrap().unwrap();
    assert!(used.accepted_at.is_some());

    // Its time is the registry's.
    let over = invited(&harness, &ada, [3; 32], Duration::ZERO).await;
    assert!(over.expired && over.accepted_at.is_none());
    assert!(!accepted(&harness, [3; 32]).await);

    let mut nobody = ada.clone();
    nobody.id = StaffId::generate();
    let mut other = harness.client().await;
    let txn = other.transaction().await.unwrap();
    let unknown = NewInvitation {
        tenant: tenant.id,
        admin: nobody.id,
        token_sha256: [4; 32],
        valid_for: week,
    };
    let error = invitation_put_in_txn(&txn, &unknown, &harness.change())
        .await
        .unwrap_err();
    assert!(matches!(error, RegistryError::NotFound { .. }), "{error:?}");
    drop(txn);

    let filter = AuditFilter {
        tenant: Some(tenant.id),
        ..AuditFilter::default()
    };
    let lines = audit_list(&client, &filter, None, 50).await.unwrap();
    let actions: Vec<&str> = (lines.iter().rev().map(|line| line.action.as_str()))
        .filter(|action| action.contains("invit"))
        .collect();
    assert_eq!(
        actions,
        [
            "admin.invited",
            "admin.invited",
            "invitation.accepted",
            "admin.invited"
        ]
    );
}

#[tokio::test]
async fn an_invitation_ends_with_the_address_that_it_was_sent_to_and_with_the_right_to_log_in() {
    let harness = Harness::new().await;
    let tenant = harness.tenant("one").await;
    let ada = insert(&harness, &admin(tenant.id, "ada@example.org"))
        .await
        .unwrap();
    let week = Duration::from_secs(604_800);
    let change = async |patch: AdminPatch| {
        let mut client = harness.client().await;
        let txn = client.transaction().await.unwrap();
        let changed = admin_change_in_txn(&txn, tenant.id, ada.id, &patch, &harness.change()).await;
        changed.unwrap().unwrap();
        txn.commit().await.unwrap();
    };
    let email = |text: &str| AdminPatch {
        email: Some(Email::parse(text).unwrap()),
        ..AdminPatch::default()
    };
    let active = |active: bool| AdminPatch {
        active: Some(active),
        ..AdminPatch::default()
    };
    let name = AdminPatch {
        display_name: Some("Ada L.".to_owned()),
        ..AdminPatch::default()
    };
    invited(&harness, &ada, [1; 32], week).await;
    // It is the same mailbox, and the same person.
    for stays in [name, email("Ada@Example.org"), active(true)] {
        change(stays).await;
    }
    assert!(accepted(&harness, [1; 32]).await);
    invited(&harness, &ada, [2; 32], week).await;
    change(email("ada@elsewhere.example")).await;
    assert!(
        !accepted(&harness, [2; 32]).await,
        "the link lies in another's mailbox"
    );
    invited(&harness, &ada, [3; 32], week).await;
    change(active(false)).await;
    change(active(true)).await;
    assert!(
        !accepted(&harness, [3; 32]).await,
        "nobody has invited them since they were let in again"
    );

    // The same when an archive's administrators come back: the one that stands there with another address was
    // not invited.
    let put_back = async |then: &Admin| {
        let mut client = harness.client().await;
        let txn = client.transaction().await.unwrap();
        admins_put_back_in_txn(&txn, tenant.id, std::slice::from_ref(then))
            .await
            .unwrap();
        txn.commit().await.unwrap();
    };
    let client = harness.client().await;
    let now = admins_of(&client, tenant.id).await.unwrap().remove(0);
    invited(&harness, &ada, [4; 32], week).await;
    put_back(&now).await;
    assert!(
        accepted(&harness, [4; 32]).await,
        "nothing about them has changed"
    );
    invited(&harness, &ada, [5; 32], week).await;
    put_back(&ada).await;
    assert!(
        !accepted(&harness, [5; 32]).await,
        "they had another address then"
    );
    let disabled = Admin {
        disabled_at: Some(now.created_at),
        ..ada.clone()
    };
    invited(&harness, &ada, [6; 32], week).await;
    put_back(&disabled).await;
    assert!(!accepted(&harness, [6; 32]).await, "they could not log in then");
}

#[tokio::test]
async fn an_invitation_that_is_taken_back_is_audited_once() {
    let harness = Harness::new().await;
    let tenant = harness.tenant("one").await;
    let ada = insert(&harness, &admin(tenant.id, "ada@example.org"))
        .await
        .unwrap();
    invited(&harness, &ada, [1; 32], Duration::from_secs(604_800)).await;
    let mut client = harness.client().await;
    for there_was_one in [true, false] {
        let txn = client.transaction().await.unwrap();
        let revoked = invitation_revoke_in_txn(&txn, tenant.id, ada.id, &harness.change()).await;
        txn.commit().await.unwrap();
        assert_eq!(revoked.unwrap(), there_was_one);
    }
    assert!(!accepted(&harness, [1; 32]).await);
    let filter = AuditFilter {
        tenant: Some(tenant.id),
        ..AuditFilter::default()
    };
    let lines = audit_list(&client, &filter, None, 50).await.unwrap();
    let revoked = lines.iter().filter(|line| line.action == "invitation.revoked");
    assert_eq!(revoked.count(), 1);
}
