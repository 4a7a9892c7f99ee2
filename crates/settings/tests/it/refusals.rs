use settings::{Accept, KEYS};

use crate::load;

fn refusal(toml: &str, env: &[(&str, &str)]) -> String {
    load(toml, env).expect_err("it should be refused").to_string()
}

#[test]
fn a_wrong_value_is_refused_with_key_source_and_what_is_accepted() {
    for (name, value, key, accepted) in [
        ("MASTER_PGPORT", "0", "registry.port", "1 to 65535"),
        ("MASTER_PGPORT", "54a", "registry.port", "1 to 65535"),
        (
            "TENANTRY_ROUTER_POOLS_MAX",
            "10001",
            "router.pools_max",
            "1 to 10000",
        ),
        (
            "TENANTRY_ROUTER_CHECKOUT_TIMEOUT_MS",
            "-5",
            "router.checkout_timeout_ms",
            "10 to 600000",
        ),
        ("TENANTRY_LOG_FORMAT", "xml", "log.format", "text or json"),
        (
            "TENANTRY_LOG_FILTER",
            "a=b=c",
            "log.filter",
            "warn,resolver=debug",
        ),
        (
            "TENANTRY_HTTP_LISTEN",
            "localhost",
            "http.listen",
            "127.0.0.1:8080",
        ),
        (
            "TENANTRY_NAMES_NAMESPACE",
            "Lab",
            "names.namespace",
            "1 to 12 lower-case",
        ),
        (
            "TENANTRY_HTTP_TRUSTED_PROXIES",
            "10.0.0.0/8, proxy.example",
            "http.trusted_proxies",
            "192.0.2.7",
        ),
        (
            "TENANTRY_HTTP_TRUSTED_PROXIES",
            "0.0.0.0/0",
            "http.trusted_proxies",
            "not the whole internet",
        ),
        (
            "TENANTRY_HTTP_PUBLIC_URL",
            "lab.example",
            "http.public_url",
            "https://lab.example",
        ),
        (
            "TENANTRY_HTTP_PUBLIC_URL",
            "https://lab.example/?tenant=acme",
            "http.public_url",
            "without query",
        ),
        (
            "TENANTRY_HTTP_PUBLIC_URL",
            "https://ada@lab.example",
            "http.public_url",
            "without query",
        ),
        (
            "TENANTRY_AUTH_INVITATION_TTL_S",
            "299",
            "auth.invitation_ttl_s",
            "300 to 2592000",
        ),
        ("DEFAULT_TENANT_ID", "acme", "default_tenant.id", "UUID"),
        (
            "SINGLE_TENANT_SLUG",
            "Acme Lab",
            "default_tenant.slug",
            "acme-lab",
        ),
    ] {
        let message = refusal("", &[(name, value)]);
        for part in [key, value, &format!("variable {name}"), accepted] {
            assert!(message.contains(part), "{part:?} is missing in: {message}");
        }
    }
    let message = refusal("[router]\npools_max = 'many'\n", &[]);
    for part in ["router.pools_max", "many", "t.toml", "1 to 10000"] {
        assert!(message.contains(part), "{part:?} is missing in: {message}");
    }
}

#[test]
fn unknown_keys_and_variables_are_refused_with_the_nearest_known_name() {
    let message = refusal("[router]\npool_max = 5\n", &[]);
    assert!(
        message.contains("router.pool_max (file") && message.contains("router.pools_max?"),
        "{message}"
    );
    let message = refusal("[roter]\n[a]\nb = 1\n", &[]);
    assert!(
        message.contains("roter (file") && message.contains("a.b (file"),
        "{message}"
    );
    let message = refusal("router = 5\n", &[]);
    assert!(message.contains("router (file"), "{message}");
    for (name, nearest) in [
        ("TENANTRY_ROUTER_POOL_MAX", "TENANTRY_ROUTER_POOLS_MAX"),
        ("MASTER_PGHOSTS", "MASTER_PGHOST"),
        ("MASTER_PGSSLMODE", "environment"),
    ] {
        let message = refusal("", &[(name, "1")]);
        assert!(message.contains(name) && message.contains(nearest), "{message}");
    }
}

#[test]
fn variables_of_tests_and_of_others_are_left_alone() {
    let env = [
        ("TENANTRY_TEST_PGHOST", "x"),
        ("TENANTRY_FAULT_POINT", "x"),
        ("TENANTRY_ADMIN_PASSWORD", "x"),
        ("PGHOST", "x"),
        ("LANG", "x"),
    ];
    assert!(load("", &env).unwrap().uses_embedded());
}

#[test]
fn all_problems_are_told_at_once_and_a_secret_is_not_repeated() {
    let toml = "[registry]\npassword = 12345678\nport = 70000\n[log]\nformat = true\n";
    let message = refusal(toml, &[("TENANTRY_NOPE", "1")]);
    for part in [
        "registry.password = ***",
        "registry.port = 70000",
        "log.format = true",
        "TENANTRY_NOPE",
    ] {
        assert!(message.contains(part), "{part:?} is missing in: {message}");
    }
    assert!(!message.contains("12345678"), "{message}");
}

#[test]
fn a_file_that_is_not_toml_is_refused_with_the_place() {
    let message = refusal("[router\n", &[]);
    assert!(
        message.contains("t.toml") && message.contains("line 1"),
        "{message}"
    );
}

#[test]
fn both_ends_of_every_range_are_accepted_and_reach_the_struct() {
    for key in KEYS {
        let Accept::Number { min, max } = key.accept else {
            continue;
        };
        for edge in [min, max] {
            let settings = load("", &[(key.env, &edge.to_string())]).unwrap();
            // Every number fits the type that it is read into; one that did not would come back as another.
            let debug = format!("{settings:?}");
            let field = key.name.split_once('.').unwrap().1;
            assert!(
                debug.contains(&format!("{field}: {edge}"))
                    || debug.contains(&format!("{field}: Some({edge})")),
                "{} = {edge}: {debug}",
                key.name
            );
        }
        for beyond in [min - 1, max + 1] {
            assert!(
                load("", &[(key.env, &beyond.to_string())]).is_err(),
                "{} = {beyond}",
                key.name
            );
        }
    }
}
