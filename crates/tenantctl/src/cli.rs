//! What can be typed.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use model::{
    ArchiveId, DeliveryId, DeliveryStatus, Email, EventType, OperationStatus, Reason, ServerName,
    TenantState, WebhookId,
};

use crate::find::{IdRef, OperationRef, TenantRef};

/// A time as people write it: `30d`, `12h`, `1h 30m`. A day has 24 hours.
fn duration(text: &str) -> Result<Duration, String> {
    let refused = |why: &dyn std::fmt::Display| format!("{why}; write it as 30d, 12h or 90m");
    let span: jiff::Span = text.parse().map_err(|error| refused(&error))?;
    let length = span
        .to_duration(jiff::SpanRelativeTo::days_are_24_hours())
        .map_err(|error| refused(&error))?;
    Duration::try_from(length).map_err(|_| refused(&"it is negative"))
}

/// The name of a database as the server's catalogue has it.
fn database(text: &str) -> Result<model::DbName, model::NameError> {
    model::DbName::from_catalog(text)
}

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed
  2    wrong usage or configuration
  3    partly failed: some laboratories were migrated, others not; or the doctor's findings are left
  4    there is no such laboratory, operation or archive
  5    refused: the state does not allow it, or the name is taken
  6    the registry or a server cannot be reached, or takes no writes
  130  interrupted; what was under way can be taken up again

A laboratory is named by its slug or its id; operations, archives and webhooks by their ids or the first digits of those.
Settings come from the file, then the environment; `tenantctl config show`
prints what is in force.";

