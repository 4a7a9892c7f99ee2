use rand::{RngExt as _, rngs::StdRng};

/// What a round kills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KillTarget {
    First,
    Second,
    Both,
    Postgres,
    Nobody,
}

impl KillTarget {
    pub(crate) fn choose(rng: &mut StdRng) -> Self {
        match rng.random_range(0..20) {
            0..7 => Self::First,
            7..14 => Self::Second,
            14..17 => Self::Both,
            17..19 => Self::Postgres,
            _ => Self::Nobody,
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::First | Self::Second => "one tenantd",
            Self::Both => "both tenantd",
            Self::Postgres => "postgres",
            Self::Nobody => "nobody",
        }
    }
}
