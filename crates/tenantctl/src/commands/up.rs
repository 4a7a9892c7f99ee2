//! From nothing to a serving platform.

use std::{
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;
use bootstrap::{Prepare, Prepared, StaysOpen};
use serde_json::json;
use settings::Settings;

use crate::{
    cli::Global,
    context::{Context, settings},
    output::Out,
};

pub(crate) async fn run(global: &Global, out: Out, no_serve: bool, prepare: Prepare) -> anyhow::Result<()> {
    let settings = settings(global)?;
    // Found before anything is prepared: a broken installation should show at once.
    let tenantd = if no_serve { None } else { Some(find_tenantd()?) };
    let embedded = settings.uses_embedded();
    if embedded {
        out.note(&format!(
            "embedded PostgreSQL in {}",
            settings.paths.embedded_dir().display()
        ));
    }
    let context = Context::open_any(settings.clone(), out).await?;
    let mut steps = Vec::new();
    let prepared = context
        .platform
        .prepare_with(prepare, |step| {
            out.note(&words(&step));
            steps.push(document(&step));
        })
        .await;
    // tenantd starts the embedded server again as its owner: it then ends with tenantd, however that one
    // ends.
    let closed = context.close().await;
    if let Err(error) = prepared {
        let refused = error.changed_nothing() || steps.is_empty();
        let error = anyhow::Error::new(error);
        return Err(match refused {
            true => error,
            false => error.context("preparing stopped here; `tenantctl up` goes on from there"),
        });
    }
    closed?;
    match tenantd {
        None => {
            out.note("ready; `tenantctl up` serves, `tenantctl provision` makes a laboratory");
            if out.json {
                out.document(&json!({"prepared": steps}))
            } else {
                Ok(())
            }
        }
        Some(tenantd) => Err(serve(&tenantd, &settings, out)),
    }
}

/// Becomes tenantd: the same process, so signals and the exit code need no passing on and nothing is left
/// behind when one of two is killed. Returns only when that fails.
fn serve(tenantd: &Path, settings: &Settings, out: Out) -> anyhow::Error {
    let listen = settings.http.listen;
    if listen.port() == 0 {
        out.note(&format!(
            "tenantd listens on a free port of {}, named in its log",
            listen.ip()
        ));
    } else {
        out.note(&format!(
            "tenantd listens on http://{listen}; the API's description is on http://{listen}/docs"
        ));
    }
    out.note("next, in another terminal: tenantctl operator create --email you@example.org");
    out.note("                          tenantctl provision acme-lab --name \"Acme Lab\" --admin-email you@example.org");
    let mut command = Command::new(tenantd);
    if let Some(file) = &settings.file {
        // The very file that was read here, also when it was named by a flag or relative.
        command.env(
            "TENANTRY_CONFIG",
            std::path::absolute(file).unwrap_or_else(|_| file.clone()),
        );
    }
    let error = command.exec();
    anyhow::Error::new(error).context(format!("{} cannot be started", tenantd.display()))
}

/// Both programs are installed side by side, so that they are of one version.
fn find_tenantd() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("finding the directory of tenantctl")?;
    let own = own.canonicalize().unwrap_or(own);
    let beside = own.with_file_name("tenantd");
    if beside.is_file() {
        return Ok(beside);
    }
    anyhow::bail!(
        "there is no tenantd beside {}; install both into one directory (`cargo build` puts them there), or prepare \
         without serving: `tenantctl up --no-serve`",
        own.display()
    )
}

fn words(step: &Prepared) -> String {
    match step {
        Prepared::Database { name, created: true } => format!("registry database {name} created"),
        Prepared::Database { name, created: false } => format!("registry database {name} found"),
        Prepared::Registry { version } => format!("registry schema at version {version}"),
        Prepared::Server {
            address,
            changed: true,
        } => {
            format!("tenant server {address} registered as {}", bootstrap::MAIN_SERVER)
        }
        Prepared::Server {
            address,
            changed: false,
        } => {
            format!("tenant server {address} known as {}", bootstrap::MAIN_SERVER)
        }
        Prepared::Closing { databases } => closing(databases),
        Prepared::Secured { closed, open } => secured(closed, open),
        Prepared::RoleCreators { roles } => role_creators(roles),
        Prepared::Template { name } => format!("template {} ready", name.as_str()),
        Prepared::Unmet { why } => format!("warning: {why}"),
    }
}

