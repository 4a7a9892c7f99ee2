//! Which addresses are the internet's: an address that a person typed must not lead us to the cloud's
//! metadata service, to a database beside us or to ourselves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use reqwest::Url;

use crate::OutboxError;

/// The longest URL that is taken.
const URL_LENGTH_MAX: usize = 2_000;

/// A URL that events may be sent to; names are judged when they are looked up, before each connect.
pub(crate) fn parse(text: &str, private: bool) -> Result<Url, OutboxError> {
    let refused = |why: &str| OutboxError::Invalid {
        field: "url",
        why: why.to_owned(),
    };
    if text.len() > URL_LENGTH_MAX {
        return Err(refused("a webhook's URL has at most 2000 characters"));
    }
    let url =
        Url::parse(text).map_err(|error| refused(&format!("{error}; write it as https://host/path")))?;
    if !matches!(url.scheme(), "https" | "http") {
        return Err(refused("a webhook's URL begins with https:// (or http://)"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refused(
            "a webhook's URL holds no user name or password, which would stand in logs; deliveries are \
             signed instead",
        ));
    }
    if url.fragment().is_some() {
        return Err(refused("a webhook's URL has no #fragment, which is never sent"));
    }
    match literal(&url) {
        Some(ip) if !private && !is_public(ip) => Err(refused(&format!(
            "{ip} is no address of the internet; `webhooks.private_addresses = \"allow\"` in the settings \
             lets it be used"
        ))),
        _ => Ok(url),
    }
}

/// The address of a URL that names no host but an address.
fn literal(url: &Url) -> Option<IpAddr> {
    let host = url.host_str()?;
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Whether an address is one of the internet's at large (IANA's registries of special-purpose addresses, RFC
/// 6890).
pub(crate) fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(mapped) => is_public_v4(mapped),
            None => is_public_v6(ip),
        },
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    !(ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_documentation()
        || a == 0
        // Shared by carriers, the protocols' own, relays, benchmarks; multicast and reserved.
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (18..20).contains(&b))
        || a >= 224)
}

/// Only what is allocated as global unicast, 2000::/3, without the special blocks in it. Those that carry an
/// IPv4 address inside (6to4, Teredo, NAT64) are among what is refused.
fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [a, b, ..] = ip.segments();
    a & 0xe000 == 0x2000
        && !(a == 0x2001 && b < 0x0200)
        && !(a == 0x2001 && b == 0x0db8)
        && a != 0x2002
        && !(a == 0x3fff && b < 0x1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_internets_addresses_are_public() {
        for public in [
            "1.1.1.1",
            "172.15.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "::ffff:8.8.8.8",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for other in [
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "127.8.8.8",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "fd00::1",
            "fe80::1",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "2002:7f00:1::",
            "64:ff9b::7f00:1",
            "100::1",
        ] {
            assert!(!is_public(other.parse().unwrap()), "{other}");
        }
    }

    #[test]
    fn urls_that_lead_elsewhere_are_refused_with_a_reason() {
        for (url, why) in [
            ("ftp://example.org/", "https://"),
            ("example.org/hook", "https://"),
            ("https://ada:secret@example.org/", "signed instead"),
            ("https://example.org/#x", "fragment"),
            ("https://", "https://host"),
            ("http://127.0.0.1/", "no address of the internet"),
            ("http://0x7f.1:5432/", "no address of the internet"),
            ("http://2130706433/", "no address of the internet"),
            ("http://[::1]/", "no address of the internet"),
            ("http://[::ffff:10.0.0.1]/", "no address of the internet"),
        ] {
            let error = parse(url, false).unwrap_err().to_string();
            assert!(error.contains(why), "{url}: {error}");
        }
        assert!(parse(&format!("https://example.org/{}", "x".repeat(2_000)), false).is_err());
        assert!(parse("https://example.org/hook?a=b", false).is_ok());
        assert!(parse("http://127.0.0.1:1/", true).is_ok());
    }
}
