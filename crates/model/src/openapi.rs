//! How the types of this crate look in an OpenAPI document, from the constants by which they refuse.
//!
//! A pattern is stricter than the parser where that brings a text into its normal form first: white space
//! around it, and other kinds of white space, need not be sent. Every text that a schema allows is accepted
//! as far as a pattern can say it.

use utoipa::openapi::{KnownFormat, ObjectBuilder, SchemaFormat, schema::Type};

use crate::{
    DbName, Email, Reason, ServerName, Slug,
    text::{LINE_CHARS_MAX, NOTE_CHARS_MAX},
};

/// One line that begins and ends with something to be seen and holds no control character (the C0 and C1
/// controls, and the separators of lines and paragraphs). Without `\p{…}`, which not every validator
/// understands.
pub const LINE_PATTERN: &str = r"^[^\s\u0000-\u001F\u007F-\u009F]([^\u0000-\u001F\u007F-\u009F\u2028\u2029]*[^\s\u0000-\u001F\u007F-\u009F])?$";
/// One line without control characters, which may hold nothing.
pub const BLANK_OR_LINE_PATTERN: &str = r"^[^\u0000-\u001F\u007F-\u009F\u2028\u2029]*$";
/// Lines of text: no control characters but line feed, carriage return and tab.
pub const NOTE_PATTERN: &str = r"^[^\u0000-\u0008\u000B\u000C\u000E-\u001F\u007F-\u009F]*$";

/// Most characters of a time zone's name.
pub const TIME_ZONE_CHARS_MAX: usize = 64;

/// A text of so many characters.
#[must_use]
pub fn text(min: usize, max: usize) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length((min > 0).then_some(min))
        .max_length(Some(max))
}

/// Gives a type its schema. The names in a description must differ, from whichever crate the types come.
#[macro_export]
macro_rules! schema {
    ($name:ident, $schema:expr) => {
        $crate::schema!($name as stringify!($name), $schema);
    };
    ($name:ident as $shown:expr, $schema:expr) => {
        impl ::utoipa::PartialSchema for $name {
            fn schema() -> ::utoipa::openapi::RefOr<::utoipa::openapi::schema::Schema> {
                ($schema).into()
            }
        }

        impl ::utoipa::ToSchema for $name {
            fn name() -> ::std::borrow::Cow<'static, str> {
                ::std::borrow::Cow::Borrowed($shown)
            }
        }
    };
}

/// A type that stands in a description for a text that is checked where the request is carried out.
#[macro_export]
macro_rules! text_schema {
    ($(#[$doc:meta])* $visibility:vis $name:ident, $schema:expr) => {
        $(#[$doc])*
        #[derive(Debug)]
        $visibility enum $name {}

        $crate::schema!($name, $schema);
    };
}

text_schema!(
    /// A name, or another single line that must hold something.
    pub Line,
    text(1, LINE_CHARS_MAX)
        .pattern(Some(LINE_PATTERN))
        .description(Some("One line without control characters. White space around it is dropped."))
);

text_schema!(
    /// A reason that must be given.
    pub RequiredReason,
    text(1, Reason::CHARS_MAX)
        .pattern(Some(LINE_PATTERN))
        .description(Some("Why, in a person's words: one line, for the audit."))
);

text_schema!(
    /// A comment or a note.
    pub Note,
    text(0, NOTE_CHARS_MAX)
        .pattern(Some(NOTE_PATTERN))
        .description(Some("Lines of text, without control characters, kept as typed."))
);

text_schema!(
    /// A time zone.
    pub TimeZone,
    text(1, TIME_ZONE_CHARS_MAX)
        .pattern(Some("^[A-Za-z0-9_+/-]+$"))
        .examples(["Europe/Vienna"])
        .description(Some("An IANA name."))
);

text_schema!(
    /// A file.
    pub File,
    ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)))
);

schema!(
    Slug,
    text(Slug::LENGTH_MIN, Slug::LENGTH_MAX)
        .pattern(Some("^[a-z][a-z0-9]*(-[a-z0-9]+)*$"))
        .examples(["acme-lab"])
        .description(Some("A laboratory's short name."))
);

schema!(
    Email,
    text(3, Email::LENGTH_MAX)
        .pattern(Some(
            r"^[^@\s\u0000-\u001F\u007F-\u009F]+@[^@\s\u0000-\u001F\u007F-\u009F]+$"
        ))
        .examples(["ada@acme-lab.example"])
        .description(Some("An e-mail address, of at most 254 bytes in UTF-8."))
);

schema!(
    ServerName,
    text(1, ServerName::LENGTH_MAX)
        .pattern(Some("^[a-z0-9-]+$"))
        .examples(["main"])
        .description(Some("The name of a database server in the registry."))
);

schema!(
    DbName,
    text(1, DbName::BYTES_MAX)
        .pattern(Some(r"^[^\u0000-\u001F\u007F-\u009F]+$"))
        .description(Some("The name of a database, of at most 63 bytes in UTF-8."))
);

// The laboratory's body that is nothing but a reason is called `Reason`.
schema!(
    Reason as "ReasonText",
    text(0, Reason::CHARS_MAX)
        .pattern(Some(BLANK_OR_LINE_PATTERN))
        .description(Some(
            "Why, in a person's words: one line, for the audit. It may be empty."
        ))
);
