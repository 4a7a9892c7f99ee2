//! One file for each group of commands. A command opens what it needs, does its work and closes.

mod adopt;
mod archives;
mod backup;
mod config;
mod doctor;
mod export;
mod invite;
mod lifecycle;
mod list;
mod migrate;
mod offboard;
mod operations;
mod operator;
mod provision;
mod refusals;
mod restore;
mod show;
mod up;
mod webhooks;

use crate::{
    cli::{Cli, Command},
    context::Context,
    output::Out,
};

/// Does what was asked.
pub(crate) async fn run(cli: Cli, out: &Out) -> anyhow::Result<()> {
    match cli.command {
        Command::Up {
            no_serve,
            close_shared,
            new_registry,
        } => {
            let prepare = bootstrap::Prepare {
                close_shared,
                new_registry,
            };
            up::run(&cli.global, *out, no_serve, prepare).await
        }
        Command::Config(what) => config::run(&cli.global, out, &what),
        Command::Completions { shell } => config::completions(out, shell),
        Command::Version => config::version(out),
        command => {
            let context = Context::open(&cli.global, *out).await?;
            let ended = on_platform(&context, command).await;
            // An embedded server that was started for this command stops with it, however it ended.
            let closed = context.close().await;
            ended.and(closed)
        }
    }
}

async fn on_platform(context: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Provision(what) => provision::run(context, what).await,
        Command::Invite {
            tenant,
            email,
            revoke,
        } => invite::run(context, &tenant, email.as_ref(), revoke).await,
        Command::Adopt(what) => adopt::run(context, what).await,
        Command::List {
            status,
            server,
            behind,
        } => list::run(context, status, server, behind).await,
        Command::Show { tenant } => show::run(context, &tenant).await,
        Command::Migrate { tenants, all: _ } => migrate::run(context, &tenants).await,
        Command::Suspend { tenant, reason } => lifecycle::suspend(context, &tenant, reason).await,
        Command::Resume { tenant, reason } => lifecycle::resume(context, &tenant, reason).await,
        Command::Offboard {
            tenant,
            grace,
            now,
            yes,
            confirm,
            reason,
            no_wait,
        } => {
            let when = offboard::When {
                grace,
                now,
                yes,
                confirm,
            };
            offboard::run(context, &tenant, when, reason, no_wait).await
        }
        Command::Export {
            tenant,
            output,
            reason,
        } => export::run(context, &tenant, &output, reason).await,
        Command::Forget {
            tenant,
            confirm,
            without_archive,
            reason,
        } => offboard::forget(context, &tenant, &confirm, without_archive, reason).await,
        Command::Doctor { deep, fix } => doctor::run(context, deep, fix).await,
        Command::Backup(what) => backup::run(context, what).await,
        Command::Restore(what) => restore::run(context, what).await,
        Command::Archives(what) => archives::run(context, what).await,
        Command::Operations(what) => operations::run(context, what).await,
        Command::Operator(what) => operator::run(context, what).await,
        Command::Refusals { tenant, limit } => refusals::run(context, tenant.as_ref(), limit).await,
        Command::Webhooks(what) => webhooks::run(context, what).await,
        Command::Up { .. } | Command::Config(_) | Command::Completions { .. } | Command::Version => {
            unreachable!("they need no open platform and were done before")
        }
    }
}
