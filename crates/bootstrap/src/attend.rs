//! A serving process among others: it keeps the registry's time, says that it runs, and has what all must
//! have in common.
//!
//! Two slips show only under load or in an emergency: another key signs tokens on one of several hosts, so
//! that every other request is refused; or each host writes archives into a directory of its own, so that a
//! restore finds nothing. Both are looked for at the start, and by the doctor for as long as the processes
//! run.

use std::time::Duration;

use jiff::SignedDuration;
use registry::{Process, ProcessReport, Registry, RegistryClock, RegistryError};
use tokio::task::JoinHandle;

use crate::{Platform, PlatformError};

/// How often the registry's clock is asked and told that this process runs: a quarter of the time after which
/// it counts as gone.
const EVERY: Duration = Duration::from_secs(15);
/// How long that may take.
const LIMIT: Duration = Duration::from_secs(5);
/// From which offset on the machine's clock is worth a warning.
const OFFSET_MAX: SignedDuration = provisioner::CLOCK_OFFSET_MAX;

/// Goes on until it is dropped or ended.
#[derive(Debug)]
pub struct Attending {
    registry: Registry,
    name: String,
    task: JoinHandle<()>,
}

impl Drop for Attending {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Attending {
    /// Says that the process ends. Left out, the registry finds out within a minute.
    pub async fn end(self) {
        self.task.abort();
        let end = async |client: &_| registry::process_end(client, &self.name).await;
        if let Err(error) = self.registry.within(LIMIT, end).await {
            tracing::debug!(%error, "the registry does not record that this process ends");
        }
    }
}

/// Says that the process runs, and sets the clock by the answer.
async fn say(
    registry: &Registry,
    clock: &RegistryClock,
    report: &mut ProcessReport,
) -> Result<(), RegistryError> {
    let said = &*report;
    let say = async |client: &_| {
        let ask = async || registry::process_report(client, said).await;
        clock.measure_by(ask).await
    };
    let offset = registry.within(LIMIT, say).await?;
    report.clock_offset = offset;
    Ok(())
}

impl Platform {
    /// Says that this process runs and goes on saying so, after a look whether it has what the processes on
    /// other hosts have.
    ///
    /// # Errors
    /// [`PlatformError::OtherSigningKey`] when a process on another host signs tokens with another key;
    /// [`PlatformError::Registry`].
    pub async fn attend(&self) -> Result<Attending, PlatformError> {
        let mut report = ProcessReport {
            name: self.provisioner.owner().to_owned(),
            host: self.provisioner.host().to_owned(),
            signing_key: self.keys.signing_key().id(),
            archive_store: self.archive_store().await,
            clock_offset: self.clock.measure(&self.registry).await?,
        };
        let others = registry::processes_list(&self.registry.client().await?).await?;
        self.compare(&report, &others)?;
        say(&self.registry, &self.clock, &mut report).await?;
        let (registry, clock, name) = (self.registry.clone(), self.clock.clone(), report.name.clone());
        let task = tokio::spawn(async move {
            let mut warned = false;
            loop {
                tokio::time::sleep(EVERY).await;
                if let Err(error) = say(&registry, &clock, &mut report).await {
                    tracing::debug!(%error, "the registry does not record that this process runs; trying again");
                }
                let off = report.clock_offset.abs() > OFFSET_MAX;
                if off && !warned {
                    tracing::warn!(
                        offset_ms = i64::try_from(report.clock_offset.as_millis()).unwrap_or(i64::MAX),
                        "this machine's clock and the registry's differ; the registry's is used. Is time \
                         synchronisation running on both?"
                    );
                }
                warned = off;
            }
        });
        Ok(Attending {
            registry: self.registry.clone(),
            name,
            task,
        })
    }

    /// What tells whether another host writes archives into the same store.
    async fn archive_store(&self) -> String {
        let identity = async {
            Ok::<_, provisioner::ProvisionError>(self.provisioner.archive_store()?.identity().await?)
        };
        identity.await.unwrap_or_else(|error| {
            tracing::warn!(%error, "archives cannot be written where they should go");
            format!("unreadable on {}", self.provisioner.host())
        })
    }

    fn compare(&self, own: &ProcessReport, others: &[Process]) -> Result<(), PlatformError> {
        for other in others.iter().map(|process| &process.report) {
            if other.host == own.host {
                continue;
            }
            if other.signing_key != own.signing_key {
                return Err(PlatformError::OtherSigningKey {
                    host: other.host.clone(),
                    theirs: other.signing_key.clone(),
                    own: own.signing_key.clone(),
                    keys: self.keys_dir.clone(),
                });
            }
            if other.archive_store != own.archive_store {
                tracing::warn!(
                    host = other.host,
                    theirs = other.archive_store,
                    own = own.archive_store,
                    "another host writes archives into another store, so neither can restore what the other \
                     wrote; set archive.url (TENANTRY_ARCHIVE_URL) on both to one store, or mount one \
                     directory on both"
                );
            }
        }
        Ok(())
    }
}
