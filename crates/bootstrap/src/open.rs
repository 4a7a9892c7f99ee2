use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use identity::{KeyStore, PasswordOptions, Passwords, Sealer};
use model::{Clock, Namespace, SystemClock};
use outbox::{Outbox, OutboxConfig};
use pg::ConnectTarget;
use provisioner::{
    ArchiveOptions, Bounds, OpenRule, ProvisionError, Provisioner, ProvisionerConfig, RolePolicy,
};
use registry::{Registry, RegistryClock, RegistryOptions};
use secrecy::SecretString;
use settings::{ServerAddress, Settings};

use crate::{PlatformError, cluster::EmbeddedServer, seed_hook};

/// The parts that both binaries work with.
pub struct Platform {
    /// The master database.
    pub registry: Registry,
    /// The time, which is the registry's.
    pub clock: RegistryClock,
    /// The keys of this installation.
    pub keys: KeyStore,
    /// Opens and seals secrets at rest.
    pub sealer: Sealer,
    /// Hashes passwords, bounded.
    pub passwords: Passwords,
    /// Asks for operations and runs them.
    pub provisioner: Provisioner,
    /// Sends events and looks after the addresses.
    pub outbox: Outbox,
    pub(crate) namespace: Namespace,
    pub(crate) keys_dir: PathBuf,
    /// The tenant server, as its administrator.
    pub(crate) server: ConnectTarget,
    pub(crate) embedded: Option<EmbeddedServer>,
}

impl fmt::Debug for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Platform")
            .field("registry", &self.registry)
            .field("server", &self.server)
            .field("embedded", &self.embedded)
            .finish_non_exhaustive()
    }
}

impl Platform {
    /// Whether there is anything to open: an embedded server that nobody has made yet is not started just to
    /// find that out.
    ///
    /// # Errors
    /// [`PlatformError::NotInstalled`] says to run `tenantctl up`.
    pub fn installed(settings: &Settings) -> Result<(), PlatformError> {
        let dir = settings.paths.embedded_dir();
        if settings.uses_embedded() && !dir.exists() {
            return Err(PlatformError::NotInstalled { dir });
        }
        Ok(())
    }

    /// Starts or joins the embedded server where one is used, reads or makes the keys, and puts the parts
    /// together. Servers that somebody else runs are not connected to yet.
    ///
    /// # Errors
    /// [`PlatformError`] says what to do.
    pub async fn open(settings: &Settings) -> Result<Self, PlatformError> {
        Self::open_at(settings, Arc::new(SystemClock)).await
    }

    /// The same on a machine whose clock is `local`.
    ///
    /// # Errors
    /// As [`Platform::open`].
    pub async fn open_at(settings: &Settings, local: Arc<dyn Clock>) -> Result<Self, PlatformError> {
        let keys_dir = settings.paths.keys_dir();
        let embedded = match &settings.registry.server {
            None => Some(EmbeddedServer::start(&settings.paths).await?),
            Some(_) => None,
        };
        let keys = KeyStore::open_or_create(&keys_dir)?;
        let sealer = Sealer::new(keys.seal_key());
        let (master, server) = targets(settings, embedded.as_ref().map(EmbeddedServer::target));
        let registry = Registry::new(&master, registry_options(settings));
        let clock = RegistryClock::new(local);
        let pg_bin = programs(settings, embedded.as_ref());
        let provisioner = Provisioner::new(provisioner_config(settings, &registry, &sealer, &clock, pg_bin));
        let outbox = Outbox::new(outbox_config(settings, &registry, &sealer, &clock));
        Ok(Self {
            registry,
            clock,
            keys,
            sealer,
            passwords: Passwords::new(password_options(settings)),
            provisioner,
            outbox,
            namespace: settings.names.namespace.clone(),
            keys_dir,
            server,
            embedded,
        })
    }

    /// Whether work can begin: the registry is there at this code's version, and the keys open what it holds.
    /// The embedded server's address is brought up to date in it, for its port may have changed with a
    /// restart.
    ///
    /// # Errors
    /// [`PlatformError`] says what to do; usually to run `tenantctl up`.
    pub async fn ready(&self) -> Result<(), PlatformError> {
        self.registry.check_version().await?;
        self.require_namespace().await?;
        self.clock.measure(&self.registry).await?;
        if self.embedded.is_some() {
            self.register_server().await?;
            Ok(())
        } else {
            self.check_keys().await
        }
    }

    /// Refuses to work in another namespace than that of the registry's laboratories.
    pub(crate) async fn require_namespace(&self) -> Result<(), PlatformError> {
        match self.provisioner.require_namespace().await {
            Ok(()) => Ok(()),
            Err(ProvisionError::Registry(error)) => Err(error.into()),
            Err(refused) => Err(PlatformError::OtherNamespace {
                why: refused.to_string(),
            }),
        }
    }

    /// Stops the embedded server if this process owns it. The last thing to do.
    ///
    /// # Errors
    /// [`PlatformError::Embedded`] when it does not end.
    pub async fn close(self) -> Result<(), PlatformError> {
        let Self {
            embedded,
            registry,
            provisioner,
            outbox,
            ..
        } = self;
        // Connections that are closed first are not reported as broken by the server's end.
        drop((registry, provisioner, outbox));
        match embedded {
            Some(embedded) => Ok(embedded.close().await?),
            None => Ok(()),
        }
    }
}

