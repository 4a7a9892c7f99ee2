//! From settings to a serving process, and its end.
//!
//! On SIGTERM `/readyz` says 503 for `http.shutdown_announce_ms` while everything is served as before: time
//! for a load balancer to look. Then, and on SIGINT at once, for a person at the terminal waits, the process
//! accepts no more connections, requests under way may finish, the worker gives its operations back, and the
//! pools close. A second signal ends it at once. Nothing of this is needed for safety: a `kill -9` loses no
//! acknowledged write.

use std::{
    io::{IsTerminal as _, Write},
    sync::Arc,
    time::Duration,
};

use actix_web::{HttpServer, dev::ServerHandle, web::Data};
use anyhow::Context as _;
use bootstrap::Platform;
use identity::Tokens;
use resolver::{Resolver, ResolverConfig};
use settings::Settings;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinHandle,
};

use crate::{
    app::app,
    attempts::Attempts,
    bodies::Bodies,
    export_permits::ExportPermits,
    instance, invitations,
    lifecycle::Lifecycle,
    metrics::Metrics,
    proxies::TrustedProxies,
    service_manager,
    state::{AppState, Limits},
};

/// How long answers that were just written may take to leave, and pools to close.
const LINGER: Duration = Duration::from_millis(500);
/// The exit code after a second signal: 128 and the number of SIGINT, as shells count.
const EXIT_AT_ONCE: i32 = 130;

/// Serves until a signal ends it.
///
/// # Errors
/// What keeps it from starting, with what to do about it.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let platform = Platform::open(&settings).await?;
    platform.ready().await?;
    check_budgets(&settings, &platform).await?;
    let attending = platform.attend().await?;
    let state = Data::new(state(&settings, &platform));
    let (stop, worker) = start_worker(&platform);
    let (server, serving) = serve(&settings, state.clone())?;
    service_manager::ready(settings.http.listen);

    let announce = tokio::select! {
        announce = signals.next() => {
            service_manager::stopping();
            announce
        }
        ended = serving => {
            ended.context("the HTTP server ended")?.context("the HTTP server ended")?;
            false
        }
    };
    tokio::spawn(async move {
        signals.next().await;
        std::process::exit(EXIT_AT_ONCE);
    });
    let _receivers_gone = stop.send(true);
    state.lifecycle.close();
    if announce {
        let announced_ms = settings.http.shutdown_announce_ms;
        tracing::info!(
            announced_ms,
            "stopping: /readyz says so before connections are refused; a second signal ends at once"
        );
        tokio::time::sleep(Duration::from_millis(announced_ms)).await;
    } else {
        tracing::info!("stopping; a second signal ends at once");
    }
    close_http(
        &state,
        server,
        Duration::from_millis(settings.http.shutdown_grace_ms),
    )
    .await;
    if let Err(error) = worker.await {
        tracing::error!(%error, "the worker broke");
    }
    if let Err(connections) = state.resolver.close(LINGER).await {
        tracing::warn!(connections, "connections to laboratories were still in use");
    }
    attending.end().await;
    platform.close().await?;
    tracing::info!("stopped");
    Ok(())
}

/// That the servers can hold the budget of this process, and those of all that run; the latter only warns
/// unless it is set to refuse, for a budget is a bound that a fleet seldom reaches.
async fn check_budgets(settings: &Settings, platform: &Platform) -> anyhow::Result<()> {
    let router = &settings.router;
    let servers = platform.check_budget(router.budget, router.reserve).await?;
    let instance = instance::name(settings.http.listen);
    let overbooked = platform
        .overbooked(&servers, router.budget, router.reserve, instance.as_deref())
        .await?;
    for overbooked in overbooked {
        if router.refuse_overbooking {
            anyhow::bail!("{overbooked} (router.overbooking is refuse)");
        }
        tracing::warn!(server = %overbooked.server, "{overbooked}");
    }
    Ok(())
}

fn state(settings: &Settings, platform: &Platform) -> AppState {
    let ttl = Duration::from_secs(settings.auth.token_ttl_s);
    AppState {
        registry: platform.registry.clone(),
        clock: platform.clock.clone(),
        resolver: Resolver::start(resolver_config(settings, platform)),
        provisioner: platform.provisioner.clone(),
        outbox: platform.outbox.clone(),
        offboard_grace: Duration::from_secs(settings.worker.offboard_grace_s),
        passwords: platform.passwords.clone(),
        tokens: Tokens::new(platform.keys.signing_key(), ttl, Arc::new(platform.clock.clone())),
        default_tenant: settings.default_tenant.clone(),
        invitations: invitations::Options {
            valid_for: Duration::from_secs(settings.auth.invitation_ttl_s),
            public_url: settings.http.public_url.clone(),
        },
        attempts: Attempts::default(),
        proxies: TrustedProxies::new(settings.http.trusted_proxies.clone(), settings.http.client_header),
        export_permits: ExportPermits::default(),
        limits: Limits {
            body_max_bytes: settings.http.body_max_bytes,
            request_timeout: Duration::from_millis(settings.http.request_timeout_ms),
        },
        bodies: Bodies::new(settings.http.bodies_max_bytes),
        lifecycle: Lifecycle::default(),
        metrics: Metrics::default(),
    }
}

