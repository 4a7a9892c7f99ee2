//! A client as limits and counts know it.

use std::{fmt, net::IpAddr};

/// The network that counts as one client: an IPv4 address, or the /64 of an IPv6 address, which is the least
/// that one customer of a provider gets (RFC 6177).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientNetwork(IpAddr);

const V6_HOST_BITS: u128 = u64::MAX as u128;

impl ClientNetwork {
    /// The client with this address. An IPv4 address that is mapped into IPv6 is the IPv4 address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !V6_HOST_BITS).into()),
            v4 => v4,
        })
    }

    /// Its first address.
    #[must_use]
    pub fn first(self) -> IpAddr {
        self.0
    }

    /// Its last address.
    #[must_use]
    pub fn last(self) -> IpAddr {
        match self.0 {
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() | V6_HOST_BITS).into()),
            v4 => v4,
        }
    }
}

/// In CIDR notation.
impl fmt::Display for ClientNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0, if self.0.is_ipv4() { 32 } else { 64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_an_address_of_ipv4_or_a_64_of_ipv6() {
        let of = |text: &str| ClientNetwork::of(text.parse().unwrap());
        assert_eq!(of("203.0.113.7").to_string(), "203.0.113.7/32");
        assert_eq!(of("::ffff:203.0.113.7"), of("203.0.113.7"));
        assert_ne!(of("203.0.113.7"), of("203.0.113.8"));
        let v6 = of("2001:db8:1:2:3::4");
        assert_eq!(v6.to_string(), "2001:db8:1:2::/64");
        assert_eq!(v6, of("2001:db8:1:2::"));
        assert_ne!(v6, of("2001:db8:1:3::"));
        assert_eq!(v6.last().to_string(), "2001:db8:1:2:ffff:ffff:ffff:ffff");
        assert_eq!(of("203.0.113.7").last(), of("203.0.113.7").first());
    }
}
