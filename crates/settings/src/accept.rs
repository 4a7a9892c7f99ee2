//! What a key accepts: the check and the sentence that describes it stand side by side.

use std::net::{IpAddr, SocketAddr};

use figment::value::Value;
use ipnet::IpNet;
use model::{DbName, Namespace, Slug, TenantId};

/// The values that a key accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accept {
    /// A whole number, both ends included.
    Number {
        /// The smallest.
        min: i64,
        /// The largest.
        max: i64,
    },
    /// One of a few words.
    Word(&'static [&'static str]),
    /// An IP address with a port.
    Socket,
    /// Addresses and networks, separated by commas.
    Networks,
    /// The address of a web site: http or https, a host, and a path perhaps.
    WebAddress,
    /// Any text that is not empty.
    Text,
    /// Any text; it is shown as `***`.
    Secret,
    /// A path; a relative one starts at the working directory.
    Path,
    /// The id of a laboratory.
    TenantId,
    /// The slug of a laboratory.
    Slug,
    /// The name of a database.
    Database,
    /// A prefix of database and role names.
    Namespace,
    /// Log levels, in general and per module.
    LogFilter,
}

impl Accept {
    /// The accepted values in words, as part of "use …".
    #[must_use]
    pub fn describe(self) -> String {
        match self {
            Self::Number { min, max } => format!("{min} to {max}"),
            Self::Word(words) => words.join(" or "),
            Self::Socket => {
                "address:port, as 127.0.0.1:8080 or [::]:8080; port 0 takes a free one".to_owned()
            }
            Self::Networks => {
                "addresses and networks separated by commas, as 10.0.0.0/8, 192.0.2.7, 2001:db8::/64, but not the whole internet"
                    .to_owned()
            }
            Self::WebAddress => {
                "an address without query and fragment, as https://lab.example or https://example.org/lab"
                    .to_owned()
            }
            Self::Text | Self::Secret => "text".to_owned(),
            Self::Path => "a path".to_owned(),
            Self::TenantId => "a laboratory's id (UUID)".to_owned(),
            Self::Slug => "a laboratory's slug, as acme-lab".to_owned(),
            Self::Database => "the name of a database, at most 63 bytes".to_owned(),
            Self::Namespace => "1 to 12 lower-case letters and digits, a letter first".to_owned(),
            Self::LogFilter => "levels and modules, as info or warn,resolver=debug".to_owned(),
        }
    }

    /// Whether the value is never to be shown.
    #[must_use]
    pub fn is_secret(self) -> bool {
        self == Self::Secret
    }

    /// Whether a value of the merged layers is one of the accepted.
    pub(crate) fn admits(self, value: &Value) -> bool {
        if let Self::Number { min, max } = self {
            return number(value).is_some_and(|n| (min..=max).contains(&n));
        }
        let Some(text) = value.as_str() else { return false };
        match self {
            Self::Number { .. } => false,
            Self::Word(words) => words.contains(&text),
            Self::Socket => text.parse::<SocketAddr>().is_ok(),
            Self::Networks => networks(text).is_some(),
            Self::WebAddress => is_web_address(text),
            Self::Text | Self::Path => !text.is_empty() && !text.contains('\0'),
            Self::Secret => !text.contains('\0'),
            Self::TenantId => text.parse::<TenantId>().is_ok(),
            Self::Slug => Slug::parse(text).is_ok(),
            Self::Database => DbName::from_catalog(text).is_ok(),
            Self::Namespace => Namespace::parse(text).is_ok(),
            Self::LogFilter => tracing_subscriber::EnvFilter::try_new(text).is_ok(),
        }
    }
}

/// The networks of a list; `None` when one of them is none. A network of everybody would let every client say
/// who it is.
pub(crate) fn networks(text: &str) -> Option<Vec<IpNet>> {
    let network = |part: &str| {
        let part = part.trim();
        let alone = part.parse::<IpAddr>().ok().map(IpNet::from);
        let network = alone.or_else(|| part.parse::<IpNet>().ok())?;
        (network.prefix_len() > 0).then(|| network.trunc())
    };
    text.split(',').map(network).collect()
}

/// Whether links can begin with it.
fn is_web_address(text: &str) -> bool {
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    // What a user name, a query or a fragment would make of the link is nothing that anybody means.
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~:/%[]".contains(c);
    rest.is_some_and(|rest| {
        rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[') && rest.chars().all(plain)
    })
}

/// The number in a value, if it is a whole one that fits.
pub(crate) fn number(value: &Value) -> Option<i64> {
    let wide = value
        .to_i128()
        .or_else(|| value.to_u128().and_then(|n| i128::try_from(n).ok()))?;
    i64::try_from(wide).ok()
}
