//! What needs no server: settings, completions, versions.

use clap::CommandFactory as _;
use clap_complete::Shell;
use serde_json::json;
use settings::KEYS;

use crate::{
    cli::{Cli, Config, Global},
    context::settings,
    output::{Out, pairs, table},
};

pub(crate) fn run(global: &Global, out: &Out, what: &Config) -> anyhow::Result<()> {
    match what {
        Config::Show => show(global, out),
        Config::Keys { markdown: true } => out.answer(&settings::markdown_table()),
        Config::Keys { markdown: false } => keys(out),
    }
}

fn show(global: &Global, out: &Out) -> anyhow::Result<()> {
    let settings = settings(global)?;
    let explained = settings.explain();
    if out.json {
        return out.document(&json!({"file": settings.file, "settings": explained}));
    }
    let rows = explained.iter().map(|one| {
        let value = one
            .value
            .clone()
            .unwrap_or_else(|| one.unset_means.map_or_else(String::new, |m| format!("({m})")));
        vec![one.key.to_owned(), value, one.source.clone(), one.env.to_owned()]
    });
    out.answer(&table(&["KEY", "VALUE", "SOURCE", "ENVIRONMENT"], rows))
}

fn keys(out: &Out) -> anyhow::Result<()> {
    if out.json {
        let keys: Vec<_> = KEYS
            .iter()
            .map(|key| {
                json!({
                    "key": key.name,
                    "env": key.env,
                    "default": key.default_text(),
                    "accepts": key.accept.describe(),
                    "meaning": key.meaning,
                })
            })
            .collect();
        return out.document(&json!({"keys": keys}));
    }
    let rows = KEYS.iter().map(|key| {
        [
            key.name,
            key.env,
            &key.default_text(),
            &key.accept.describe(),
            key.meaning,
        ]
        .map(str::to_owned)
        .to_vec()
    });
    out.answer(&table(
        &["KEY", "ENVIRONMENT", "DEFAULT", "ACCEPTS", "MEANING"],
        rows,
    ))
}

pub(crate) fn completions(out: &Out, shell: Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tenantctl", &mut script);
    out.answer(&String::from_utf8_lossy(&script))
}

pub(crate) fn version(out: &Out) -> anyhow::Result<()> {
    let program = env!("CARGO_PKG_VERSION");
    let (registry, window) = (registry::latest(), migrator::window());
    if out.json {
        return out.document(&json!({
            "version": program,
            "registrySchema": registry,
            "tenantSchema": {"oldest": window.oldest, "newest": window.newest},
        }));
    }
    out.answer(&pairs([
        ("tenantctl", program.to_owned()),
        ("registry schema", registry.to_string()),
        (
            "tenant schemas served",
            format!("{} to {}", window.oldest, window.newest),
        ),
    ]))
}