fn resolver_config(settings: &Settings, platform: &Platform) -> ResolverConfig {
    let router = &settings.router;
    let (registry, sealer) = (platform.registry.clone(), platform.sealer.clone());
    ResolverConfig {
        pools_max: router.pools_max,
        pool_size_max: router.pool_size_max,
        budget: router.budget,
        reserve: router.reserve,
        tenure: Duration::from_millis(router.tenure_ms),
        connects_max: router.connects_max,
        statements_max: router.statements_max,
        waiting_max: router.waiting_max,
        checkout_timeout: Duration::from_millis(router.checkout_timeout_ms),
        connect_timeout: Duration::from_millis(router.connect_timeout_ms),
        statement_timeout: Duration::from_millis(router.statement_timeout_ms),
        idle_timeout: Duration::from_millis(router.idle_timeout_ms),
        snapshot_ttl: Duration::from_millis(router.snapshot_ttl_ms),
        outage_max: Duration::from_secs(router.outage_max_s),
        router_ttl: Duration::from_secs(router.ttl_s),
        // Handlers run on actix-web's workers, which live as long as the resolver is asked.
        drive_on_callers: true,
        instance: instance::name(settings.http.listen),
        ..ResolverConfig::new(registry, sealer, migrator::window())
    }
}

/// Runs operations and sends events, each on its own: neither waits for the other.
fn start_worker(platform: &Platform) -> (watch::Sender<bool>, JoinHandle<()>) {
    let (stop, stopped) = watch::channel(false);
    let (provisioner, outbox) = (platform.provisioner.clone(), platform.outbox.clone());
    let worker = tokio::spawn(async move {
        let sending = outbox.worker(shutdown_requested(stopped.clone()));
        tokio::join!(provisioner.worker(shutdown_requested(stopped)), sending);
    });
    (stop, worker)
}

/// Returns when the process is to stop.
async fn shutdown_requested(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, and with it the process.
    let _told = stopped.wait_for(|stop| *stop).await;
}

/// Binds, says where, and serves on threads of its own.
fn serve(
    settings: &Settings,
    state: Data<AppState>,
) -> anyhow::Result<(ServerHandle, JoinHandle<std::io::Result<()>>)> {
    let http = &settings.http;
    let mut server = HttpServer::new(move || app(state.clone()))
        .disable_signals()
        .shutdown_timeout(http.shutdown_grace_ms.div_ceil(1000));
    if let Some(workers) = http.workers {
        server = server.workers(workers);
    }
    let server = server.bind(http.listen).with_context(|| {
        format!(
            "cannot listen on {}; is another program there? set TENANTRY_HTTP_LISTEN",
            http.listen
        )
    })?;
    for address in server.addrs() {
        let mut out = std::io::stdout().lock();
        writeln!(out, "listening on http://{address}")
            .and_then(|()| out.flush())
            .context("standard output")?;
    }
    let server = server.run();
    Ok((server.handle(), tokio::spawn(server)))
}

/// Stops accepting and waits for the requests under way, no longer than `grace`.
async fn close_http(state: &AppState, server: ServerHandle, grace: Duration) {
    // Graceful: it also waits for idle connections that are kept alive. Those need not be waited for here.
    let stopping = tokio::spawn(async move { server.stop(true).await });
    let left = state.lifecycle.quiet(grace).await;
    if left > 0 {
        tracing::warn!(
            requests = left,
            grace_ms = grace.as_millis(),
            "requests were cut off"
        );
    }
    let _elapsed = tokio::time::timeout(LINGER, stopping).await;
}

/// The signals that mean "stop". SIGHUP does where a terminal was closed; elsewhere it is how a service is
/// asked to read its settings again, which `tenantd` does at its start only: it says so and goes on.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    on_terminal: bool,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            on_terminal: std::io::stdin().is_terminal(),
        })
    }

    /// Waits for one of them. `true`: it came from a service manager, which a load balancer may stand before.
    async fn next(&mut self) -> bool {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return true,
                _ = self.interrupt.recv() => return false,
                _ = self.hangup.recv() => {
                    if self.on_terminal {
                        return false;
                    }
                    tracing::warn!("SIGHUP was ignored: settings are read at the start only; restart tenantd to apply changed ones");
                }
            }
        }
    }
}