/// Run a fleet of laboratories, each with a PostgreSQL database of its own.
#[derive(Debug, Parser)]
#[command(name = "tenantctl", version, after_help = EXIT_CODES, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Global {
    /// Read this TOML file instead of TENANTRY_CONFIG, ./tenantry.toml or /etc/tenantry/tenantry.toml
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print one JSON document instead of tables
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print errors only, beside the answer
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Print without colours, as NO_COLOR does
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Prepare registry, tenant server and template, then run tenantd in the foreground
    Up {
        /// End after preparing
        #[arg(long)]
        no_serve: bool,
        /// Take PUBLIC's rights on `postgres` and `template1` of a server that others may use, too; without
        /// it they stay as they are and are listed with those whom it would shut out, which it says before it
        /// does so. On the embedded server they are closed in any case
        #[arg(long)]
        close_shared: bool,
        /// Make a registry on a server whose laboratories belong to another one
        #[arg(long)]
        new_registry: bool,
    },
    /// Make a laboratory; run again, it goes on where it stopped
    Provision(Provision),
    /// Give an administrator a new link to set a password with: one who has not done so yet, or has lost it
    #[command(
        after_help = "The link is printed once, can be used once, and takes the place of one given before. A password that the person has \
                      stays valid until then."
    )]
    Invite {
        /// Slug or id
        tenant: TenantRef,
        /// The administrator's e-mail; may be left out where there is only one
        #[arg(long, value_name = "EMAIL")]
        email: Option<Email>,
        /// Give none, and take back the one that is out: its link is good for nothing from now on
        #[arg(long)]
        revoke: bool,
    },
    /// Make a laboratory of a database that exists; its tables, rows and people stay
    #[command(
        after_help = "It keeps the id, name and time zone of its own profile, and existing passwords there are kept. Run again, it goes \
                      on where it stopped."
    )]
    Adopt(Adopt),
    /// List the laboratories
    List {
        /// Only those in this state: provisioning, active, suspended, deleting or restoring
        #[arg(long)]
        status: Option<TenantState>,
        /// Only those on this server
        #[arg(long, value_parser = ServerName::parse)]
        server: Option<ServerName>,
        /// Only those whose schema is older than this code's
        #[arg(long)]
        behind: bool,
    },
    /// Show one laboratory with its administrators, latest events and operations
    Show {
        /// Slug or id
        tenant: TenantRef,
    },
    /// Bring laboratories to this code's schema version
    Migrate {
        /// Slugs or ids
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        tenants: Vec<TenantRef>,
        /// Every active or suspended laboratory that is not at this version yet
        #[arg(long)]
        all: bool,
    },
    /// Close a laboratory for its users; its data stay
    Suspend {
        /// Slug or id
        tenant: TenantRef,
        /// Why, for its history
        #[arg(long)]
        reason: Option<Reason>,
    },
    /// Open a suspended laboratory again
    Resume {
        /// Slug or id
        tenant: TenantRef,
        /// Why, for its history
        #[arg(long)]
        reason: Option<Reason>,
    },
    /// Close a laboratory, archive it, verify the archive, then remove it when the grace period is over
    #[command(
        after_help = "Until its database is dropped `tenantctl operations cancel` brings the laboratory back."
    )]
    Offboard {
        /// Slug or id
        tenant: TenantRef,
        /// How long it can be cancelled once the archive is verified, as 30d or 12h; otherwise as configured
        #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "now")]
        grace: Option<Duration>,
        /// Remove it as soon as the archive is verified; also ends a grace period that is running
        #[arg(long)]
        now: bool,
        /// Do not ask whether it is meant
        #[arg(long, conflicts_with = "now")]
        yes: bool,
        /// The slug typed again, which --now or a grace period under an hour needs where no terminal can ask
        /// for it
        #[arg(long, value_name = "SLUG")]
        confirm: Option<String>,
        /// Why, for its history
        #[arg(long)]
        reason: Option<Reason>,
        /// Leave the work to a running tenantd
        #[arg(long)]
        no_wait: bool,
    },
    /// Write all data of a laboratory into one archive of open formats, readable without this program
    #[command(
        after_help = "A ZIP of CSV files with their description (Data Package) and a manifest; passwords are left out. \
                      The laboratory may go on working: everything is read at one moment."
    )]
    Export {
        /// Slug or id
        tenant: TenantRef,
        /// The file to write; it must not be there yet
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// Why, for the audit
        #[arg(long)]
        reason: Option<Reason>,
    },
    /// Remove a laboratory from the registry whose database is gone already and whose archive is kept
    Forget {
        /// The laboratory's slug or id
        #[arg(value_name = "SLUG|ID")]
        tenant: TenantRef,
        /// The laboratory's slug typed once more
        #[arg(long, value_name = "SLUG")]
        confirm: String,
        /// Also where no archive of it is recorded: its data are lost then, and nothing can restore them
        #[arg(long)]
        without_archive: bool,
        /// Why, for the audit
        #[arg(long)]
        reason: Option<Reason>,
    },
    /// Look for what does not fit together in registry, servers and archives, and say what to do
    #[command(
        after_help = "Ends with 0 when nothing is wrong and with 3 when findings are left. Fixing never drops what may hold a \
                      laboratory's data and never lowers a recorded version."
    )]
    Doctor {
        /// Also open each laboratory's database, read its own migration history and who has rights there, and
        /// log in as its role
        #[arg(long)]
        deep: bool,
        /// Fix what is safe to fix
        #[arg(long)]
        fix: bool,
    },
    /// Archive a laboratory while it runs, or say how often that is to be done
    #[command(subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
    Backup(Backup),
    /// Make a laboratory out of an archive: the one that was removed, another beside it, or in place of what
    /// it holds
    Restore(Restore),
    /// Verified dumps of laboratories
    #[command(subcommand)]
    Archives(Archives),
    /// Durable changes: provision, adopt, migrate, back up, restore, offboard
    #[command(subcommand)]
    Operations(Operations),
    /// The platform's own staff, who use the admin API
    #[command(subcommand)]
    Operator(Operator),
    /// List log-ins that were refused, counted by hour, account and client; kept for 90 days
    Refusals {
        /// Only those of this laboratory
        #[arg(long, value_name = "SLUG|ID")]
        tenant: Option<TenantRef>,
        /// The most lines to list
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
        limit: u32,
    },
    /// Addresses to which events are sent
    #[command(subcommand)]
    Webhooks(Webhooks),
    /// What is configured
    #[command(subcommand)]
    Config(Config),
    /// Print a completion script for this shell
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Print versions of program and schemas
    Version,
}