/// The registry's database and the tenant server, each as their administrator.
fn targets(settings: &Settings, embedded: Option<&ConnectTarget>) -> (ConnectTarget, ConnectTarget) {
    let master = match (&settings.registry.server, embedded) {
        (None, Some(target)) => target.with_database(&settings.registry.database),
        (address, _) => target(address.as_ref(), &settings.registry.database),
    };
    let own = &settings.tenant_server;
    let mut server = master.with_database(migrator::MAINTENANCE_DATABASE);
    // Beside an embedded registry, a tenant server named by host shares nothing with it, least of all the
    // password.
    if embedded.is_some() && own.host.is_some() {
        server = target(None, migrator::MAINTENANCE_DATABASE);
    }
    if let Some(host) = &own.host {
        server.host.clone_from(host);
    }
    if let Some(port) = own.port {
        server.port = port;
    }
    if let Some(user) = &own.user {
        server.user.clone_from(user);
    }
    if let Some(password) = &own.password {
        server.password = password.clone();
    }
    (master, server)
}

fn target(address: Option<&ServerAddress>, database: &str) -> ConnectTarget {
    let text = |value: Option<&String>, default: &str| value.map_or_else(|| default.to_owned(), Clone::clone);
    ConnectTarget {
        host: text(address.map(|a| &a.host), "localhost"),
        port: address.map_or(5432, |a| a.port),
        user: text(address.map(|a| &a.user), "postgres"),
        password: address.map_or_else(SecretString::default, |a| a.password.clone()),
        database: database.to_owned(),
    }
}

fn registry_options(settings: &Settings) -> RegistryOptions {
    RegistryOptions {
        pool_max: settings.registry.pool_max,
        connect_timeout: Duration::from_millis(settings.registry.connect_timeout_ms),
        checkout_timeout: Duration::from_millis(settings.registry.checkout_timeout_ms),
    }
}

fn password_options(settings: &Settings) -> PasswordOptions {
    PasswordOptions {
        parallel_max: settings.auth.password_hashes_parallel_max,
        wait_max: Duration::from_millis(settings.auth.password_hash_wait_ms),
    }
}

/// Where the provisioner finds `pg_dump` and `pg_restore`: as configured, or else those of the embedded
/// server, when the laboratories live there; a server that somebody else runs may be of any version.
fn programs(settings: &Settings, embedded: Option<&EmbeddedServer>) -> Option<PathBuf> {
    let configured = settings.paths.pg_bin.clone();
    configured.or_else(|| {
        let dir = embedded
            .filter(|_| settings.tenant_server.host.is_none())?
            .bin_dir();
        dir.join("pg_dump").exists().then(|| dir.to_owned())
    })
}

fn archive_options(settings: &settings::Archive) -> ArchiveOptions {
    ArchiveOptions {
        url: settings.url.clone(),
        keys: archive::Keys {
            recipient: settings.age_recipient.clone(),
            identity_file: settings.age_identity_file.clone(),
        },
        // The settings accept no other words.
        compression: settings.compression.parse().unwrap_or_default(),
        jobs: settings.jobs,
    }
}

fn provisioner_config(
    settings: &Settings,
    registry: &Registry,
    sealer: &Sealer,
    clock: &RegistryClock,
    pg_bin: Option<PathBuf>,
) -> ProvisionerConfig {
    let worker = &settings.worker;
    ProvisionerConfig {
        registry: registry.clone(),
        sealer: sealer.clone(),
        namespace: settings.names.namespace.clone(),
        archive_dir: settings.paths.archive_dir.clone(),
        archive: archive_options(&settings.archive),
        pg_bin,
        lease: Duration::from_secs(worker.lease_s),
        bounds: Bounds {
            attempts_max: worker.attempts_max,
            operations_parallel_max: worker.parallel_max,
            spares: worker.spares,
            poll_every: Duration::from_millis(worker.poll_ms),
            routers_grace: Duration::from_millis(worker.routers_grace_ms),
            dump_limit: Duration::from_secs(worker.dump_limit_s),
            shutdown_grace: Duration::from_millis(settings.http.shutdown_grace_ms),
            ..Bounds::default()
        },
        roles: RolePolicy {
            connections_max: settings.roles.connections_max,
            temp_file_max_mb: settings.roles.temp_file_max_mb,
            open_databases: if settings.roles.open_databases_refused {
                OpenRule::Refuse
            } else {
                OpenRule::Warn
            },
        },
        seed: seed_hook(),
        clock: clock.clone(),
    }
}

fn outbox_config(
    settings: &Settings,
    registry: &Registry,
    sealer: &Sealer,
    clock: &RegistryClock,
) -> OutboxConfig {
    let webhooks = &settings.webhooks;
    OutboxConfig {
        private_addresses: webhooks.private_addresses,
        request_timeout: Duration::from_millis(webhooks.timeout_ms),
        attempts_max: webhooks.attempts_max,
        age_max: Duration::from_secs(webhooks.age_max_s),
        backoff_min: Duration::from_millis(webhooks.backoff_min_ms),
        backoff_max: Duration::from_secs(webhooks.backoff_max_s),
        off_after: Duration::from_secs(webhooks.off_after_s),
        keep: Duration::from_secs(webhooks.keep_s),
        parallel_max: webhooks.parallel_max,
        parallel_per_webhook_max: webhooks.parallel_max.div_ceil(4),
        poll_every: Duration::from_millis(webhooks.poll_ms),
        shutdown_grace: Duration::from_millis(settings.http.shutdown_grace_ms),
        ..OutboxConfig::new(registry.clone(), sealer.clone(), Arc::new(clock.clone()))
    }
}
