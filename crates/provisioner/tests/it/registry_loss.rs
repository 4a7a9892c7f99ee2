//! A registry that was restored from an older backup knows less than the servers and the archives do.

use identity::{SealKey, Sealer};
use provisioner::{AdminEntry, Adoption, Provisioner, ProvisionerConfig};
use registry::{Archive, Tenant};

use crate::harness::{Harness, by, connect};

/// The registry as it was before the laboratory: its rows are gone, the database and the archives are there.
async fn forget(harness: &Harness, tenant: &Tenant) {
    let client = harness.registry.client().await.unwrap();
    let sql = format!(
        "DELETE FROM archives WHERE tenant_id = '{id}'; DELETE FROM operations WHERE tenant_id = '{id}';
         DELETE FROM tenants WHERE id = '{id}'",
        id = tenant.id
    );
    client.batch_execute(&sql).await.unwrap();
}

fn adoption(tenant: &Tenant, slug: &str) -> Adoption {
    Adoption {
        database: tenant.db_name.clone(),
        slug: model::Slug::parse(slug).unwrap(),
        server: None,
        baseline: None,
        name: None,
        time_zone: None,
        admin_email: None,
        admin_name: None,
        admin_entry: AdminEntry::Invited,
    }
}

#[tokio::test]
async fn the_doctor_never_advises_removing_what_may_be_the_last_copy() {
    let harness = Harness::new().await;
    // A registry that knows none of the server's laboratories is another's: that has a finding of its own.
    harness.provisioned("known").await;
    let tenant = harness.provisioned("lost").await;
    let archive: Archive = harness.removed(&tenant).await;
    forget(&harness, &tenant).await;
    let living = harness.provisioned("living").await;
    forget(&harness, &living).await;
    let report = harness.provisioner.examine(false).await.unwrap();
    for finding in &report.findings {
        assert!(
            !finding.advice.contains("remove it") && !finding.advice.contains("DROP DATABASE"),
            "{finding:#?}"
        );
    }
    let of = |subject: &str| {
        let found = report.findings.iter().find(|finding| finding.subject == subject);
        found.unwrap_or_else(|| panic!("{subject} is not named: {:#?}", report.findings))
    };
    let file = of(&archive.location);
    let import = format!("tenantctl archives import {}", archive.location);
    assert!(
        file.advice.contains(&import) && file.seen.contains("lost"),
        "{file:#?}"
    );
    let database = of(living.db_name.as_str());
    assert!(
        database.advice.contains("tenantctl adopt --database"),
        "{database:#?}"
    );
}

#[tokio::test]
async fn a_database_with_this_registrys_own_mark_is_taken_back_under_its_id() {
    let harness = Harness::new().await;
    let tenant = harness.provisioned("forgotten").await;
    forget(&harness, &tenant).await;
    // Under its own slug only: its role has that name.
    let refused = harness
        .provisioner
        .request_adopt(adoption(&tenant, "other"), by())
        .await;
    let said = refused.unwrap_err().to_string();
    assert!(said.contains("its slug forgotten"), "{said}");
    let (found, operation) = harness
        .provisioner
        .request_adopt(adoption(&tenant, "forgotten"), by())
        .await
        .unwrap();
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    assert_eq!((found.id, &found.db_name), (tenant.id, &tenant.db_name));
    assert!(harness.serves(tenant.id).await);
    let report = harness.provisioner.examine(true).await.unwrap();
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
}

#[tokio::test]
async fn a_mark_that_is_another_namespaces_or_that_the_profile_denies_is_not_taken_for_ours() {
    let harness = Harness::new().await;
    let tenant = harness.provisioned("mine").await;
    forget(&harness, &tenant).await;
    // Another control plane's on the same server: neither its name nor a role of this namespace says that it
    // is ours.
    let admin = connect(&harness.space.server).await;
    let foreign = model::DbName::from_catalog(harness.named("elsewhere")).unwrap();
    let comment = format!("tenantry laboratory {}", model::TenantId::generate());
    for sql in [
        format!("CREATE DATABASE {foreign} TEMPLATE template0 ENCODING 'UTF8'"),
        format!("COMMENT ON DATABASE {foreign} IS '{comment}'"),
    ] {
        admin.batch_execute(&sql).await.unwrap();
    }
    let other = Adoption {
        database: foreign.clone(),
        ..adoption(&tenant, "other")
    };
    let refused = harness.provisioner.request_adopt(other, by()).await;
    admin
        .batch_execute(&format!("DROP DATABASE {foreign}"))
        .await
        .unwrap();
    let said = refused.unwrap_err().to_string();
    assert!(said.contains("marked as another's"), "{said}");
    // The ownership comment was copied to it.
    let marked = format!("COMMENT ON DATABASE {} IS '{comment}'", tenant.db_name);
    admin.batch_execute(&marked).await.unwrap();
    let refused = harness
        .provisioner
        .request_adopt(adoption(&tenant, "mine"), by())
        .await;
    let said = refused.unwrap_err().to_string();
    assert!(said.contains("its own profile"), "{said}");
}