/// Whom it shuts out, and what keeps them in: said before it is done.
fn closing(databases: &[StaysOpen]) -> String {
    let mut lines = Vec::new();
    for stays in databases {
        let database = model::quote_ident(&stays.open.database);
        let line = match stays.through_public.as_slice() {
            [] => format!("{database} is closed to PUBLIC now: no login role of others needs that"),
            roles => {
                let names: Vec<String> = roles.iter().map(|role| model::quote_ident(role)).collect();
                format!(
                    "{database} is closed to PUBLIC now, which shuts out {} login roles; to let them in again: GRANT CONNECT ON \
                     DATABASE {database} TO {}",
                    roles.len(),
                    names.join(", ")
                )
            }
        };
        lines.push(line);
    }
    lines.join("\n")
}

/// What PostgreSQL lets roles with CREATEROLE do.
fn role_creators(roles: &[String]) -> String {
    format!(
        "warning: {}",
        crate::outcome::role_creators_note(roles.iter().map(String::as_str))
    )
}

/// How many roles are named that a database would be closed to.
const ROLES_SHOWN_MAX: usize = 10;

fn secured(closed: &[String], open: &[StaysOpen]) -> String {
    let mut lines = vec![match closed {
        [] => "no database had to be closed to PUBLIC".to_owned(),
        closed => format!("closed to PUBLIC: {}", closed.join(", ")),
    }];
    let (shared, others): (Vec<_>, Vec<_>) = open.iter().partition(|stays| stays.open.is_shared());
    for stays in &shared {
        let who = match stays.through_public.as_slice() {
            [] => "no login role of others needs that".to_owned(),
            roles => {
                let shown = roles
                    .iter()
                    .take(ROLES_SHOWN_MAX)
                    .map(String::as_str)
                    .collect::<Vec<_>>();
                let more = roles.len() - shown.len();
                let more = if more > 0 {
                    format!(" and {more} more")
                } else {
                    String::new()
                };
                format!("{}{more} get in by that alone", shown.join(", "))
            }
        };
        lines.push(format!("  stays open to every role: {}; {who}", stays.open));
    }
    if !shared.is_empty() {
        lines.push(
            "  laboratories' roles can connect there, too; `tenantctl up --close-shared` closes these, after GRANT CONNECT to those \
             who need them"
                .to_owned(),
        );
    }
    if !others.is_empty() {
        let names: Vec<String> = others.iter().map(|stays| stays.open.to_string()).collect();
        lines.push(format!(
            "  laboratories' roles can also connect to {}: REVOKE CONNECT ON DATABASE … FROM PUBLIC closes one",
            names.join(", ")
        ));
    }
    lines.join("\n")
}

fn opened(databases: &[StaysOpen]) -> Vec<serde_json::Value> {
    let each = databases.iter().map(|stays| {
        json!({
            "database": stays.open.database,
            "owner": stays.open.owner,
            "rights": stays.open.rights,
            "throughPublic": stays.through_public,
        })
    });
    each.collect()
}

fn document(step: &Prepared) -> serde_json::Value {
    match step {
        Prepared::Database { name, created } => json!({"step": "database", "name": name, "created": created}),
        Prepared::Registry { version } => json!({"step": "registry", "version": version}),
        Prepared::Server { address, changed } => {
            json!({"step": "server", "name": bootstrap::MAIN_SERVER, "address": address, "changed": changed})
        }
        Prepared::Closing { databases } => json!({"step": "closing", "databases": opened(databases)}),
        Prepared::Secured { closed, open } => {
            json!({"step": "secured", "closed": closed, "open": opened(open)})
        }
        Prepared::RoleCreators { roles } => json!({"step": "role_creators", "roles": roles}),
        Prepared::Template { name } => json!({"step": "template", "name": name}),
        Prepared::Unmet { why } => json!({"step": "unmet", "why": why}),
    }
}