#[derive(Debug, Args)]
pub(crate) struct Provision {
    /// Short name in URLs: 2 to 40 lower-case letters, digits and single hyphens, as acme-lab
    pub(crate) slug: model::Slug,
    /// The laboratory's name
    #[arg(long)]
    pub(crate) name: String,
    /// E-mail of its first administrator
    #[arg(long, value_name = "EMAIL")]
    pub(crate) admin_email: Email,
    /// The administrator's name; the part before the @ when left out
    #[arg(long, value_name = "NAME")]
    pub(crate) admin_name: Option<String>,
    /// Read the administrator's password from the first line of standard input. Otherwise it is
    /// TENANTRY_ADMIN_PASSWORD, is asked for on a terminal, or is generated and printed once
    #[arg(long)]
    pub(crate) admin_password_stdin: bool,
    /// Give no password: print a link, once, by which the administrator sets it
    #[arg(long, conflicts_with = "admin_password_stdin")]
    pub(crate) invite: bool,
    /// IANA time zone
    #[arg(long, default_value = "UTC", value_name = "ZONE")]
    pub(crate) time_zone: String,
    /// Server to host it; may be left out while only one is registered
    #[arg(long, value_parser = ServerName::parse)]
    pub(crate) server: Option<ServerName>,
    /// Leave the work to a running tenantd
    #[arg(long)]
    pub(crate) no_wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Backup {
    #[command(subcommand)]
    pub(crate) command: Option<BackupCommand>,
    /// Slug or id
    #[arg(required = true)]
    pub(crate) tenant: Option<TenantRef>,
    /// Why, for the audit
    #[arg(long)]
    pub(crate) reason: Option<Reason>,
    /// Leave the work to a running tenantd
    #[arg(long)]
    pub(crate) no_wait: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BackupCommand {
    /// Set, end or show one laboratory's schedule; a running tenantd makes the backups
    Schedule(SetSchedule),
    /// List all schedules
    Schedules,
}

#[derive(Debug, Args)]
pub(crate) struct SetSchedule {
    /// Slug or id
    pub(crate) tenant: TenantRef,
    /// How often, as 24h or 7d; the first one is made soon
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "off")]
    pub(crate) every: Option<Duration>,
    /// How many backups are kept at least
    #[arg(long, value_name = "COUNT", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) keep_last: u32,
    /// How long each is kept at least, as 30d
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "every")]
    pub(crate) keep_for: Option<Duration>,
    /// End the schedule; the archives stay
    #[arg(long)]
    pub(crate) off: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The archive's id, or its first digits
    pub(crate) archive: IdRef<ArchiveId>,
    /// As another laboratory with this slug, beside the one that lives
    #[arg(long, value_name = "SLUG", conflicts_with = "in_place")]
    pub(crate) r#as: Option<model::Slug>,
    /// In place of what its laboratory holds now, which is archived first
    #[arg(long)]
    pub(crate) in_place: bool,
    /// The slug typed again, which --in-place needs where no terminal can ask for it
    #[arg(long, value_name = "SLUG", requires = "in_place")]
    pub(crate) confirm: Option<String>,
    /// Server to host it; otherwise the one where it lived, or the only one
    #[arg(long, value_parser = ServerName::parse, conflicts_with = "in_place")]
    pub(crate) server: Option<ServerName>,
    /// Why, for its history
    #[arg(long)]
    pub(crate) reason: Option<Reason>,
    /// Leave the work to a running tenantd
    #[arg(long)]
    pub(crate) no_wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Adopt {
    /// The database; it keeps its name
    #[arg(long, value_name = "NAME", value_parser = database)]
    pub(crate) database: model::DbName,
    /// Short name in URLs: 2 to 40 lower-case letters, digits and single hyphens, as acme-lab
    #[arg(long)]
    pub(crate) slug: model::Slug,
    /// Server that has it; may be left out while only one is registered
    #[arg(long, value_parser = ServerName::parse)]
    pub(crate) server: Option<ServerName>,
    /// Schema version that it is at, where that cannot be told by what is there; it is checked
    #[arg(long, value_name = "N")]
    pub(crate) baseline: Option<u32>,
    /// The laboratory's name, where its database does not say
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// IANA time zone, where its database does not say
    #[arg(long, value_name = "ZONE")]
    pub(crate) time_zone: Option<String>,
    /// E-mail of its administrator; the longest serving lab_admin of its database when left out
    #[arg(long, value_name = "EMAIL")]
    pub(crate) admin_email: Option<Email>,
    /// The administrator's name, for one whom its database does not know; the part before the @ when left out
    #[arg(long, value_name = "NAME", requires = "admin_email")]
    pub(crate) admin_name: Option<String>,
    /// Give an administrator who has no password in its database a new one: the first line of standard input
    #[arg(long, requires = "admin_email")]
    pub(crate) admin_password_stdin: bool,
    /// Let an administrator who has no password in its database set one, by a link that is printed once
    #[arg(long, conflicts_with = "admin_password_stdin")]
    pub(crate) invite: bool,
    /// Leave the work to a running tenantd
    #[arg(long)]
    pub(crate) no_wait: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Archives {
    /// List archives, newest first
    List {
        /// Only those of this laboratory
        #[arg(long, value_name = "SLUG|ID")]
        tenant: Option<TenantRef>,
    },
    /// Show one archive with its manifest
    Show {
        /// The archive's id, or its first digits
        archive: IdRef<ArchiveId>,
    },
    /// Verify an archive once more: fetch it, restore it beside everything else, compare it with its manifest
    Verify {
        /// The archive's id, or its first digits
        archive: IdRef<ArchiveId>,
        /// Leave the work to a running tenantd
        #[arg(long)]
        no_wait: bool,
    },
    /// Take a dump and the manifest beside it into the registry, which does not know them: it is restored and
    /// compared first
    Import {
        /// The dump or its manifest: a path on this host, or a URL
        #[arg(value_name = "FILE|URL")]
        location: String,
        /// Leave the work to a running tenantd
        #[arg(long)]
        no_wait: bool,
    },
    /// Remove the backups that no schedule keeps any more
    Prune {
        /// Only those of this laboratory
        #[arg(long, value_name = "SLUG|ID")]
        tenant: Option<TenantRef>,
        /// Only say which
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Operations {
    /// List operations, newest first
    List {
        /// Only those on this laboratory
        #[arg(long, value_name = "SLUG|ID")]
        tenant: Option<TenantRef>,
        /// Only those in this status: pending, running, undoing, succeeded, failed or cancelled
        #[arg(long)]
        status: Option<OperationStatus>,
        /// Only those that have not ended
        #[arg(long)]
        live: bool,
        /// The most to list
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
        limit: u32,
    },
    /// Show one operation with its steps
    Show {
        /// The operation's id, its first digits, or a laboratory's slug for the one under way there, else its
        /// latest
        #[arg(value_name = "ID|SLUG")]
        operation: OperationRef,
    },
    /// Follow an operation to its end; one that no worker has is run here
    Watch {
        /// The operation's id, its first digits, or a laboratory's slug for the one under way there, else its
        /// latest
        #[arg(value_name = "ID|SLUG")]
        operation: OperationRef,
    },
    /// Call an operation off: what it made is taken away, what it closed is opened again
    Cancel {
        /// The operation's id, its first digits, or a laboratory's slug for the one under way there, else its
        /// latest
        #[arg(value_name = "ID|SLUG")]
        operation: OperationRef,
        /// Why, for the audit
        #[arg(long)]
        reason: Option<Reason>,
        /// Leave the work to a running tenantd
        #[arg(long)]
        no_wait: bool,
    },
    /// Run a failed operation once more; steps that are done stay done
    Retry {
        /// The operation's id, its first digits, or a laboratory's slug for the one under way there, else its
        /// latest
        #[arg(value_name = "ID|SLUG")]
        operation: OperationRef,
        /// Leave the work to a running tenantd
        #[arg(long)]
        no_wait: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Operator {
    /// Register a person
    Create {
        /// Log-in name
        #[arg(long)]
        email: Email,
        /// The person's name; the part before the @ when left out
        #[arg(long)]
        name: Option<String>,
        /// Read the password from the first line of standard input. Otherwise it is
        /// TENANTRY_OPERATOR_PASSWORD, is asked for on a terminal, or is generated and printed once
        #[arg(long)]
        password_stdin: bool,
    },
    /// List the people
    List,
    /// Give a person a new password
    SetPassword {
        /// Log-in name
        #[arg(value_parser = Email::known)]
        email: Email,
        /// Read the password from the first line of standard input. Otherwise it is
        /// TENANTRY_OPERATOR_PASSWORD, is asked for on a terminal, or is generated and printed once
        #[arg(long)]
        password_stdin: bool,
    },
    /// Refuse a person from now on, their tokens included
    Disable {
        /// Log-in name
        #[arg(value_parser = Email::known)]
        email: Email,
    },
    /// Let a person in again
    Enable {
        /// Log-in name
        #[arg(value_parser = Email::known)]
        email: Email,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Webhooks {
    /// Register an address; its secret is printed once
    Add {
        /// Where to: https://host/path, or http://…
        url: String,
        /// Only events of this type, as laboratory.suspended; may be given several times. All when left out
        #[arg(long = "event", value_name = "TYPE")]
        events: Vec<EventType>,
        /// What it is for
        #[arg(long, default_value = "")]
        description: String,
    },
    /// List the addresses
    List,
    /// Show one address with its latest deliveries
    Show {
        /// The address's id, or its first digits
        webhook: IdRef<WebhookId>,
    },
    /// Remove an address with what waits for it
    Remove {
        /// The address's id, or its first digits
        webhook: IdRef<WebhookId>,
    },
    /// Give an address a new secret, printed once; for a while the one before is valid too
    Rotate {
        /// The address's id, or its first digits
        webhook: IdRef<WebhookId>,
        /// How long the secret before is valid too, as 1d or 12h; at most 30d
        #[arg(long, value_name = "TIME", value_parser = duration, default_value = "1d")]
        overlap: Duration,
    },
    /// Switch an address on again; what waits for it is sent
    Enable {
        /// The address's id, or its first digits
        webhook: IdRef<WebhookId>,
    },
    /// Switch an address off; its events wait
    Disable {
        /// The address's id, or its first digits
        webhook: IdRef<WebhookId>,
        /// Why
        #[arg(long)]
        reason: Option<Reason>,
    },
    /// Send a webhook.test from here and say what came of it
    Test {
        /// The address's id, or its first digits
        webhook: IdRef<WebhookId>,
    },
    /// List deliveries, those of the newest events first
    Deliveries {
        /// Only those to this address
        #[arg(long)]
        webhook: Option<IdRef<WebhookId>>,
        /// Only those in this status: pending, delivered or failed
        #[arg(long)]
        status: Option<DeliveryStatus>,
        /// The most to list
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
        limit: u32,
    },
    /// Send an event once more, from here, and say what came of it
    Redeliver {
        /// The delivery's id, or its first digits
        delivery: IdRef<DeliveryId>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Print what is in force and where each value came from, secrets redacted
    Show,
    /// Print every key with its environment name, default and accepted values
    Keys {
        /// As a Markdown table
        #[arg(long, conflicts_with = "json")]
        markdown: bool,
    },
}
