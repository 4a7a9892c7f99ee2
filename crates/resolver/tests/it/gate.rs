//! Which callers get a connection, and to which database.

use identity::SealContext;
use model::{SchemaVersion, TenantEvent, TenantId, TenantState};
use resolver::ResolveError;

use crate::harness::{Harness, new_sealer, note};

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn each_refusal_has_its_own_name_and_its_figures() {
    let harness = Harness::new().await;
    let resolver = harness.resolver(harness.config()).await;

    let nobody = TenantId::generate();
    let error = resolver.checkout(nobody).await.unwrap_err();
    assert!(
        matches!(error, ResolveError::UnknownTenant { tenant } if tenant == nobody),
        "{error}"
    );

    let unmade = harness.tenant_row("unmade").await;
    let error = resolver.checkout(unmade).await.unwrap_err();
    let state = TenantState::Provisioning;
    assert!(
        matches!(error, ResolveError::NotServing { state: s, .. } if s == state),
        "{error}"
    );

    // Version 0 although active, as a hand-made row can be.
    harness.transition(unmade, TenantEvent::Provisioned).await;
    let resolver = harness.resolver(harness.config()).await;
    let error = resolver.checkout(unmade).await.unwrap_err();
    let (have, need) = (SchemaVersion::new(0), SchemaVersion::new(2));
    assert!(
        matches!(error, ResolveError::Behind { have: h, need: n, .. } if (h, n) == (have, need)),
        "{error}"
    );

    harness.set_version(unmade, 9).await;
    let resolver = harness.resolver(harness.config()).await;
    let error = resolver.checkout(unmade).await.unwrap_err();
    let (have, newest) = (SchemaVersion::new(9), SchemaVersion::new(3));
    assert!(
        matches!(error, ResolveError::Ahead { have: h, newest: n, .. } if (h, n) == (have, newest)),
        "{error}"
    );
    assert!(
        error.to_string().contains("version 9") && error.to_string().contains("past 3"),
        "{error}"
    );

    // Refused tenants have a snapshot all the same: health checks and operators ask for it.
    assert_eq!(resolver.snapshot(unmade).await.unwrap().db_version, have);
    assert_eq!(resolver.stats().pools_open, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_laboratory_without_a_password_or_with_a_foreign_seal_is_refused_without_a_word_of_it() {
    let harness = Harness::new().await;
    let bare = harness.tenant_row("bare").await;
    harness.set_version(bare, 2).await;
    harness.transition(bare, TenantEvent::Provisioned).await;
    let resolver = harness.resolver(harness.config()).await;
    let error = resolver.checkout(bare).await.unwrap_err();
    assert!(matches!(error, ResolveError::Incomplete { .. }), "{error}");

    let sealed = new_sealer().seal(&SealContext::TenantRole(bare), &"hunter2-hunter2".into());
    harness.set_secret(bare, &sealed).await;
    let resolver = harness.resolver(harness.config()).await;
    let error = resolver.checkout(bare).await.unwrap_err();
    assert!(matches!(error, ResolveError::Unseal { .. }), "{error}");
    assert!(!format!("{error} {error:?}").contains("hunter2"));

    // Sealed with the right key for another tenant: a row copied over another does not open.
    let sealed = harness.sealer.seal(
        &SealContext::TenantRole(TenantId::generate()),
        &"hunter2-hunter2".into(),
    );
    harness.set_secret(bare, &sealed).await;
    let resolver = harness.resolver(harness.config()).await;
    let error = resolver.checkout(bare).await.unwrap_err();
    assert!(matches!(error, ResolveError::Unseal { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn each_laboratory_reads_its_own_database_and_cannot_enter_another() {
    let harness = Harness::new().await;
    let (alpha, beta) = (harness.tenant("alpha").await, harness.tenant("beta").await);
    let resolver = harness.resolver(harness.config()).await;
    for _ in 0..3 {
        let mut a = resolver.checkout(alpha).await.unwrap();
        let mut b = resolver.checkout(beta).await.unwrap();
        assert_eq!((a.tenant(), b.tenant()), (alpha, beta));
        assert_eq!(
            (note(&mut a).await, note(&mut b).await),
            ("alpha".to_owned(), "beta".to_owned())
        );
    }

    // If a row of the registry points alpha's role to beta's database, the server itself refuses it.
    let beta_database = harness.row(beta).await.db_name;
    let client = harness.registry.client().await.unwrap();
    let swap = "UPDATE tenants SET db_name = $2 WHERE id = $1";
    let free = "UPDATE tenants SET db_name = 'elsewhere' WHERE id = $1";
    client.execute(free, &[&beta.as_uuid()]).await.unwrap();
    client
        .execute(swap, &[&alpha.as_uuid(), &beta_database.as_str()])
        .await
        .unwrap();
    let resolver = harness.resolver(harness.config()).await;
    let error = resolver.checkout(alpha).await.unwrap_err();
    assert!(matches!(error, ResolveError::LoginRefused { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_read_only_transaction_refuses_writes_and_the_limits_are_set_on_the_server() {
    let harness = Harness::new().await;
    let alpha = harness.tenant("alpha").await;
    let resolver = harness.resolver(harness.config()).await;
    let mut client = resolver.checkout(alpha).await.unwrap();
    let transaction = client.read_only_transaction().await.unwrap();
    let refused = transaction
        .execute("INSERT INTO notes VALUES ('x')", &[])
        .await
        .unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "25006");
    transaction.rollback().await.unwrap();

    let transaction = client.transaction().await.unwrap();
    let limits =
        "SELECT current_setting('statement_timeout'), current_setting('idle_in_transaction_session_timeout'),
                  current_setting('application_name')";
    let row = transaction.query_one(limits, &[]).await.unwrap();
    let limits: (String, String, String) = (row.get(0), row.get(1), row.get(2));
    assert_eq!((limits.0.as_str(), limits.1.as_str()), ("30s", "30s"));
    assert!(limits.2.starts_with("tenantry pid-"), "{}", limits.2);
    transaction.commit().await.unwrap();
    client.ping().await.unwrap();
}

/// PostgreSQL reports "too many connections" of a role, of a database and of the server with the same code.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_role_or_database_at_its_own_limit_holds_up_no_other_laboratory() {
    let harness = Harness::new().await;
    let (alpha, beta) = (harness.tenant("alpha").await, harness.tenant("beta").await);
    let row = harness.row(alpha).await;
    let admin = harness.admin("postgres").await;
    for (limited, free) in [
        (
            format!("ALTER ROLE {} CONNECTION LIMIT 0", row.role_name),
            format!("ALTER ROLE {} CONNECTION LIMIT -1", row.role_name),
        ),
        (
            format!("ALTER DATABASE {} CONNECTION LIMIT 0", row.db_name),
            format!("ALTER DATABASE {} CONNECTION LIMIT -1", row.db_name),
        ),
    ] {
        admin.batch_execute(&limited).await.unwrap();
        let resolver = harness.resolver(harness.config()).await;
        let error = resolver.checkout(alpha).await.unwrap_err();
        assert!(matches!(error, ResolveError::LoginRefused { .. }), "{error}");
        let refused = resolver
            .stats()
            .servers
            .iter()
            .map(|server| server.connects_refused_total)
            .sum::<u64>();
        assert_eq!(refused, 0, "the server itself is not full");
        resolver.checkout(beta).await.unwrap();
        admin.batch_execute(&free).await.unwrap();
    }
}
