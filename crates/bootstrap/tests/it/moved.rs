//! The tenant server's address changed in the configuration while laboratories live on it.

use std::net::TcpListener;

use bootstrap::{Platform, PlatformError, Prepared};
use embedded::{Cluster, ThrowawayOptions};
use model::{Email, Slug};
use pg::ConnectTarget;
use provisioner::{NewAdmin, NewLab, RequestedBy};
use secrecy::ExposeSecret as _;
use settings::Settings;
use testkit::Space;

/// The space's registry, and this tenant server.
fn settings(space: &Space, server: &ConnectTarget) -> Settings {
    let registry = &space.registry;
    let env = [
        ("MASTER_PGHOST", registry.host.clone()),
        ("MASTER_PGPORT", registry.port.to_string()),
        ("MASTER_PGUSER", registry.user.clone()),
        ("MASTER_PGPASSWORD", registry.password.expose_secret().to_owned()),
        ("MASTER_PGDATABASE", registry.database.clone()),
        ("TENANT_PGHOST", server.host.clone()),
        ("TENANT_PGPORT", server.port.to_string()),
        ("TENANT_PGUSER", server.user.clone()),
        ("TENANT_PGPASSWORD", server.password.expose_secret().to_owned()),
        ("TENANTRY_NAMES_NAMESPACE", space.namespace.as_str().to_owned()),
        (
            "TENANTRY_STATE_DIR",
            space.dir().join("state").display().to_string(),
        ),
    ];
    Settings::load(None, env.map(|(name, value)| (name.to_owned(), value))).unwrap()
}

/// What `tenantctl up` does with this tenant server: its row changed or not, or why not.
async fn prepare(space: &Space, server: &ConnectTarget) -> Result<bool, PlatformError> {
    let platform = Platform::open(&settings(space, server)).await?;
    let mut row_changed = false;
    platform
        .prepare(|step| {
            if let Prepared::Server { changed, .. } = step {
                row_changed = changed;
            }
        })
        .await?;
    Ok(row_changed)
}

async fn provision(space: &Space) {
    let platform = Platform::open(&settings(space, &space.server)).await.unwrap();
    let lab = NewLab {
        slug: Slug::parse("acme-lab").unwrap(),
        name: "Acme".to_owned(),
        time_zone: "UTC".to_owned(),
        server: None,
        admin: NewAdmin {
            email: Email::parse("ada@example.org").unwrap(),
            display_name: "Ada".to_owned(),
            password_hash: Some("not a hash".to_owned().into()),
        },
    };
    let by = RequestedBy::terminal("ada".to_owned());
    let (_, operation) = platform.provisioner.request_provision(lab, by).await.unwrap();
    platform.provisioner.run(operation, |_| ()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn laboratories_are_not_sent_to_a_server_that_has_none_of_them() {
    let space = Space::new().await;
    let other = Cluster::start_throwaway(ThrowawayOptions::default())
        .await
        .unwrap();
    // Nobody lives there yet: any address will do.
    assert!(prepare(&space, other.target()).await.unwrap());
    assert!(prepare(&space, &space.server).await.unwrap());
    provision(&space).await;

    let error = prepare(&space, other.target()).await.unwrap_err();
    assert!(matches!(error, PlatformError::Moved { .. }), "{error}");
    let message = error.to_string();
    for part in [
        "acme-lab",
        "TENANT_PGHOST",
        &format!("{}:{}", space.server.host, space.server.port),
        &format!("{}:{}", other.target().host, other.target().port),
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    // A server that does not answer proves nothing either.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = ConnectTarget {
        port: nobody.port(),
        ..space.server.clone()
    };
    let error = prepare(&space, &silent).await.unwrap_err();
    assert!(matches!(error, PlatformError::Unreachable(_)), "{error}");

    // Nothing was changed by the refusals, and the same server under another name is the same server.
    assert!(!prepare(&space, &space.server).await.unwrap());
    let alias = match space.server.host.as_str() {
        "localhost" => "127.0.0.1",
        _ => "localhost",
    };
    let alias = ConnectTarget {
        host: alias.to_owned(),
        ..space.server.clone()
    };
    assert!(prepare(&space, &alias).await.unwrap());
    other.stop().await.unwrap();
}
