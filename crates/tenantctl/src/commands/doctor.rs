//! The whole fleet looked through, and fixed where that is safe.

use provisioner::{Finding, Report};

use crate::{
    context::Context,
    outcome::{Refusal, count, role_creators_note},
    output::{pairs, table},
};

pub(crate) async fn run(context: &Context, deep: bool, fix: bool) -> anyhow::Result<()> {
    let provisioner = &context.platform.provisioner;
    let report = if fix {
        provisioner.fix(deep, context.requested_by(None)).await?
    } else {
        provisioner.examine(deep).await?
    };
    if context.out.json {
        context.out.document(&report)?;
    } else {
        context.out.answer(&text(&report))?;
        context.out.note(&looked_at(&report));
        if let Some(counts) = counted(&report, fix) {
            context.out.note(&counts);
        }
        if !report.role_creators.is_empty() {
            let roles = report.role_creators.iter().map(|creator| creator.role.as_str());
            context.out.note(&role_creators_note(roles));
        }
        if !report.reachable.is_empty() {
            let names: Vec<String> = report
                .reachable
                .iter()
                .map(|reachable| format!("{} on {}", reachable.open, reachable.server))
                .collect();
            context.out.note(&format!(
                "every laboratory's role can connect to {}: they are open to every role",
                names.join(", ")
            ));
        }
        if !fix && report.findings.iter().any(|finding| finding.fixable) {
            context
                .out
                .note("`tenantctl doctor --fix` fixes those marked with *");
        }
    }
    match report.left() {
        0 => Ok(()),
        left => Err(Refusal::Findings(left).into()),
    }
}

fn looked_at(report: &Report) -> String {
    let seen = &report.examined;
    let parts = [
        count(seen.servers, "server", "servers"),
        count(seen.laboratories, "laboratory", "laboratories"),
        count(seen.databases, "database", "databases"),
        count(seen.roles, "role", "roles"),
        count(seen.operations, "operation under way", "operations under way"),
        count(seen.archives, "archive", "archives"),
        count(seen.histories, "migration history", "migration histories"),
    ];
    format!("looked at {} in {} ms", parts.join(", "), report.took_ms)
}

/// How many findings there were, and what came of them.
fn counted(report: &Report, fix: bool) -> Option<String> {
    let found = report.findings.len();
    let counted = count(found, "finding", "findings");
    match (found, fix) {
        (0, _) => None,
        (_, false) => Some(counted),
        (_, true) => Some(format!(
            "{counted}, {} fixed, {} left",
            report.fixed(),
            report.left()
        )),
    }
}

/// A table of what was found, then each finding with what to do.
fn text(report: &Report) -> String {
    if report.findings.is_empty() {
        return "nothing is wrong".to_owned();
    }
    let rows = report.findings.iter().map(|finding| {
        vec![
            finding.severity.as_str().to_owned(),
            finding.kind.as_str().to_owned(),
            finding
                .server
                .as_ref()
                .map_or_else(|| "-".to_owned(), ToString::to_string),
            finding.subject.clone(),
            state(finding).to_owned(),
        ]
    });
    let head = table(&["SEVERITY", "KIND", "SERVER", "SUBJECT", ""], rows);
    let details = report
        .findings
        .iter()
        .filter(|finding| !finding.fixed)
        .map(|finding| {
            let mut lines = vec![("seen", finding.seen.clone()), ("to do", finding.advice.clone())];
            if let Some(why) = &finding.not_fixed {
                lines.push(("not fixed", why.clone()));
            }
            format!("{} {}\n{}", finding.kind.as_str(), finding.subject, pairs(lines))
        });
    let details: Vec<String> = details.collect();
    if details.is_empty() {
        return head;
    }
    format!("{head}\n\n{}", details.join("\n\n"))
}

fn state(finding: &Finding) -> &'static str {
    match (finding.fixed, finding.not_fixed.is_some(), finding.fixable) {
        (true, _, _) => "fixed",
        (false, true, _) => "not fixed",
        (false, false, true) => "*",
        (false, false, false) => "",
    }
}
