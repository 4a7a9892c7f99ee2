//! Input from outside, read strictly and refused in words that a client understands.
//!
//! A document (JSON, or the pairs of a query string) becomes a tree of [`Node`]s first, and the tree becomes
//! the type that is wanted. Invariants: an object is read from an object only, at every level (serde's
//! derived structs also take arrays, by the order of their fields); no name is given twice in one object;
//! every [`Refusal`] names the value to blame by its path, such as `items[3].id`, and says what would be
//! right without the name of a Rust type.

use std::{collections::HashSet, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{
        self, DeserializeOwned, DeserializeSeed, Error as _, Expected, IntoDeserializer, MapAccess,
        SeqAccess, Unexpected, Visitor,
    },
    forward_to_deserialize_any,
};

/// A value of a document, with the names of an object in the order and the number in which they were given.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Whole(i128),
    /// Any other number.
    Fraction(f64),
    /// A text.
    Text(String),
    /// A text of a format that has no other values, such as a query string: where a number is wanted it is
    /// read as one.
    Word(String),
    /// An array.
    List(Vec<Node>),
    /// An object.
    Object(Vec<(String, Node)>),
}

/// What is wrong with a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// A value is missing or wrong.
    Invalid,
    /// There is no such name.
    Unknown,
    /// A text holds U+0000, which PostgreSQL cannot store.
    Unstorable,
}

/// A value that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What kind of refusal it is.
    pub kind: RefusalKind,
    /// What is wrong and what would be right.
    pub message: String,
    /// From the value outwards.
    path: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Name(String),
    Index(usize),
}

impl Refusal {
    fn new(message: impl Into<String>) -> Self {
        Self {
            kind: RefusalKind::Invalid,
            message: message.into(),
            path: Vec::new(),
        }
    }

    fn of_kind(self, kind: RefusalKind) -> Self {
        Self { kind, ..self }
    }

    fn inside(mut self, segment: Segment) -> Self {
        self.path.push(segment);
        self
    }

    fn at(self, name: &str) -> Self {
        self.inside(Segment::Name(name.to_owned()))
    }

    /// Which value: `items[3].id`; empty for the whole document.
    #[must_use]
    pub fn pointer(&self) -> String {
        let mut pointer = String::new();
        for segment in self.path.iter().rev() {
            match segment {
                Segment::Name(name) if pointer.is_empty() => pointer.push_str(name),
                Segment::Name(name) => {
                    pointer.push('.');
                    pointer.push_str(name);
                }
                Segment::Index(index) => pointer.push_str(&format!("[{index}]")),
            }
        }
        pointer
    }
}

/// At most so many characters of a name that a client made up are shown again.
const SHOWN_CHARS_MAX: usize = 64;

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS_MAX).collect()
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pointer() {
            pointer if pointer.is_empty() => f.write_str(&self.message),
            pointer => write!(f, "{pointer}: {}", self.message),
        }
    }
}

impl std::error::Error for Refusal {}

impl de::Error for Refusal {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("it must be {}", described(expected)))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("it must be {}", described(expected)))
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        Self::new(format!(
            "it has {length} items, and must be {}",
            described(expected)
        ))
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("it must be one of: {}", expected.join(", ")))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let field = shown(field);
        let message = if expected.is_empty() {
            format!("there is no field `{field}` here")
        } else {
            format!(
                "there is no field `{field}` here; the fields are: {}",
                expected.join(", ")
            )
        };
        Self::new(message).of_kind(RefusalKind::Unknown).at(&field)
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new("it is missing").at(field)
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::new("it is given twice; give it once").at(field)
    }
}

/// What serde's own visitors expect, in a client's words.
fn described(expected: &dyn Expected) -> String {
    let text = expected.to_string();
    match text.as_str() {
        "i8" | "i16" | "i32" | "i64" | "i128" | "isize" => "a whole number".to_owned(),
        "u8" | "u16" | "u32" | "u64" | "u128" | "usize" => "a whole number that is not negative".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a string" | "str" | "string" | "a borrowed string" | "a character" => "a text".to_owned(),
        "a sequence" => "a list".to_owned(),
        "unit" => "null".to_owned(),
        text if text.starts_with("struct ") || text == "a map" => "an object".to_owned(),
        text if text.starts_with("enum ") || text.starts_with("tuple ") => "another value".to_owned(),
        text => text.to_owned(),
    }
}

/// Reads a tree as a type.
///
/// # Errors
/// [`Refusal`] names the first value that does not fit.
pub fn read<T: DeserializeOwned>(node: Node) -> Result<T, Refusal> {
    T::deserialize(node)
}

