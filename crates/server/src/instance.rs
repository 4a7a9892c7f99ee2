//! What this process is called among others that route to the same servers: the same after a restart, so that
//! the connections which a killed predecessor left behind are counted until they are gone, and different from
//! every other process that may be at work, whose connections must not be taken for a predecessor's.
//!
//! One address can be listened on by one process of a machine only. A machine is told by its name together
//! with the id of this boot: copies of one image have equal names. With port 0 there is no address before the
//! start, and no name.

use std::{fs, net::SocketAddr};

use sha2::{Digest as _, Sha256};

const HOST_NAME: &str = "/proc/sys/kernel/hostname";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The name; `None` when there is nothing to tell one process from another.
#[must_use]
pub fn name(listen: SocketAddr) -> Option<String> {
    let read = |path| fs::read_to_string(path).ok();
    let (host, boot) = (read(HOST_NAME)?, read(BOOT_ID)?);
    (listen.port() != 0).then(|| named(host.trim(), boot.trim(), listen))
}

/// For people the beginning of the host's name and the port; all of it in eight digits behind.
fn named(host: &str, boot: &str, listen: SocketAddr) -> String {
    let digest = Sha256::digest(format!("{host}\n{boot}\n{listen}"));
    let (short, digits): (String, _) = (host.chars().take(16).collect(), hex::encode(&digest[..4]));
    format!("{short}-{}-{digits}", listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_with_the_address_and_differs_between_machines() {
        let here: SocketAddr = "127.0.0.1:8080".parse().unwrap();
        let name = named("db-host.example.org", "b1", here);
        assert_eq!(name, named("db-host.example.org", "b1", here));
        assert!(
            name.starts_with("db-host.example.-8080-") && name.len() <= 32,
            "{name}"
        );
        for other in [
            named("db-host.example.org", "b2", here),
            named("db-host.example.com", "b1", here),
            named("db-host.example.org", "b1", "127.0.0.1:8081".parse().unwrap()),
            named("db-host.example.org", "b1", "[::1]:8080".parse().unwrap()),
        ] {
            assert_ne!(name, other);
        }
    }

    #[test]
    fn without_a_port_there_is_none() {
        assert_eq!(super::name("127.0.0.1:0".parse().unwrap()), None);
    }
}
