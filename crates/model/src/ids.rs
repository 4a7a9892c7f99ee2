//! Ids are types: a function that takes a tenant cannot be handed an operation.

/// Declares an id: a UUID that is a type of its own. The crate that calls it depends on `uuid` and `serde`;
/// further attributes, such as a derive, are passed on.
#[macro_export]
macro_rules! uuid_id {
    ($(#[$attribute:meta])* $name:ident) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ::serde::Serialize)]
        #[serde(transparent)]
        pub struct $name(::uuid::Uuid);

        impl<'de> ::serde::Deserialize<'de> for $name {
            fn deserialize<D: ::serde::Deserializer<'de>>(
                deserializer: D,
            ) -> ::std::result::Result<Self, D::Error> {
                let text = <::std::string::String as ::serde::Deserialize>::deserialize(deserializer)?;
                let wrong = "it must be an id (a UUID), for example 0190a5b0-0000-7000-8000-000000000001";
                text.parse().map_err(|_| <D::Error as ::serde::de::Error>::custom(wrong))
            }
        }

        impl $name {
            /// A new id. UUID version 7 (RFC 9562): ids made later sort later, which keeps index pages warm.
            #[must_use]
            pub fn generate() -> Self {
                Self(::uuid::Uuid::now_v7())
            }

            /// The id as the database stores it.
            #[must_use]
            pub const fn as_uuid(self) -> ::uuid::Uuid {
                self.0
            }
        }

        impl ::std::convert::From<::uuid::Uuid> for $name {
            fn from(id: ::uuid::Uuid) -> Self {
                Self(id)
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                ::std::fmt::Display::fmt(&self.0, f)
            }
        }

        impl ::std::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = ::uuid::Error;

            fn from_str(text: &str) -> ::std::result::Result<Self, Self::Err> {
                ::uuid::Uuid::parse_str(text).map(Self)
            }
        }
    };
}

uuid_id!(
    /// One laboratory.
    TenantId
);
uuid_id!(
    /// One durable operation on a tenant.
    OperationId
);
uuid_id!(
    /// The period in which the access tokens of a person, or of a laboratory, are valid: random, and replaced
    /// by each event that ends them.
    SessionEpoch
);
uuid_id!(
    /// One person of the platform's own staff.
    OperatorId
);
uuid_id!(
    /// One person who works in a laboratory. A tenant's first admin carries the same id in the registry and
    /// in the laboratory's own staff list.
    StaffId
);
uuid_id!(
    /// One verified dump with its manifest.
    ArchiveId
);
uuid_id!(
    /// One process that connects to laboratories' databases, for as long as it runs.
    RouterId
);
uuid_id!(
    /// One thing that happened, as it is told to others. Receivers know a repetition by it.
    EventId
);
uuid_id!(
    /// One address to which events are sent.
    WebhookId
);
uuid_id!(
    /// One event on its way to one address.
    DeliveryId
);
