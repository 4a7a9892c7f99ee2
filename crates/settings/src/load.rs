//! From layers to [`Settings`].

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use figment::value::Value;
use model::DbName;

use crate::{
    Archive, Auth, ClientHeader, DefaultTenant, DefaultTenantHint, Explained, Http, Log, LogFormat, Names,
    Paths, RegistrySettings, Roles, Router, ServerAddress, Settings, SettingsError, TenantServerSettings,
    Webhooks, Worker,
    accept::networks,
    explain::explain,
    layers::{environment, file_of, merge, unknown_variables},
    values::Values,
};

impl Settings {
    /// Reads all layers. `file` is the one named by a flag; without it `TENANTRY_CONFIG` names one, else the
    /// usual places are looked at. `env` is the environment, usually [`std::env::vars`].
    ///
    /// # Errors
    /// [`SettingsError`] tells every problem with its key, its source and what would be accepted.
    pub fn load(
        file: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, SettingsError> {
        let env = environment(env);
        let file = file_of(file, &env)?;
        let state_dir = usual_state_dir(&env, rustix::process::geteuid().is_root());
        let figment = merge(state_dir.as_deref(), file.as_deref(), &env)?;
        let mut problems = unknown_variables(&env);
        let mut values = Values::check(&figment, &mut problems);
        if !problems.is_empty() {
            return Err(SettingsError::Refused(problems));
        }
        let state_dir = values.path("paths.state_dir").ok_or(SettingsError::NoStateDir)?;
        if values.found("paths.archive_dir").is_none() {
            let archives = state_dir.join("archives").display().to_string();
            values.set("paths.archive_dir", Value::from(archives), "default");
        }
        Ok(Self::read(&values, state_dir, file))
    }

    fn read(values: &Values, state_dir: PathBuf, file: Option<PathBuf>) -> Self {
        // Keys with a default are always set, and every value was checked: what stands behind
        // `unwrap_or_default` in the helpers below is never reached. A test reads the defaults back through
        // `KEYS`.
        let amount = |name| values.number::<u64>(name).unwrap_or_default();
        let count = |name| values.number::<usize>(name).unwrap_or_default();
        Self {
            registry: RegistrySettings {
                server: registry_server(values),
                database: values.text("registry.database").unwrap_or("tenantry").to_owned(),
                pool_max: count("registry.pool_max"),
                connect_timeout_ms: amount("registry.connect_timeout_ms"),
                checkout_timeout_ms: amount("registry.checkout_timeout_ms"),
            },
            tenant_server: TenantServerSettings {
                host: values.text("tenant_server.host").map(str::to_owned),
                port: values.number("tenant_server.port"),
                user: values.text("tenant_server.user").map(str::to_owned),
                password: values.secret("tenant_server.password"),
            },
            default_tenant: default_tenant(values),
            paths: Paths {
                archive_dir: values
                    .path("paths.archive_dir")
                    .unwrap_or_else(|| state_dir.join("archives")),
                pg_bin: values.path("paths.pg_bin"),
                state_dir,
            },
            archive: Archive {
                url: values.text("archive.url").map(str::to_owned),
                age_recipient: values.text("archive.age_recipient").map(str::to_owned),
                age_identity_file: values.path("archive.age_identity_file"),
                compression: values.text("archive.compression").unwrap_or("auto").to_owned(),
                jobs: count("archive.jobs"),
            },
            http: Http {
                listen: values
                    .parsed("http.listen")
                    .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8080))),
                public_url: values
                    .text("http.public_url")
                    .map(|url| url.trim_end_matches('/').to_owned()),
                body_max_bytes: count("http.body_max_bytes"),
                bodies_max_bytes: count("http.bodies_max_bytes"),
                trusted_proxies: values
                    .text("http.trusted_proxies")
                    .and_then(networks)
                    .unwrap_or_default(),
                client_header: match values.text("http.client_header") {
                    Some("forwarded") => ClientHeader::Forwarded,
                    _ => ClientHeader::XForwardedFor,
                },
                request_timeout_ms: amount("http.request_timeout_ms"),
                shutdown_grace_ms: amount("http.shutdown_grace_ms"),
                shutdown_announce_ms: amount("http.shutdown_announce_ms"),
                workers: values.number("http.workers"),
            },
            router: Router {
                pools_max: count("router.pools_max"),
                pool_size_max: count("router.pool_size_max"),
                budget: count("router.budget"),
                reserve: count("router.reserve"),
                refuse_overbooking: values.text("router.overbooking") == Some("refuse"),
                tenure_ms: amount("router.tenure_ms"),
                connects_max: count("router.connects_max"),
                checkout_timeout_ms: amount("router.checkout_timeout_ms"),
                connect_timeout_ms: amount("router.connect_timeout_ms"),
                snapshot_ttl_ms: amount("router.snapshot_ttl_ms"),
                waiting_max: count("router.waiting_max"),
                idle_timeout_ms: amount("router.idle_timeout_ms"),
                statement_timeout_ms: amount("router.statement_timeout_ms"),
                outage_max_s: amount("router.outage_max_s"),
                statements_max: count("router.statements_max"),
                ttl_s: amount("router.ttl_s"),
            },
            auth: Auth {
                token_ttl_s: amount("auth.token_ttl_s"),
                invitation_ttl_s: amount("auth.invitation_ttl_s"),
                password_hashes_parallel_max: count("auth.password_hashes_parallel_max"),
                password_hash_wait_ms: amount("auth.password_hash_wait_ms"),
            },
            worker: Worker {
                parallel_max: count("worker.parallel_max"),
                lease_s: amount("worker.lease_s"),
                poll_ms: amount("worker.poll_ms"),
                spares: count("worker.spares"),
                attempts_max: values.number("worker.attempts_max").unwrap_or(1),
                routers_grace_ms: amount("worker.routers_grace_ms"),
                offboard_grace_s: amount("worker.offboard_grace_s"),
                dump_limit_s: amount("worker.dump_limit_s"),
            },
            roles: Roles {
                connections_max: values.number("roles.connections_max").unwrap_or_else(|| {
                    let of_one = u32::try_from(count("router.pool_size_max")).unwrap_or(u32::MAX);
                    of_one.saturating_mul(4).saturating_add(4)
                }),
                temp_file_max_mb: values.number("roles.temp_file_max_mb").unwrap_or(1_024),
                open_databases_refused: values.text("roles.open_databases") == Some("refuse"),
            },
            webhooks: Webhooks {
                timeout_ms: amount("webhooks.timeout_ms"),
                attempts_max: values.number("webhooks.attempts_max").unwrap_or(1),
                age_max_s: amount("webhooks.age_max_s"),
                backoff_min_ms: amount("webhooks.backoff_min_ms"),
                backoff_max_s: amount("webhooks.backoff_max_s"),
                off_after_s: amount("webhooks.off_after_s"),
                keep_s: amount("webhooks.keep_s"),
                parallel_max: count("webhooks.parallel_max"),
                poll_ms: amount("webhooks.poll_ms"),
                private_addresses: values.text("webhooks.private_addresses") == Some("allow"),
            },
            log: Log {
                filter: values.text("log.filter").unwrap_or("info").to_owned(),
                format: match values.text("log.format") {
                    Some("json") => LogFormat::Json,
                    _ => LogFormat::Text,
                },
            },
            names: Names {
                namespace: values.parsed("names.namespace").unwrap_or_default(),
            },
            file,
            explained: explain(values),
        }
    }

    /// Every key with its value in force and where that came from; secrets as `***`.
    #[must_use]
    pub fn explain(&self) -> Vec<Explained> {
        self.explained.clone()
    }

    /// Whether the registry is on the embedded server.
    #[must_use]
    pub fn uses_embedded(&self) -> bool {
        self.registry.server.is_none()
    }
}

