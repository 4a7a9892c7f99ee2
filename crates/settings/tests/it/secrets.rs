//! Secrets that stand in files.

use secrecy::ExposeSecret as _;
use settings::Settings;

use crate::load;

fn password(settings: &Settings) -> String {
    let server = settings.registry.server.as_ref().unwrap();
    server.password.expose_secret().to_owned()
}

fn source(settings: &Settings) -> String {
    let all = settings.explain();
    all.into_iter()
        .find(|one| one.key == "registry.password")
        .unwrap()
        .source
}

#[test]
fn a_file_that_a_variable_names_holds_the_secret() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("password");
    for (text, expected) in [
        ("p w", "p w"),
        ("p w\n", "p w"),
        ("p w\r\n", "p w"),
        // Only the one line end that an editor adds.
        ("p w\n\n", "p w\n"),
        ("12345\n", "12345"),
    ] {
        std::fs::write(&path, text).unwrap();
        let settings = load("", &[("MASTER_PGPASSWORD_FILE", path.to_str().unwrap())]).unwrap();
        assert_eq!(password(&settings), expected, "{text:?}");
        assert_eq!(source(&settings), "variable MASTER_PGPASSWORD_FILE");
        assert!(!format!("{:?}", settings.explain()).contains("p w"));
    }
}

#[test]
fn credentials_win_over_the_file_and_the_environment_over_credentials() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("registry.password"), "of systemd\n").unwrap();
    let toml = "[registry]\npassword = 'of the file'\n";
    let credentials = ("CREDENTIALS_DIRECTORY", dir.path().to_str().unwrap());
    let settings = load(toml, &[credentials]).unwrap();
    assert_eq!(password(&settings), "of systemd");
    assert_eq!(source(&settings), "credential registry.password");
    let settings = load(toml, &[credentials, ("MASTER_PGPASSWORD", "of the environment")]).unwrap();
    assert_eq!(password(&settings), "of the environment");
}

#[test]
fn what_cannot_be_read_and_what_is_given_twice_is_refused_by_name() {
    let refusal = |env: &[(&str, &str)]| load("", env).expect_err("it should be refused").to_string();
    let missing = refusal(&[("MASTER_PGPASSWORD_FILE", "/nonexistent/secret")]);
    assert!(
        missing.contains("/nonexistent/secret") && missing.contains("MASTER_PGPASSWORD_FILE"),
        "{missing}"
    );
    let twice = refusal(&[("TENANT_PGPASSWORD", "a"), ("TENANT_PGPASSWORD_FILE", "/b")]);
    assert!(
        twice.contains("TENANT_PGPASSWORD and TENANT_PGPASSWORD_FILE are both set"),
        "{twice}"
    );
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large");
    std::fs::write(&path, vec![b'x'; 70_000]).unwrap();
    let large = refusal(&[("MASTER_PGPASSWORD_FILE", path.to_str().unwrap())]);
    assert!(large.contains("65536"), "{large}");
    // A setting that is no secret has no such variable.
    let other = refusal(&[("MASTER_PGHOST_FILE", "/etc/host")]);
    assert!(
        other.contains("MASTER_PGHOST_FILE") && other.contains("not a known name"),
        "{other}"
    );
}
