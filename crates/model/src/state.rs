//! A tenant's life: which event leads from which state to which. Every change of a tenant's status goes
//! through [`TenantState::on`].

use crate::word::words;

/// Where a laboratory stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TenantState {
    /// Being made; it cannot be used yet.
    Provisioning,
    /// In service.
    Active,
    /// Closed for its users, kept whole.
    Suspended,
    /// On its way out: fenced, then archived, then dropped.
    Deleting,
    /// Closed while an archive takes the place of what it holds.
    Restoring,
}

words!(TenantState, "tenant state", {
    Provisioning => "provisioning",
    Active => "active",
    Suspended => "suspended",
    Deleting => "deleting",
    Restoring => "restoring",
});

/// What can happen to a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TenantEvent {
    /// The last step of provisioning: everything exists and was checked.
    Provisioned,
    /// Provisioning failed for good and left nothing behind.
    ProvisionUndone,
    /// Ops close the laboratory.
    Suspend,
    /// Ops open it again.
    Resume,
    /// Ops ask for it to be removed.
    Offboard,
    /// The removal is cancelled; the state before it returns.
    CancelOffboard {
        /// The state that `Offboard` left.
        before: TenantState,
    },
    /// Its database is archived and gone; the row goes too.
    OffboardFinished,
    /// Ops ask for an archive to take the place of what it holds.
    RestoreInPlace,
    /// The restore in place is over, one way or the other; the state before it returns.
    RestoreFinished {
        /// The state that `RestoreInPlace` left.
        before: TenantState,
    },
}

/// An event that does not fit the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a laboratory that is {from} cannot be {}", verb(*.event))]
pub struct IllegalTransition {
    /// The state it is in.
    pub from: TenantState,
    /// What was asked of it.
    pub event: TenantEvent,
}

fn verb(event: TenantEvent) -> &'static str {
    match event {
        TenantEvent::Provisioned => "activated",
        TenantEvent::ProvisionUndone => "undone",
        TenantEvent::Suspend => "suspended",
        TenantEvent::Resume => "resumed",
        TenantEvent::Offboard => "offboarded",
        TenantEvent::CancelOffboard { .. } => "brought back from offboarding",
        TenantEvent::OffboardFinished => "removed",
        TenantEvent::RestoreInPlace => "restored in place",
        TenantEvent::RestoreFinished { .. } => "opened again behind a restore",
    }
}

impl TenantState {
    /// The state after `event`; `None` when the tenant's row goes.
    ///
    /// # Errors
    /// [`IllegalTransition`] when the event does not fit this state.
    pub fn on(self, event: TenantEvent) -> Result<Option<Self>, IllegalTransition> {
        use TenantEvent as E;
        match (self, event) {
            (Self::Provisioning, E::Provisioned) | (Self::Suspended, E::Resume) => Ok(Some(Self::Active)),
            (Self::Active, E::Suspend) => Ok(Some(Self::Suspended)),
            (Self::Active | Self::Suspended, E::Offboard) => Ok(Some(Self::Deleting)),
            (Self::Active | Self::Suspended, E::RestoreInPlace) => Ok(Some(Self::Restoring)),
            (
                Self::Deleting,
                E::CancelOffboard {
                    before: before @ (Self::Active | Self::Suspended),
                },
            )
            | (
                Self::Restoring,
                E::RestoreFinished {
                    before: before @ (Self::Active | Self::Suspended),
                },
            ) => Ok(Some(before)),
            (Self::Provisioning, E::ProvisionUndone) | (Self::Deleting, E::OffboardFinished) => Ok(None),
            (from, event) => Err(IllegalTransition { from, event }),
        }
    }

    /// Whether the state remembers the one before it, to which it leads back.
    #[must_use]
    pub fn remembers(self) -> bool {
        matches!(self, Self::Deleting | Self::Restoring)
    }

    /// Those in which a laboratory has a database and must be closed on its server too.
    pub const CLOSED: &[Self] = &[Self::Suspended, Self::Deleting, Self::Restoring];

    /// Whether requests of the laboratory's staff are served.
    #[must_use]
    pub fn serves(self) -> bool {
        self == Self::Active
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every pair of state and event: what is not listed as allowed is refused.
    #[test]
    fn the_whole_table() {
        use TenantEvent as E;
        use TenantState as S;
        let events = [
            E::Provisioned,
            E::ProvisionUndone,
            E::Suspend,
            E::Resume,
            E::Offboard,
            E::CancelOffboard { before: S::Active },
            E::CancelOffboard { before: S::Suspended },
            E::CancelOffboard {
                before: S::Provisioning,
            },
            E::CancelOffboard { before: S::Deleting },
            E::OffboardFinished,
            E::RestoreInPlace,
            E::RestoreFinished { before: S::Active },
            E::RestoreFinished { before: S::Suspended },
            E::RestoreFinished { before: S::Restoring },
        ];
        let allowed = [
            (S::Provisioning, E::Provisioned, Some(S::Active)),
            (S::Provisioning, E::ProvisionUndone, None),
            (S::Active, E::Suspend, Some(S::Suspended)),
            (S::Active, E::Offboard, Some(S::Deleting)),
            (S::Suspended, E::Resume, Some(S::Active)),
            (S::Suspended, E::Offboard, Some(S::Deleting)),
            (
                S::Deleting,
                E::CancelOffboard { before: S::Active },
                Some(S::Active),
            ),
            (
                S::Deleting,
                E::CancelOffboard { before: S::Suspended },
                Some(S::Suspended),
            ),
            (S::Deleting, E::OffboardFinished, None),
            (S::Active, E::RestoreInPlace, Some(S::Restoring)),
            (S::Suspended, E::RestoreInPlace, Some(S::Restoring)),
            (
                S::Restoring,
                E::RestoreFinished { before: S::Active },
                Some(S::Active),
            ),
            (
                S::Restoring,
                E::RestoreFinished { before: S::Suspended },
                Some(S::Suspended),
            ),
        ];
        for &from in S::ALL {
            for event in events {
                let expected = allowed
                    .iter()
                    .find(|(f, e, _)| (*f, *e) == (from, event))
                    .map(|(_, _, to)| *to);
                assert_eq!(from.on(event).ok(), expected, "{from:?} on {event:?}");
            }
        }
    }

    #[test]
    fn words_round_trip_and_a_wrong_one_names_the_accepted() {
        for &state in TenantState::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
        }
        let message = "sleeping".parse::<TenantState>().unwrap_err().to_string();
        assert!(
            message.contains("provisioning, active, suspended, deleting, restoring"),
            "{message}"
        );
    }
}
