use crate::word::words;

/// What a person does in the laboratory, and so what they may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Registers patients and orders, collects specimens.
    Receptionist,
    /// Receives specimens, enters and imports results.
    Technician,
    /// The pathologist: verifies, releases, amends.
    Supervisor,
    /// Keeps catalogue, ranges and staff; never verifies.
    LabAdmin,
}

words!(Role, "role", {
    Receptionist => "receptionist",
    Technician => "technician",
    Supervisor => "supervisor",
    LabAdmin => "lab_admin",
});
