//! The processes that serve: what all of them must have in common, and whether their hosts' clocks are right.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use registry::{Process, ProcessReport};

use super::finding::{Finding, FindingKind};
use crate::{CLOCK_OFFSET_MAX, Inner, ProvisionError};

/// What is wrong with the processes that run, and with the clock of this one.
pub(super) async fn findings(inner: &Inner) -> Result<Vec<Finding>, ProvisionError> {
    let config = &inner.config;
    let own = config.clock.measure(&config.registry).await?;
    let client = config.registry.client().await?;
    let running = registry::processes_list(&client).await?;
    drop(client);
    let mut found = clocks(&inner.host, own, &running);
    found.extend(differing(&running));
    Ok(found)
}

/// The largest offset of each host.
fn clocks(own_host: &str, own: SignedDuration, running: &[Process]) -> Vec<Finding> {
    let mut by_host = BTreeMap::from([(own_host, own)]);
    for ProcessReport {
        host, clock_offset, ..
    } in running.iter().map(|process| &process.report)
    {
        let known = by_host.entry(host).or_insert(*clock_offset);
        if clock_offset.abs() > known.abs() {
            *known = *clock_offset;
        }
    }
    let off = by_host
        .into_iter()
        .filter(|(_, offset)| offset.abs() > CLOCK_OFFSET_MAX);
    let found = off.map(|(host, offset)| {
        let direction = if offset.is_negative() {
            "behind"
        } else {
            "ahead of"
        };
        let seconds = offset.abs().as_secs();
        let seen = format!("the clock of host {host} is {seconds} s {direction} the registry's");
        let advice = "see to it that time synchronisation (NTP) runs there and on the registry's host; \
                      Tenantry itself goes by the registry's clock, but logs, other programs and people do \
                      not";
        Finding::new(FindingKind::ClockOffset, host, seen, advice)
    });
    found.collect()
}

/// Hosts that do not have in common what they must.
fn differing(running: &[Process]) -> Vec<Finding> {
    let hosts_by = |of: fn(&ProcessReport) -> &String| {
        let mut hosts: BTreeMap<&String, BTreeSet<&str>> = BTreeMap::new();
        for report in running.iter().map(|process| &process.report) {
            hosts.entry(of(report)).or_default().insert(&report.host);
        }
        hosts
    };
    let listed = |by: &BTreeMap<&String, BTreeSet<&str>>| {
        let parts = by.iter().map(|(what, hosts)| {
            let hosts: Vec<&str> = hosts.iter().copied().collect();
            format!("{what} on {}", hosts.join(", "))
        });
        parts.collect::<Vec<_>>().join("; ")
    };
    let mut found = Vec::new();
    let keys = hosts_by(|report| &report.signing_key);
    if keys.len() > 1 {
        let seen = format!(
            "processes that run sign tokens with different keys: {}",
            listed(&keys)
        );
        let advice = "copy both files of `keys` in the state directory from one host to the others and \
                      restart tenantd there: each process refuses the tokens that another key signed";
        found.push(Finding::new(
            FindingKind::SigningKeysDiffer,
            "processes",
            seen,
            advice,
        ));
    }
    let stores = hosts_by(|report| &report.archive_store);
    let hosts: BTreeSet<&str> = stores.values().flatten().copied().collect();
    if stores.len() > 1 && hosts.len() > 1 {
        let seen = format!("hosts write archives into different stores: {}", listed(&stores));
        let advice = "set archive.url (TENANTRY_ARCHIVE_URL) on all hosts to one object store, or mount one \
                      directory on all of them as archive.dir: what one host wrote cannot be restored on \
                      another";
        found.push(Finding::new(
            FindingKind::ArchiveStoresDiffer,
            "archives",
            seen,
            advice,
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn process(host: &str, signing_key: &str, archive_store: &str, offset_s: i64) -> Process {
        Process {
            report: ProcessReport {
                name: format!("{host}:1:0"),
                host: host.to_owned(),
                signing_key: signing_key.to_owned(),
                archive_store: archive_store.to_owned(),
                clock_offset: SignedDuration::from_secs(offset_s),
            },
            seen_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn what_differs_between_hosts_and_clocks_that_are_off_are_named() {
        let well = [process("a", "k", "s3://x", 1), process("b", "k", "s3://x", -2)];
        assert!(differing(&well).is_empty());
        assert!(clocks("a", SignedDuration::ZERO, &well).is_empty());
        let ill = [
            process("a", "k", "directory 1", 0),
            process("b", "l", "directory 2", -90),
            process("b", "l", "directory 2", 3),
        ];
        let kinds: Vec<_> = differing(&ill).iter().map(|finding| finding.kind).collect();
        assert_eq!(
            kinds,
            [FindingKind::SigningKeysDiffer, FindingKind::ArchiveStoresDiffer]
        );
        let off = clocks("c", SignedDuration::from_hours(40 * 24), &ill);
        let said: Vec<_> = off
            .iter()
            .map(|f| (f.subject.as_str(), f.seen.as_str()))
            .collect();
        assert_eq!(
            said,
            [
                ("b", "the clock of host b is 90 s behind the registry's"),
                ("c", "the clock of host c is 3456000 s ahead of the registry's"),
            ]
        );
    }
}
