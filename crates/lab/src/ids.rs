//! Ids of the laboratory's own rows, each a type of its own.

use std::error::Error;

use bytes::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use uuid::Uuid;

/// A [`model::uuid_id`] that can be bound to a statement, read from a row and described in the API.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        model::uuid_id!(
            $(#[$doc])*
            #[derive(utoipa::ToSchema)]
            $name
        );

        impl<'a> FromSql<'a> for $name {
            fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
                Uuid::from_sql(ty, raw).map(Self)
            }

            fn accepts(ty: &Type) -> bool {
                <Uuid as FromSql>::accepts(ty)
            }
        }

        impl ToSql for $name {
            fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
                self.0.to_sql(ty, out)
            }

            fn accepts(ty: &Type) -> bool {
                <Uuid as ToSql>::accepts(ty)
            }

            to_sql_checked!();
        }
    };
}

id!(
    /// One patient.
    PatientId
);
id!(
    /// One order: what was asked for a patient at one time.
    OrderId
);
id!(
    /// One specimen: a tube with its barcode.
    SpecimenId
);
id!(
    /// One result: one test of one order.
    ResultId
);
id!(
    /// One reference range.
    RangeId
);
id!(
    /// One imported file.
    ImportId
);
id!(
    /// One proposed change to a released result.
    AmendmentId
);
id!(
    /// One notice of a critical value.
    NoticeId
);
