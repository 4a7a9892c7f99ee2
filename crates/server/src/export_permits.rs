//! The right to export a whole laboratory: each export holds a connection and a part of a processor for as
//! long as its client reads, which may be an hour.
//!
//! Invariant: at most [`EXPORTS_MAX`] run in this process, and one of each laboratory: the slow readers of
//! one take no place that another's could have. Counting lives in this process alone: several copies of
//! `tenantd` each allow their own share, also of the same laboratory, and `tenantctl export` takes no turn.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use model::TenantId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::problem::{ApiResult, Kind, Problem};

/// How many whole laboratories one `tenantd` exports at once.
pub const EXPORTS_MAX: usize = 2;
/// When it is worth asking again.
const RETRY_AFTER_S: u32 = 60;

/// The exports of one process.
#[derive(Debug, Clone)]
pub struct ExportPermits {
    places: Arc<Semaphore>,
    under_way: Arc<Mutex<HashSet<TenantId>>>,
}

impl Default for ExportPermits {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(EXPORTS_MAX)),
            under_way: Arc::default(),
        }
    }
}

/// The right to export one laboratory, until it is dropped.
#[derive(Debug)]
pub struct ExportPermit {
    of: ExportPermits,
    tenant: TenantId,
    _place: OwnedSemaphorePermit,
}

impl ExportPermits {
    /// Takes the right.
    ///
    /// # Errors
    /// 409 while this laboratory is being exported, 503 while as many others are as may be; both say when to
    /// ask again.
    pub fn begin(&self, tenant: TenantId) -> ApiResult<ExportPermit> {
        let mut under_way = self.under_way();
        if under_way.contains(&tenant) {
            return Err(Problem::new(Kind::ExportInProgress).retry_after_s(RETRY_AFTER_S));
        }
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| Problem::new(Kind::Busy).retry_after_s(RETRY_AFTER_S))?;
        under_way.insert(tenant);
        Ok(ExportPermit {
            of: self.clone(),
            tenant,
            _place: place,
        })
    }

    fn under_way(&self) -> MutexGuard<'_, HashSet<TenantId>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ExportPermit {
    fn drop(&mut self) {
        self.of.under_way().remove(&self.tenant);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_laboratory_has_one_turn_and_two_have_all_places() {
        let exports = ExportPermits::default();
        let [a, b, c] = [(); 3].map(|()| TenantId::generate());
        let first = exports.begin(a).unwrap();
        assert_eq!(exports.begin(a).unwrap_err().kind(), Kind::ExportInProgress);
        let second = exports.begin(b).unwrap();
        assert_eq!(exports.begin(c).unwrap_err().kind(), Kind::Busy);
        // Refused for want of a place, it is not taken for one under way.
        drop(second);
        let third = exports.begin(c).unwrap();
        drop(first);
        let _again = exports.begin(a).unwrap();
        assert_eq!(exports.begin(b).unwrap_err().kind(), Kind::Busy);
        drop(third);
    }
}
