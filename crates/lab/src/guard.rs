//! The rules that the database itself refuses to break, by the SQLSTATE it raises (declared in
//! `migrations-tenant/`, most in `V1__laboratory_and_staff.sql`; a test compares the two lists).

/// One rule of the database's guards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// LAB01: rows of this table are never removed, or never changed once written.
    Kept,
    /// LAB02: the state does not allow this step.
    Step,
    /// LAB03: a value, range, flag or signature changed in a step that must leave it alone.
    Silent,
    /// LAB04: a reason is required.
    Reason,
    /// LAB05: a row cannot move to another patient, order, test or laboratory.
    Moved,
    /// LAB06: an amendment needs an entry and a verification of its own.
    Amendment,
    /// LAB07: a row must begin in its first state, empty.
    Beginning,
    /// LAB08: the person who entered a value cannot verify it.
    SelfVerification,
    /// LAB09: a critical value needs a recorded notice before it is released.
    CriticalNotice,
    /// LAB10: a value needs a received specimen.
    Specimen,
    /// LAB11: something that the step needs is missing.
    Missing,
    /// LAB12: a text is not in the form in which it is compared.
    Form,
    /// LAB13: a time that cannot be: in the future, or before the birth or the value it belongs to.
    Time,
    /// LAB14: the evaluation of a value no longer follows from the data.
    Evaluation,
    /// LAB15: the value does not fit its test: its kind or its unit.
    Fit,
    /// LAB16: a range overlaps another one for the same sex, or does not begin now.
    Overlap,
    /// LAB17: the critical mark of a waiting value was lifted: a notice or a confirmation is needed.
    Lifted,
    /// LAB18: closing a range would leave people without a critical limit.
    LimitsLost,
    /// LAB19: a file contradicts the value: it must be repeated or replaced, or confirmed.
    Contradicted,
}

impl Guard {
    /// Every rule.
    pub const ALL: &'static [Self] = &[
        Self::Kept,
        Self::Step,
        Self::Silent,
        Self::Reason,
        Self::Moved,
        Self::Amendment,
        Self::Beginning,
        Self::SelfVerification,
        Self::CriticalNotice,
        Self::Specimen,
        Self::Missing,
        Self::Form,
        Self::Time,
        Self::Evaluation,
        Self::Fit,
        Self::Overlap,
        Self::Lifted,
        Self::LimitsLost,
        Self::Contradicted,
    ];

    /// The SQLSTATE that the database raises for it.
    #[must_use]
    pub const fn sqlstate(self) -> &'static str {
        match self {
            Self::Kept => "LAB01",
            Self::Step => "LAB02",
            Self::Silent => "LAB03",
            Self::Reason => "LAB04",
            Self::Moved => "LAB05",
            Self::Amendment => "LAB06",
            Self::Beginning => "LAB07",
            Self::SelfVerification => "LAB08",
            Self::CriticalNotice => "LAB09",
            Self::Specimen => "LAB10",
            Self::Missing => "LAB11",
            Self::Form => "LAB12",
            Self::Time => "LAB13",
            Self::Evaluation => "LAB14",
            Self::Fit => "LAB15",
            Self::Overlap => "LAB16",
            Self::Lifted => "LAB17",
            Self::LimitsLost => "LAB18",
            Self::Contradicted => "LAB19",
        }
    }

    /// The rule behind a SQLSTATE, if it is one of ours.
    #[must_use]
    pub fn of(sqlstate: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|guard| guard.sqlstate() == sqlstate)
    }
}
