use crate::ctl::Ctl;

#[test]
fn config_show_names_every_source_and_redacts_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("my.toml");
    std::fs::write(
        &file,
        "[router]\npools_max = 50\n[tenant_server]\npassword = 'in-the-file'\n",
    )
    .unwrap();
    let ctl = Ctl::bare(dir.path())
        .with("MASTER_PGHOST", "db.example")
        .with("MASTER_PGPASSWORD", "in-the-variable");
    let said = ctl
        .run(&["config", "show", "--config", file.to_str().unwrap()])
        .expect(0);
    let line = |key: &str| {
        let found = said
            .stdout
            .lines()
            .find(|line| line.starts_with(&format!("{key} ")));
        found.unwrap_or_else(|| panic!("{key}: {said:?}")).to_owned()
    };
    assert!(line("router.pools_max").contains("50") && line("router.pools_max").contains("my.toml"));
    assert!(line("registry.host").contains("variable MASTER_PGHOST"));
    assert!(line("http.listen").contains("default") && line("http.listen").contains("TENANTRY_HTTP_LISTEN"));
    assert!(line("registry.password").contains("***") && line("tenant_server.password").contains("***"));
    assert!(!said.stdout.contains("in-the-"), "{said:?}");

    let document = ctl.json(0, &["config", "show", "--config", file.to_str().unwrap()]);
    assert!(!document.to_string().contains("in-the-"));
    let settings = document["settings"].as_array().unwrap();
    let host = settings.iter().find(|one| one["key"] == "registry.host").unwrap();
    assert_eq!(
        (host["value"].as_str(), host["env"].as_str()),
        (Some("db.example"), Some("MASTER_PGHOST"))
    );
}

#[test]
fn a_wrong_configuration_is_refused_by_name_with_exit_code_2() {
    let dir = tempfile::tempdir().unwrap();
    let ctl = Ctl::bare(dir.path())
        .with("TENANTRY_ROUTER_POOL_MAX", "5")
        .with("TENANTRY_LOG_FORMAT", "xml");
    for command in ["config show", "list", "up --no-serve"] {
        let args: Vec<&str> = command.split(' ').collect();
        let said = ctl.run(&args).expect(2);
        for part in [
            "TENANTRY_ROUTER_POOL_MAX",
            "TENANTRY_ROUTER_POOLS_MAX",
            "log.format",
            "text or json",
        ] {
            assert!(said.stderr.contains(part), "{part}: {said:?}");
        }
    }
    let said = Ctl::bare(dir.path())
        .run(&["list", "--config", "/nowhere/t.toml"])
        .expect(2);
    assert!(said.stderr.contains("/nowhere/t.toml"), "{said:?}");
}

#[test]
fn what_needs_no_server_works_without_one() {
    let dir = tempfile::tempdir().unwrap();
    let ctl = Ctl::bare(dir.path());
    for shell in ["bash", "zsh", "fish"] {
        let said = ctl.run(&["completions", shell]).expect(0);
        assert!(
            said.stdout.contains("tenantctl") && said.stdout.contains("provision"),
            "{shell}"
        );
    }
    assert!(
        ctl.json(0, &["version"])["tenantSchema"]["newest"]
            .as_u64()
            .unwrap()
            > 0
    );
    assert_eq!(
        ctl.json(0, &["config", "keys"])["keys"].as_array().unwrap().len(),
        settings::KEYS.len()
    );
    assert_eq!(
        ctl.run(&["config", "keys", "--markdown"]).expect(0).stdout,
        settings::markdown_table()
    );
    let help = ctl.run(&["--help"]).expect(0).stdout;
    for part in [
        "Exit codes:",
        "  6    the registry",
        "provision",
        "--no-color",
        "tenantctl config show",
    ] {
        assert!(help.contains(part), "{part}: {help}");
    }
}

#[test]
fn the_configuration_table_of_the_documents_is_the_generated_one() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
    let text = std::fs::read_to_string(page).unwrap();
    let (_, rest) = text
        .split_once("<!-- config:begin -->\n")
        .expect("docs/configuration.md has the begin marker");
    let (table, _) = rest
        .split_once("<!-- config:end -->")
        .expect("docs/configuration.md has the end marker");
    assert!(
        table.trim() == settings::markdown_table().trim(),
        "the table in docs/configuration.md is not the code's; put the output of \
         `tenantctl config keys --markdown` between the markers"
    );
}
