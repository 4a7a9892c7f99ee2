//! The words that the database accepts are exactly the words of the model.

use std::collections::BTreeSet;

use model::{OperationKind, OperationStatus, Step, StepStatus, TenantState, UndoReason};

use crate::harness::Harness;

/// The words in the CHECKs of a column, as the database itself prints them.
async fn accepted(harness: &Harness, table: &str, column: &str) -> BTreeSet<String> {
    let client = harness.client().await;
    let rows = client
        .query(
            "SELECT word[1] FROM pg_constraint c
             JOIN pg_attribute a ON a.attrelid = c.conrelid AND c.conkey = ARRAY[a.attnum],
             regexp_matches(pg_get_constraintdef(c.oid), '''([a-z_]+)''', 'g') AS word
             WHERE c.contype = 'c' AND c.conrelid = $1::text::regclass AND a.attname = $2",
            &[&table, &column],
        )
        .await
        .unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

fn words<T: ToString>(all: &[T]) -> BTreeSet<String> {
    all.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn the_database_accepts_the_models_words_and_no_others() {
    let harness = Harness::new().await;
    assert_eq!(
        accepted(&harness, "tenants", "status").await,
        words(TenantState::ALL)
    );
    assert_eq!(
        accepted(&harness, "operations", "kind").await,
        words(OperationKind::ALL)
    );
    assert_eq!(
        accepted(&harness, "operations", "undo_reason").await,
        words(UndoReason::ALL)
    );
    assert_eq!(
        accepted(&harness, "operation_steps", "step").await,
        words(Step::ALL)
    );
    assert_eq!(
        accepted(&harness, "operation_steps", "status").await,
        words(StepStatus::ALL)
    );
}

/// The status has further rules beside its words, so all of them are written instead.
#[tokio::test]
async fn every_word_can_be_stored() {
    let harness = Harness::new().await;
    let client = harness.client().await;
    let tenant = harness.tenant("acme").await;
    for &state in TenantState::ALL {
        let before = state.remembers().then_some("active");
        let statement = "UPDATE tenants SET status = $2, status_before = $3 WHERE id = $1";
        client
            .execute(statement, &[&tenant.id.as_uuid(), &state.as_str(), &before])
            .await
            .unwrap();
    }
    for &kind in OperationKind::ALL {
        for &status in OperationStatus::ALL {
            let statement =
                "INSERT INTO operations (id, kind, tenant_id, tenant_slug, status, created_by, finished_at)
                 VALUES (gen_random_uuid(), $1, gen_random_uuid(), 'acme', $2, 'anonymous',
                     CASE WHEN $3 THEN now() END)";
            client
                .execute(statement, &[&kind.as_str(), &status.as_str(), &status.is_final()])
                .await
                .unwrap();
        }
    }
    let unknown = "UPDATE operations SET status = 'paused'";
    assert!(client.batch_execute(unknown).await.is_err());
}
