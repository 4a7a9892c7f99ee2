use std::sync::Arc;

use lab::LabSeed;
use provisioner::{BoxError, SeedHook};

/// The first rows of a laboratory, as the provisioner wants them: profile and first staff member, by `lab`.
#[must_use]
pub fn seed_hook() -> SeedHook {
    Arc::new(|txn, seed| {
        Box::pin(async move {
            let rows = LabSeed {
                tenant: seed.tenant,
                name: seed.name.clone(),
                time_zone: seed.time_zone.clone(),
                admin_id: seed.admin_id,
                admin_email: seed.admin_email.clone(),
                admin_name: seed.admin_name.clone(),
            };
            lab::seed(txn, &rows).await.map_err(BoxError::from)
        })
    })
}
