use std::fmt;

/// The version of a tenant's schema: the number of its newest applied migration. Zero is an empty database.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct SchemaVersion(u32);

impl SchemaVersion {
    /// The version with this number.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The bare number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for SchemaVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The oldest and newest tenant schema that this binary may serve, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionWindow {
    /// The oldest version whose shape the code still understands.
    pub oldest: SchemaVersion,
    /// The version that the code was written for.
    pub newest: SchemaVersion,
}

/// How a tenant's version lies to the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// It may be served.
    Inside,
    /// It must be migrated first.
    Behind,
    /// A newer binary has migrated it; this one must not touch it.
    Ahead,
}

impl VersionWindow {
    /// Where `version` lies.
    #[must_use]
    pub fn fit(self, version: SchemaVersion) -> Fit {
        if version < self.oldest {
            Fit::Behind
        } else if version > self.newest {
            Fit::Ahead
        } else {
            Fit::Inside
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_of_the_window_are_inside() {
        let window = VersionWindow {
            oldest: SchemaVersion::new(3),
            newest: SchemaVersion::new(5),
        };
        let fits = [2, 3, 4, 5, 6].map(|n| window.fit(SchemaVersion::new(n)));
        assert_eq!(
            fits,
            [Fit::Behind, Fit::Inside, Fit::Inside, Fit::Inside, Fit::Ahead]
        );
    }
}
