//! W3C Trace Context, level 1: the `traceparent` header in and out.
//!
//! A header that does not parse is ignored and a new trace begins, as the standard asks. Nothing here exports
//! spans.

use std::fmt;

/// Where one request stands in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    id: u128,
    span: u64,
    sampled: bool,
}

impl Trace {
    /// Goes on with the caller's trace when `traceparent` names one, else begins one. `span` is this
    /// request's own.
    #[must_use]
    pub fn from_header(traceparent: Option<&str>) -> Self {
        let span = loop {
            let drawn: u64 = rand::random();
            if drawn != 0 {
                break drawn;
            }
        };
        match traceparent.and_then(parse) {
            Some((id, sampled)) => Self { id, span, sampled },
            None => Self {
                id: rand::random::<u128>() | 1,
                span,
                sampled: true,
            },
        }
    }

    /// The trace id as 32 hexadecimal digits.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{:032x}", self.id)
    }
}

/// The header's text, with this request's span as the parent.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "00-{:032x}-{:016x}-{:02x}",
            self.id,
            self.span,
            u8::from(self.sampled)
        )
    }
}

/// `version "-" trace-id "-" parent-id "-" trace-flags`, lower-case hexadecimal, neither id zero, version not
/// ff; a version above 00 may carry more after the flags.
fn parse(text: &str) -> Option<(u128, bool)> {
    let mut parts = text.split('-');
    let version = hex_digits(parts.next()?, 2)?;
    let id = hex_digits(parts.next()?, 32)?;
    let parent = hex_digits(parts.next()?, 16)?;
    let flags = hex_digits(parts.next()?, 2)?;
    let surplus = parts.next().is_some();
    let valid = version != 0xff && id != 0 && parent != 0 && !(version == 0 && surplus);
    valid.then_some((id, flags & 1 == 1))
}

fn hex_digits(text: &str, length: usize) -> Option<u128> {
    let shaped = text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    shaped.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_valid_header_is_continued_with_a_span_of_our_own() {
        let trace = Trace::from_header(Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        assert_eq!(trace.id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let out = trace.to_string();
        assert!(
            out.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && out.ends_with("-01"),
            "{out}"
        );
        assert!(!out.contains("00f067aa0ba902b7"));
    }

    #[test]
    fn what_does_not_parse_begins_a_new_trace() {
        for bad in [
            "",
            "junk",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
            assert_ne!(Trace::from_header(Some(bad)).id, 0);
        }
        assert!(parse("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-more").is_some());
    }
}
