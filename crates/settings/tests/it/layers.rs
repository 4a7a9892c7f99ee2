use secrecy::ExposeSecret as _;
use settings::{DefaultTenantHint, LogFormat, Settings};

use crate::{load, variables, write};

fn source(settings: &Settings, key: &str) -> String {
    settings
        .explain()
        .into_iter()
        .find(|one| one.key == key)
        .unwrap()
        .source
}

#[test]
fn without_anything_the_embedded_server_is_used_with_the_defaults() {
    let settings = load("", &[]).unwrap();
    assert!(settings.uses_embedded());
    assert_eq!(settings.registry.database, "tenantry");
    assert_eq!(settings.http.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(settings.router.pools_max, 200);
    assert_eq!(settings.log.format, LogFormat::Text);
    assert_eq!(settings.names.namespace.as_str(), "lab");
    assert_eq!(settings.default_tenant.hint, None);
    assert_eq!(
        settings.paths.archive_dir,
        settings.paths.state_dir.join("archives")
    );
}

#[test]
fn the_file_wins_over_the_defaults_and_the_environment_over_the_file() {
    let toml = "[router]\npools_max = 50\npool_size_max = 2\n[log]\nformat = 'json'\n";
    let settings = load(toml, &[("TENANTRY_ROUTER_POOLS_MAX", "60")]).unwrap();
    assert_eq!(
        (settings.router.pools_max, settings.router.pool_size_max),
        (60, 2)
    );
    assert_eq!(settings.log.format, LogFormat::Json);
    assert_eq!(
        source(&settings, "router.pools_max"),
        "variable TENANTRY_ROUTER_POOLS_MAX"
    );
    assert!(source(&settings, "router.pool_size_max").starts_with("file "));
    assert_eq!(source(&settings, "router.checkout_timeout_ms"), "default");
}

#[test]
fn the_budgets_of_the_router_arrive_where_they_belong() {
    let budgets = |settings: &Settings| {
        let router = &settings.router;
        (
            (
                router.pool_size_max,
                router.budget,
                router.reserve,
                router.connects_max,
            ),
            (router.tenure_ms, router.statements_max, router.ttl_s),
        )
    };
    assert_eq!(budgets(&load("", &[]).unwrap()), ((8, 64, 16, 4), (50, 256, 10)));
    let toml = "[router]\npool_size_max = 1\nbudget = 2\nreserve = 3\nconnects_max = 4\ntenure_ms = 5\n\
                statements_max = 6\nttl_s = 7\n";
    assert_eq!(budgets(&load(toml, &[]).unwrap()), ((1, 2, 3, 4), (5, 6, 7)));
}

#[test]
fn any_connection_key_of_the_registry_means_a_server_that_somebody_else_runs() {
    for (name, value) in [
        ("MASTER_PGHOST", "db.example"),
        ("MASTER_PGPORT", "5433"),
        ("MASTER_PGUSER", "tenantry"),
        ("MASTER_PGPASSWORD", "secret"),
        ("MASTER_PGDATABASE", "registry"),
    ] {
        assert!(!load("", &[(name, value)]).unwrap().uses_embedded(), "{name}");
        assert!(
            load("", &[(name, "")]).unwrap().uses_embedded(),
            "an empty {name} is as good as unset"
        );
    }
    let server = load("[registry]\nhost = 'h'\n", &[])
        .unwrap()
        .registry
        .server
        .unwrap();
    assert_eq!(
        (server.host.as_str(), server.port, server.user.as_str()),
        ("h", 5432, "postgres")
    );
    assert_eq!(server.password.expose_secret(), "");
}

#[test]
fn the_default_laboratory_is_the_first_hint_that_is_set() {
    let id = "0190a5b0-0000-7000-8000-000000000001";
    let all = [
        ("DEFAULT_TENANT_ID", id),
        ("SINGLE_TENANT_SLUG", "acme-lab"),
        ("DEFAULT_TENANT_DB", "lab_tenant_b"),
        ("PGDATABASE", "lab_tenant_c"),
    ];
    let hint = |from: usize| load("", &all[from..]).unwrap().default_tenant;
    assert_eq!(hint(0).hint, Some(DefaultTenantHint::Id(id.parse().unwrap())));
    assert_eq!(
        hint(1).hint,
        Some(DefaultTenantHint::Slug("acme-lab".parse().unwrap()))
    );
    assert!(
        matches!(hint(2).hint, Some(DefaultTenantHint::Database(name)) if name.as_str() == "lab_tenant_b")
    );
    assert!(
        matches!(hint(3).hint, Some(DefaultTenantHint::Database(name)) if name.as_str() == "lab_tenant_c")
    );
    assert_eq!(hint(3).source.as_deref(), Some("variable PGDATABASE"));
}

#[test]
fn a_relative_directory_becomes_an_absolute_one() {
    let settings = load("[paths]\nstate_dir = 'here'\n", &[]).unwrap();
    assert!(settings.paths.state_dir.is_absolute());
    assert!(settings.paths.keys_dir().ends_with("here/keys"));
    assert!(settings.paths.archive_dir.ends_with("here/archives"));
}

#[test]
fn the_file_can_be_named_by_a_variable_and_the_flag_goes_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = write(&dir, "[router]\npools_max = 7\n");
    let env = variables(&[("TENANTRY_CONFIG", file.to_str().unwrap())]);
    let settings = Settings::load(None, env.clone()).unwrap();
    assert_eq!(
        (settings.router.pools_max, settings.file.as_deref()),
        (7, Some(file.as_path()))
    );
    let missing = dir.path().join("missing.toml");
    let message = Settings::load(Some(&missing), env).unwrap_err().to_string();
    assert!(
        message.contains("missing.toml") && message.contains("--config"),
        "{message}"
    );
}

#[test]
fn a_secret_is_shown_nowhere() {
    let toml = "[tenant_server]\npassword = 'deeply-hidden'\n";
    let settings = load(toml, &[("MASTER_PGPASSWORD", "well-hidden")]).unwrap();
    let shown = format!("{settings:?} {:?}", settings.explain());
    assert!(!shown.contains("hidden"), "{shown}");
    let explained = settings.explain();
    let password = explained
        .iter()
        .find(|one| one.key == "registry.password")
        .unwrap();
    assert_eq!(password.value.as_deref(), Some("***"));
    assert_eq!(password.source, "variable MASTER_PGPASSWORD");
}
