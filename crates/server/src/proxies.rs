//! The client's address, also behind trusted reverse proxies.
//!
//! Invariant: no client chooses its own address. A forwarding header is read only on a connection from a
//! trusted proxy, only the one header that the settings name, and from its right end: the right-most entry
//! was written by that proxy itself, and each one further left counts only while the entry to its right is a
//! trusted proxy as well.

use std::{
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use actix_web::http::header::{FORWARDED, HeaderMap, HeaderName, X_FORWARDED_FOR};
use settings::{ClientHeader, IpNet};

/// Which proxies are trusted, and where they write for whom they ask.
#[derive(Debug)]
pub struct TrustedProxies {
    networks: Vec<IpNet>,
    header: ClientHeader,
    /// Whether the log has named a proxy that is not trusted.
    warned: AtomicBool,
}

impl TrustedProxies {
    /// Trusts these networks.
    #[must_use]
    pub fn new(networks: Vec<IpNet>, header: ClientHeader) -> Self {
        Self {
            networks,
            header,
            warned: AtomicBool::new(false),
        }
    }

    /// Who asks: `peer`, or for whom it asks when it is a trusted proxy. An entry that is no address ends the
    /// search, and the proxy that wrote it is the client.
    #[must_use]
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        if !self.trusts(client) {
            self.warn_of_unknown_proxy(headers);
            return client;
        }
        let name = self.name();
        let lines: Vec<&str> = headers
            .get_all(name)
            .map(|line| line.to_str().unwrap_or(""))
            .collect();
        // Commas inside quotes need no care: an entry that has one is no address.
        for entry in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
            let named = match self.header {
                ClientHeader::XForwardedFor => address(entry),
                ClientHeader::Forwarded => forwarded_for(entry).and_then(address),
            };
            let Some(named) = named else { break };
            client = named;
            if !self.trusts(client) {
                break;
            }
        }
        client
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&address))
    }

    fn name(&self) -> HeaderName {
        match self.header {
            ClientHeader::XForwardedFor => X_FORWARDED_FOR,
            ClientHeader::Forwarded => FORWARDED,
        }
    }

    fn warn_of_unknown_proxy(&self, headers: &HeaderMap) {
        let forwarded = headers.contains_key(X_FORWARDED_FOR) || headers.contains_key(FORWARDED);
        if forwarded && !self.warned.swap(true, Relaxed) {
            tracing::warn!(
                "requests come with X-Forwarded-For or Forwarded from an address that is not in http.trusted_proxies: if it \
                 is your reverse proxy, all its clients count as one client until you name it there"
            );
        }
    }
}

/// The value of `for` in one element of `Forwarded` (RFC 7239, 4), without its quotes.
fn forwarded_for(element: &str) -> Option<&str> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("for")
            .then(|| value.trim().trim_matches('"'))
    })
}

/// An address, perhaps with a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`,
/// `[2001:db8::1]:80`.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    let with_port = || text.parse::<SocketAddr>().ok().map(|socket| socket.ip());
    bare.parse::<IpAddr>()
        .ok()
        .or_else(with_port)
        .map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn client(header: ClientHeader, peer: &str, lines: &[&str]) -> String {
        let networks = ["10.0.0.0/8", "2001:db8:ffff::/48"].map(|net| net.parse().unwrap());
        let proxies = TrustedProxies::new(networks.to_vec(), header);
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(proxies.name(), HeaderValue::from_str(line).unwrap());
        }
        proxies.client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn the_right_most_address_that_is_no_trusted_proxy_is_the_client() {
        let of = |peer: &str, lines: &[&str]| client(ClientHeader::XForwardedFor, peer, lines);
        for (peer, lines, expected) in [
            ("203.0.113.7", &["198.51.100.1"][..], "203.0.113.7"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("::ffff:10.0.0.1", &["::ffff:198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["192.0.2.1, 198.51.100.1,10.0.0.2"], "198.51.100.1"),
            (
                "10.0.0.1",
                &["192.0.2.1", "198.51.100.1", "10.0.0.2"],
                "198.51.100.1",
            ),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &["198.51.100.1:4711"], "198.51.100.1"),
            ("10.0.0.1", &["2001:db8::7"], "2001:db8::7"),
            ("2001:db8:ffff::1", &["[2001:db8::7]:443"], "2001:db8::7"),
            // What is no address says nothing, and what stands to its left was not written by a trusted
            // proxy.
            ("10.0.0.1", &["198.51.100.1, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1, , 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["\"198.51.100.1"], "10.0.0.1"),
        ] {
            assert_eq!(of(peer, lines), expected, "{peer} {lines:?}");
        }
    }

    #[test]
    fn elements_of_forwarded_are_read_as_the_standard_writes_them() {
        let of = |lines: &[&str]| client(ClientHeader::Forwarded, "10.0.0.1", lines);
        for (lines, expected) in [
            (&["for=192.0.2.60;proto=http;by=203.0.113.43"][..], "192.0.2.60"),
            (&["For=\"[2001:db8:cafe::17]:4711\""], "2001:db8:cafe::17"),
            (&["for=192.0.2.43, for=198.51.100.17"], "198.51.100.17"),
            (
                &["proto=https; FOR = 198.51.100.17", "by=_x;for=10.9.9.9"],
                "198.51.100.17",
            ),
            (&["for=192.0.2.43, for=_hidden"], "10.0.0.1"),
            (&["for=192.0.2.43, for=unknown"], "10.0.0.1"),
            (&["for=192.0.2.43, by=10.0.0.2"], "10.0.0.1"),
            // An open quotation mark of the client's does not swallow what the proxy wrote behind it.
            (&["for=\"192.0.2.43, for=198.51.100.17"], "198.51.100.17"),
        ] {
            assert_eq!(of(lines), expected, "{lines:?}");
        }
    }
}
