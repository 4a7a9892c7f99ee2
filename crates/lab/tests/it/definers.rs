//! What runs with its owner's rights runs nothing of anybody else's.

use crate::support::{Lab, adult, released, value};

/// The server prefers a function that takes the very types of a call, wherever it stands in the path: these
/// fit the calls of the guards better than the server's own.
#[tokio::test]
async fn a_function_that_fits_a_guards_call_better_is_not_run() {
    let lab = Lab::new().await;
    let owner = lab.owner().await;
    let takes_over = |name: &str, arguments: &str, returns: &str| {
        format!(
            "CREATE FUNCTION public.{name}({arguments}) RETURNS {returns} LANGUAGE plpgsql AS $$ BEGIN
               RAISE EXCEPTION '{name} was run as %', current_user; END $$;
             GRANT EXECUTE ON FUNCTION public.{name}({arguments}) TO PUBLIC;"
        )
    };
    owner
        .batch_execute(&takes_over("hashtextextended", "text, int", "bigint"))
        .await
        .unwrap();
    owner
        .batch_execute(&takes_over("num_nonnulls", "numeric, text", "int"))
        .await
        .unwrap();

    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patient = adult(&txn, &lab).await;
    released(&txn, &lab, &patient, "K", &value("4.0", "mmol/L")).await;
    txn.commit().await.unwrap();
}

#[tokio::test]
async fn whatever_runs_with_its_owners_rights_finds_only_the_servers_own_names() {
    let lab = Lab::new().await;
    let rows = lab
        .owner()
        .await
        .query(
            "SELECT p.oid::regprocedure::text, coalesce(p.proconfig, '{}') FROM pg_proc p
              WHERE p.prosecdef AND p.pronamespace = 'public'::regnamespace ORDER BY 1",
            &[],
        )
        .await
        .unwrap();
    let found: Vec<(String, Vec<String>)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let path = vec!["search_path=pg_catalog, pg_temp".to_owned()];
    assert_eq!(
        found,
        [
            ("result_amendment_guard()".to_owned(), path.clone()),
            ("result_guard()".to_owned(), path.clone()),
            ("result_publish()".to_owned(), path.clone()),
            ("specimen_guard()".to_owned(), path)
        ]
    );
}
