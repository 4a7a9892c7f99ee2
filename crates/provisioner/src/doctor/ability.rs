//! What operations need whichever laboratory they are asked for: they are refused before they change
//! anything, and here it shows before anybody asks.

use super::{
    Visit,
    finding::{Finding, FindingKind},
};
use crate::{Inner, preconditions::locked_out_itself};

/// Client programs that do not fit a server, an administrator without the rights, and a store that takes no
/// archives. A server that stops answering meanwhile is reported by its other findings.
pub(super) async fn findings(inner: &Inner, visits: &[Visit]) -> Vec<Finding> {
    let mut found = Vec::new();
    for visit in visits {
        if let Ok(Some(seen)) = inner.unfit_programs(&visit.session).await {
            let subject = visit.session.target.to_string();
            let advice = "until then no laboratory on this server can be backed up, restored or removed by \
                          this process";
            found.push(Finding::new(FindingKind::ClientPrograms, subject, seen, advice).on(&visit.server));
        }
        if let Ok(Some(seen)) = locked_out_itself(&visit.session).await {
            let subject = visit.session.target.to_string();
            let advice = "until then no laboratory on this server can be removed or restored in place";
            found.push(
                Finding::new(FindingKind::AdministratorRights, subject, seen, advice).on(&visit.server),
            );
        }
    }
    if let Err(error) = inner.writable_store().await {
        let options = &inner.config.archive;
        let location = options.url.clone();
        let location = location.unwrap_or_else(|| inner.config.archive_dir.to_string_lossy().into_owned());
        let advice = "until then no laboratory can be backed up or removed by this process";
        found.push(Finding::new(
            FindingKind::ArchiveStore,
            location,
            error.to_string(),
            advice,
        ));
    }
    found
}