async fn imported(harness: &Harness, location: &str) -> Archive {
    let asked = harness
        .provisioner
        .request_import(location, true, by())
        .await
        .unwrap();
    harness.provisioner.run(asked.operation, |_| {}).await.unwrap();
    let client = harness.registry.client().await.unwrap();
    let found = registry::archive_by_id(&client, asked.archive).await.unwrap();
    found.unwrap()
}

#[tokio::test]
async fn an_archive_that_the_registry_does_not_know_is_verified_recorded_and_restored() {
    let harness = Harness::new().await;
    let tenant = harness.provisioned("kept").await;
    let before = harness.backed_up(&tenant).await;
    let archive = harness.removed(&tenant).await;
    forget(&harness, &tenant).await;
    let manifest = archive.location.replace(".dump", ".manifest.json");
    // By its manifest as well as by itself.
    let back = imported(&harness, &manifest).await;
    assert_eq!(
        (
            back.id,
            back.tenant,
            &back.tenant_slug,
            &back.location,
            &back.sha256,
            back.made_for
        ),
        (
            archive.id,
            tenant.id,
            &tenant.slug,
            &archive.location,
            &archive.sha256,
            archive.made_for
        )
    );
    assert!(back.imported_at.is_some());
    let known = harness
        .provisioner
        .request_import(&archive.location, true, by())
        .await;
    let said = known.unwrap_err().to_string();
    assert!(said.contains("recorded already"), "{said}");
    // The older one comes later, and is listed by when it was dumped.
    let older = imported(&harness, &before.location).await;
    let client = harness.registry.client().await.unwrap();
    let listed = registry::archives_list(&client, Some(tenant.id), None, 10)
        .await
        .unwrap();
    assert_eq!(
        listed.iter().map(|a| a.id).collect::<Vec<_>>(),
        [back.id, older.id]
    );
    drop(client);
    let (found, operation) = harness
        .provisioner
        .request_restore(back.id, provisioner::RestoreAs::default(), by())
        .await
        .unwrap();
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    assert_eq!((found.id, &found.slug), (tenant.id, &tenant.slug));
    assert!(harness.serves(tenant.id).await);
    let report = harness.provisioner.examine(true).await.unwrap();
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
}

#[tokio::test]
async fn what_cannot_be_trusted_or_is_another_installations_is_not_imported() {
    let harness = Harness::new().await;
    let tenant = harness.provisioned("doubt").await;
    let archive = harness.removed(&tenant).await;
    forget(&harness, &tenant).await;
    let refused = async |provisioner: &Provisioner, location: &str, anywhere| {
        let asked = provisioner.request_import(location, anywhere, by()).await;
        asked.unwrap_err().to_string()
    };
    for (location, anywhere, says) in [
        (
            "/etc/hostname",
            false,
            "does not lie where this installation keeps its archives",
        ),
        ("/nowhere/at/all.dump", true, "no such dump"),
        ("/etc/hostname", true, "manifest"),
        ("ftp://x/y", true, "s3://bucket/prefix"),
    ] {
        let said = refused(&harness.provisioner, location, anywhere).await;
        assert!(said.contains(says), "{location}: {said}");
    }
    let other_keys = Provisioner::new(ProvisionerConfig {
        sealer: Sealer::new(SealKey::generate()),
        ..harness.provisioner.config().clone()
    });
    let said = refused(&other_keys, &archive.location, true).await;
    assert!(said.contains("key"), "{said}");
    // Cut short: refused at once. Changed: found when it is verified, and not recorded.
    let content = std::fs::read(&archive.location).unwrap();
    std::fs::write(&archive.location, &content[..content.len() / 2]).unwrap();
    let said = refused(&harness.provisioner, &archive.location, true).await;
    assert!(said.contains("its manifest says"), "{said}");
    let mut changed = content.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    std::fs::write(&archive.location, &changed).unwrap();
    let asked = harness
        .provisioner
        .request_import(&archive.location, true, by())
        .await
        .unwrap();
    harness
        .provisioner
        .run(asked.operation, |_| {})
        .await
        .unwrap_err();
    let client = harness.registry.client().await.unwrap();
    assert!(
        registry::archive_by_id(&client, archive.id)
            .await
            .unwrap()
            .is_none()
    );
    drop(client);
    assert_eq!(harness.leftovers().await, Vec::<String>::new());
    std::fs::write(&archive.location, &content).unwrap();
    imported(&harness, &archive.location).await;
}