/// The tree of a list of pairs, all of whose values are words.
#[must_use]
pub fn pairs(pairs: impl IntoIterator<Item = (String, String)>) -> Node {
    Node::Object(
        pairs
            .into_iter()
            .map(|(name, value)| (name, Node::Word(value)))
            .collect(),
    )
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyValue;

        impl<'de> Visitor<'de> for AnyValue {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
                Ok(Node::Bool(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
                Ok(Node::Whole(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
                Ok(Node::Whole(value.into()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
                Ok(Node::Fraction(value))
            }

            fn visit_str<E>(self, value: &str) -> Result<Node, E> {
                Ok(Node::Text(value.to_owned()))
            }

            fn visit_string<E>(self, value: String) -> Result<Node, E> {
                Ok(Node::Text(value))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Node::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
                let mut object = Vec::new();
                while let Some(entry) = entries.next_entry()? {
                    object.push(entry);
                }
                Ok(Node::Object(object))
            }
        }

        deserializer.deserialize_any(AnyValue)
    }
}

impl Node {
    fn text(self) -> Result<String, Refusal> {
        match self {
            Self::Text(text) | Self::Word(text) if text.contains('\0') => {
                let message = "it holds the character U+0000, which cannot be stored; take it out";
                Err(Refusal::new(message).of_kind(RefusalKind::Unstorable))
            }
            Self::Text(text) | Self::Word(text) => Ok(text),
            other => Err(other.unfit("a text")),
        }
    }

    fn unfit(&self, wanted: &str) -> Refusal {
        Refusal::new(match self {
            Self::Null => format!("it is null, and must be {wanted}"),
            _ => format!("it must be {wanted}"),
        })
    }

    /// The number, if it is a whole one between the bounds.
    fn whole(self, min: i128, max: i128) -> Result<i128, Refusal> {
        let number = match &self {
            Self::Whole(number) => Some(*number),
            // No sign and no blank, and nothing but ASCII digits.
            Self::Word(word) if word.trim_start_matches('-').bytes().all(|b| b.is_ascii_digit()) => {
                word.parse().ok()
            }
            _ => None,
        };
        match number {
            Some(number) if (min..=max).contains(&number) => Ok(number),
            _ => Err(self.unfit(&format!("a whole number between {min} and {max}"))),
        }
    }

    /// The names of an object, each once.
    fn object(self) -> Result<Vec<(String, Node)>, Refusal> {
        let Self::Object(entries) = self else {
            return Err(self.unfit("an object with named fields"));
        };
        let mut seen = HashSet::with_capacity(entries.len());
        let twice = entries.iter().find(|(name, _)| !seen.insert(name.as_str()));
        if let Some((name, _)) = twice {
            return Err(Refusal::new("it is given twice; give it once").at(&shown(name)));
        }
        Ok(entries)
    }
}

macro_rules! whole_numbers {
    ($($method:ident => $visit:ident, $type:ty;)+) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
            // 64 bits at most, so that both bounds fit.
            let number = self.whole(i128::from(<$type>::MIN), i128::from(<$type>::MAX))?;
            visitor.$visit(<$type>::try_from(number).map_err(Refusal::custom)?)
        }
    )+};
}

impl<'de> Deserializer<'de> for Node {
    type Error = Refusal;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match self {
            Self::Null => visitor.visit_unit(),
            Self::Bool(value) => visitor.visit_bool(value),
            Self::Whole(value) => match (i64::try_from(value), u64::try_from(value)) {
                (Ok(value), _) => visitor.visit_i64(value),
                (_, Ok(value)) => visitor.visit_u64(value),
                _ => visitor.visit_i128(value),
            },
            Self::Fraction(value) => visitor.visit_f64(value),
            Self::Text(_) | Self::Word(_) => visitor.visit_string(self.text()?),
            Self::List(_) => self.deserialize_seq(visitor),
            Self::Object(_) => self.deserialize_map(visitor),
        }
    }

    whole_numbers! {
        deserialize_i8 => visit_i8, i8;
        deserialize_i16 => visit_i16, i16;
        deserialize_i32 => visit_i32, i32;
        deserialize_i64 => visit_i64, i64;
        deserialize_u8 => visit_u8, u8;
        deserialize_u16 => visit_u16, u16;
        deserialize_u32 => visit_u32, u32;
        deserialize_u64 => visit_u64, u64;
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match &self {
            Self::Bool(value) => visitor.visit_bool(*value),
            Self::Word(word) if word == "true" || word == "false" => visitor.visit_bool(word == "true"),
            other => Err(other.unfit("true or false")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_string(self.text()?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_string(self.text()?)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match self {
            Self::Null => visitor.visit_none(),
            some => visitor.visit_some(some),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let Self::List(items) = self else {
            return Err(self.unfit("a list"));
        };
        visitor.visit_seq(Items {
            items: items.into_iter(),
            next: 0,
        })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_map(Entries {
            entries: self.object()?.into_iter(),
            value: None,
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        visitor.visit_enum(self.text()?.into_deserializer())
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        i128 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
    }
}

struct Items {
    items: std::vec::IntoIter<Node>,
    next: usize,
}

impl<'de> SeqAccess<'de> for Items {
    type Error = Refusal;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Refusal> {
        let Some(item) = self.items.next() else {
            return Ok(None);
        };
        let index = self.next;
        self.next += 1;
        seed.deserialize(item)
            .map(Some)
            .map_err(|refusal| refusal.inside(Segment::Index(index)))
    }
}

struct Entries {
    entries: std::vec::IntoIter<(String, Node)>,
    value: Option<(String, Node)>,
}

impl<'de> MapAccess<'de> for Entries {
    type Error = Refusal;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Refusal> {
        self.value = self.entries.next();
        match &self.value {
            Some((name, _)) => seed.deserialize(name.as_str().into_deserializer()).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Refusal> {
        let Some((name, value)) = self.value.take() else {
            return Err(Refusal::new("a value was asked for without its name"));
        };
        seed.deserialize(value).map_err(|refusal| refusal.at(&name))
    }
}

#[cfg(test)]
mod tests;
