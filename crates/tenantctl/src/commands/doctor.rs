//! The whole fleet looked through, and mended where that is safe.

use provisioner::{Finding, Report};

use crate::{
    context::Context,
    outcome::Refusal,
    output::{pairs, table},
};

pub(crate) async fn run(context: &Context, deep: bool, fix: bool) -> anyhow::Result<()> {
    let provisioner = &context.platform.provisioner;
    let report = if fix {
        provisioner.mend(deep, context.requested_by(None)).await?
    } else {
        provisioner.examine(deep).await?
    };
    if context.out.json {
        context.out.document(&report)?;
    } else {
        context.out.answer(&text(&report))?;
        context.out.note(&looked_at(&report));
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
        if !fix && report.findings.iter().any(|finding| finding.mendable) {
            context
                .out
                .note("`tenantctl doctor --fix` mends those marked with *");
        }
    }
    match report.left() {
        0 => Ok(()),
        left => Err(Refusal::Findings(left).into()),
    }
}

fn looked_at(report: &Report) -> String {
    let seen = &report.examined;
    format!(
        "looked at {} servers, {} laboratories, {} databases, {} roles, {} operations under way, {} archives, {} migration \
         histories in {} ms",
        seen.servers,
        seen.laboratories,
        seen.databases,
        seen.roles,
        seen.operations,
        seen.archives,
        seen.histories,
        report.took_ms
    )
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
        .filter(|finding| !finding.mended)
        .map(|finding| {
            let mut lines = vec![("seen", finding.seen.clone()), ("to do", finding.advice.clone())];
            if let Some(why) = &finding.not_mended {
                lines.push(("not mended", why.clone()));
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
    match (finding.mended, finding.not_mended.is_some(), finding.mendable) {
        (true, _, _) => "mended",
        (false, true, _) => "not mended",
        (false, false, true) => "*",
        (false, false, false) => "",
    }
}