/// The registry's server, if any of its connection keys is set.
fn registry_server(values: &Values) -> Option<ServerAddress> {
    let keys = [
        "registry.host",
        "registry.port",
        "registry.user",
        "registry.password",
        "registry.database",
    ];
    if keys.iter().all(|key| values.found(key).is_none()) {
        return None;
    }
    Some(ServerAddress {
        host: values.text("registry.host").unwrap_or("localhost").to_owned(),
        port: values.number("registry.port").unwrap_or(5432),
        user: values.text("registry.user").unwrap_or("postgres").to_owned(),
        password: values.secret("registry.password").unwrap_or_default(),
    })
}

fn default_tenant(values: &Values) -> DefaultTenant {
    let database = |key| values.text(key).and_then(|name| DbName::from_catalog(name).ok());
    let hints = [
        (
            "default_tenant.id",
            values.parsed("default_tenant.id").map(DefaultTenantHint::Id),
        ),
        (
            "default_tenant.slug",
            values.parsed("default_tenant.slug").map(DefaultTenantHint::Slug),
        ),
        (
            "default_tenant.database",
            database("default_tenant.database").map(DefaultTenantHint::Database),
        ),
        (
            "default_tenant.pgdatabase",
            database("default_tenant.pgdatabase").map(DefaultTenantHint::Database),
        ),
    ];
    let first = hints
        .into_iter()
        .find_map(|(key, hint)| hint.map(|hint| (key, hint)));
    match first {
        Some((key, hint)) => DefaultTenant {
            hint: Some(hint),
            source: values.found(key).map(|found| found.source.clone()),
        },
        None => DefaultTenant {
            hint: None,
            source: None,
        },
    }
}

/// The place for state that the platform's custom asks for: root's services under /var/lib (FHS 5.8), a
/// person's under XDG_STATE_HOME (XDG Base Directory 0.8).
fn usual_state_dir(env: &BTreeMap<String, String>, root: bool) -> Option<String> {
    if root {
        return Some("/var/lib/tenantry".to_owned());
    }
    let xdg = env.get("XDG_STATE_HOME").filter(|dir| dir.starts_with('/'));
    xdg.map(|dir| format!("{dir}/tenantry")).or_else(|| {
        env.get("HOME")
            .map(|home| format!("{home}/.local/state/tenantry"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_goes_where_the_custom_is() {
        let env = |pairs: &[(&str, &str)]| {
            environment(
                pairs
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
            )
        };
        let both = env(&[("HOME", "/home/ada"), ("XDG_STATE_HOME", "/state")]);
        assert_eq!(usual_state_dir(&both, true).unwrap(), "/var/lib/tenantry");
        assert_eq!(usual_state_dir(&both, false).unwrap(), "/state/tenantry");
        let relative = env(&[("HOME", "/home/ada"), ("XDG_STATE_HOME", "state")]);
        assert_eq!(
            usual_state_dir(&relative, false).unwrap(),
            "/home/ada/.local/state/tenantry"
        );
        assert_eq!(usual_state_dir(&env(&[("HOME", "")]), false), None);
    }
}
