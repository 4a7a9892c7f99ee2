//! Who may do what. One pure table; the server asks it for every route.

use model::Role;

/// Something a person may want to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Register a patient.
    PatientCreate,
    /// Find and read patients.
    PatientRead,
    /// Change a patient's data.
    PatientChange,
    /// Point a duplicate to the patient who lives on.
    PatientMerge,
    /// Order tests.
    OrderCreate,
    /// Read orders and specimens.
    OrderRead,
    /// Add tests to an order, or cancel it.
    OrderChange,
    /// Record that a specimen was drawn.
    SpecimenCollect,
    /// Receive, reject or dispose of a specimen.
    SpecimenHandle,
    /// Correct when specimens were collected and received.
    SpecimenCorrect,
    /// Read the worklist.
    WorklistRead,
    /// Enter a value.
    ResultEnter,
    /// Send a value back to the bench.
    ResultRepeat,
    /// Record the notice of a critical value.
    CriticalNotice,
    /// Verify entered values.
    ResultVerify,
    /// Release verified values.
    ResultRelease,
    /// Amend a released result, or verify such an amendment.
    ResultAmend,
    /// Withdraw a released result.
    ResultVoid,
    /// Read a result's history or an order's report.
    ReportRead,
    /// Import a file, and read imports.
    Import,
    /// Export released results.
    Export,
    /// Take a copy of everything.
    ExportAll,
    /// Read tests and ranges.
    CatalogueRead,
    /// Add and change tests and ranges.
    CatalogueChange,
    /// Read the staff list.
    StaffRead,
    /// Add and change staff.
    StaffChange,
    /// Read the audit trail.
    AuditRead,
    /// Read and change the laboratory's settings.
    ProfileChange,
}

impl Action {
    /// Everything that can be wanted.
    pub const ALL: &'static [Self] = &[
        Self::PatientCreate,
        Self::PatientRead,
        Self::PatientChange,
        Self::PatientMerge,
        Self::OrderCreate,
        Self::OrderRead,
        Self::OrderChange,
        Self::SpecimenCollect,
        Self::SpecimenHandle,
        Self::SpecimenCorrect,
        Self::WorklistRead,
        Self::ResultEnter,
        Self::ResultRepeat,
        Self::CriticalNotice,
        Self::ResultVerify,
        Self::ResultRelease,
        Self::ResultAmend,
        Self::ResultVoid,
        Self::ReportRead,
        Self::Import,
        Self::Export,
        Self::ExportAll,
        Self::CatalogueRead,
        Self::CatalogueChange,
        Self::StaffRead,
        Self::StaffChange,
        Self::AuditRead,
        Self::ProfileChange,
    ];
}

/// Whether people in `role` may do `action`.
#[must_use]
pub const fn may(role: Role, action: Action) -> bool {
    use Role::{LabAdmin, Receptionist, Supervisor, Technician};
    match action {
        // Nobody can order without seeing what can be ordered, nor judge a value without its range.
        Action::PatientRead | Action::CatalogueRead => true,
        Action::PatientCreate => matches!(role, Receptionist | Supervisor | LabAdmin),
        Action::PatientChange => matches!(role, Receptionist | LabAdmin),
        Action::OrderCreate | Action::SpecimenCollect => matches!(role, Receptionist | Technician),
        Action::OrderRead | Action::OrderChange => matches!(role, Receptionist | Technician | Supervisor),
        Action::SpecimenHandle | Action::ResultEnter | Action::Import => matches!(role, Technician),
        Action::SpecimenCorrect
        | Action::WorklistRead
        | Action::ResultRepeat
        | Action::CriticalNotice
        | Action::ReportRead => matches!(role, Technician | Supervisor),
        Action::PatientMerge
        | Action::ResultVerify
        | Action::ResultRelease
        | Action::ResultAmend
        | Action::ResultVoid => matches!(role, Supervisor),
        Action::Export | Action::AuditRead => matches!(role, Supervisor | LabAdmin),
        Action::ExportAll
        | Action::CatalogueChange
        | Action::StaffRead
        | Action::StaffChange
        | Action::ProfileChange => {
            matches!(role, LabAdmin)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole table as letters, written apart from the code above.
    #[test]
    fn the_whole_table() {
        let table = [
            (Action::PatientCreate, "R-SA"),
            (Action::PatientRead, "RTSA"),
            (Action::PatientChange, "R--A"),
            (Action::PatientMerge, "--S-"),
            (Action::OrderCreate, "RT--"),
            (Action::OrderRead, "RTS-"),
            (Action::OrderChange, "RTS-"),
            (Action::SpecimenCollect, "RT--"),
            (Action::SpecimenHandle, "-T--"),
            (Action::SpecimenCorrect, "-TS-"),
            (Action::WorklistRead, "-TS-"),
            (Action::ResultEnter, "-T--"),
            (Action::ResultRepeat, "-TS-"),
            (Action::CriticalNotice, "-TS-"),
            (Action::ResultVerify, "--S-"),
            (Action::ResultRelease, "--S-"),
            (Action::ResultAmend, "--S-"),
            (Action::ResultVoid, "--S-"),
            (Action::ReportRead, "-TS-"),
            (Action::Import, "-T--"),
            (Action::Export, "--SA"),
            (Action::ExportAll, "---A"),
            (Action::CatalogueRead, "RTSA"),
            (Action::CatalogueChange, "---A"),
            (Action::StaffRead, "---A"),
            (Action::StaffChange, "---A"),
            (Action::AuditRead, "--SA"),
            (Action::ProfileChange, "---A"),
        ];
        assert_eq!(table.map(|(action, _)| action), Action::ALL);
        for (action, letters) in table {
            let roles = [
                (Role::Receptionist, 'R'),
                (Role::Technician, 'T'),
                (Role::Supervisor, 'S'),
                (Role::LabAdmin, 'A'),
            ];
            let got: String = roles
                .map(|(role, letter)| if may(role, action) { letter } else { '-' })
                .iter()
                .collect();
            assert_eq!(got, letters, "{action:?}");
        }
    }
}
