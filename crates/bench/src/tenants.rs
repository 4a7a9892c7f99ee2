//! Makes laboratories in bulk: a database, a role with a SCRAM password as the product makes it, and a row in
//! the registry.

use anyhow::Context;
use futures_util::{StreamExt, TryStreamExt, stream};
use identity::SealContext;
use model::TenantId;
use secrecy::SecretString;

use crate::fleet::{Fleet, Host, POOL_ROLE, Tenant};

/// More databases at once are not created faster.
const PARALLEL: usize = 4;
/// The schema version that all laboratories have.
pub(crate) const VERSION: u32 = 2;
/// How many rows `items` has, from 1.
pub(crate) const ITEMS: i32 = 100;

const TEMPLATE: &str = "bench_template";
/// The role whose privileges the laboratories' roles inherit.
const GROUP: &str = "bench_group";

/// Makes `count` laboratories on the host and names them in the registry.
pub(crate) async fn make(fleet: &Fleet, host: &mut Host, count: usize) -> anyhow::Result<()> {
    template(host).await?;
    let tenants: Vec<(Tenant, SecretString)> = (1..=count)
        .map(|number| {
            let name = format!("bench_{}_{number:05}", host.name.as_str().replace('-', "_"));
            let password = identity::generate_password();
            let target = host
                .admin
                .with_user(name.clone(), password.clone())
                .with_database(name.clone());
            let tenant = Tenant {
                id: TenantId::generate(),
                name,
                target,
            };
            (tenant, password)
        })
        .collect();
    let lanes = tenants.chunks(count.div_ceil(PARALLEL).max(1));
    stream::iter(lanes.map(|lane| databases(host, lane)))
        .buffer_unordered(PARALLEL)
        .try_collect::<Vec<()>>()
        .await?;
    register(fleet, host, &tenants).await?;
    host.tenants = tenants.into_iter().map(|(tenant, _)| tenant).collect();
    Ok(())
}

async fn template(host: &Host) -> anyhow::Result<()> {
    let admin = host.admin().await?;
    let verifier = identity::scram_verifier(&host.pool_password);
    admin
        .batch_execute(&format!(
            "CREATE ROLE {GROUP} NOLOGIN;
             CREATE ROLE {POOL_ROLE} LOGIN PASSWORD '{verifier}' IN ROLE {GROUP}"
        ))
        .await?;
    admin
        .batch_execute(&format!("CREATE DATABASE {TEMPLATE} TEMPLATE template0"))
        .await?;
    let inside = host.admin.with_database(TEMPLATE);
    let inside = pg::connect(&inside, "bench admin", crate::fleet::CONNECT_LIMIT).await?;
    inside
        .batch_execute(&format!(
            "CREATE TABLE items (id int PRIMARY KEY, body text NOT NULL);
             INSERT INTO items SELECT n, 'item ' || n FROM generate_series(1, {ITEMS}) n;
             CREATE TABLE marks (mark text NOT NULL);
             GRANT SELECT ON items TO {GROUP};
             GRANT SELECT, INSERT ON marks TO {GROUP}"
        ))
        .await?;
    // By itself, because VACUUM refuses to be one of several statements.
    inside.batch_execute("VACUUM ANALYZE").await?;
    Ok(())
}

async fn databases(host: &Host, lane: &[(Tenant, SecretString)]) -> anyhow::Result<()> {
    let admin = host.admin().await?;
    for (tenant, password) in lane {
        let name = &tenant.name;
        let verifier = identity::scram_verifier(password);
        admin
            .batch_execute(&format!(
                "CREATE ROLE {name} LOGIN PASSWORD '{verifier}' IN ROLE {GROUP}"
            ))
            .await
            .with_context(|| format!("cannot create the role {name}"))?;
        admin
            .batch_execute(&format!(
                "CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY wal_log"
            ))
            .await
            .with_context(|| format!("cannot create the database {name}"))?;
        admin
            .batch_execute(&format!(
                "REVOKE CONNECT ON DATABASE {name} FROM PUBLIC;
                 GRANT CONNECT ON DATABASE {name} TO {name}, {POOL_ROLE}"
            ))
            .await?;
    }
    Ok(())
}

/// Writes the rows in one statement; the registry's own functions make one laboratory at a time.
async fn register(fleet: &Fleet, host: &Host, tenants: &[(Tenant, SecretString)]) -> anyhow::Result<()> {
    let ids: Vec<uuid::Uuid> = tenants.iter().map(|(tenant, _)| tenant.id.as_uuid()).collect();
    let names: Vec<&str> = tenants.iter().map(|(tenant, _)| tenant.name.as_str()).collect();
    let slugs: Vec<String> = names.iter().map(|name| name.replace('_', "-")).collect();
    let secrets: Vec<Vec<u8>> = tenants
        .iter()
        .map(|(tenant, password)| fleet.sealer.seal(&SealContext::TenantRole(tenant.id), password))
        .collect();
    let registry = fleet.registry.client().await?;
    registry
        .execute(
            "INSERT INTO tenants (id, slug, name, time_zone, server, db_name, role_name, role_secret, status,
                                  db_version, activated_at)
             SELECT id, slug::citext, 'Laboratory ' || slug, 'Europe/Berlin', $5, name, name, secret,
                    'active', $6, now()
             FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bytea[]) AS new (id, slug, name, secret)",
            &[
                &ids,
                &slugs,
                &names,
                &secrets,
                &host.name.as_str(),
                &i32::try_from(VERSION)?,
            ],
        )
        .await
        .context("cannot write the laboratories into the registry")?;
    Ok(())
}
