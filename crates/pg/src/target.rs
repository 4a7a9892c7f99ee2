use std::{fmt, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::Config;

/// How long a connection may be silent before the kernel probes the other end.
pub(crate) const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// The pause between two probes.
pub(crate) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How many probes may stay unanswered.
pub(crate) const KEEPALIVE_RETRIES: u32 = 3;
/// How long sent data may stay unacknowledged before the kernel closes the connection.
pub(crate) const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(60);

/// The address of a server, and the log-in. `Debug` prints the password as `***`.
#[derive(Clone)]
pub struct ConnectTarget {
    /// Host name, address, or the directory of a Unix socket.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Role to log in as.
    pub user: String,
    /// Its password.
    pub password: SecretString,
    /// Database to connect to.
    pub database: String,
}

impl fmt::Debug for ConnectTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:***@{}:{}/{}",
            self.user, self.host, self.port, self.database
        )
    }
}

/// The target without its password, for messages: `user@host:port/database`.
impl fmt::Display for ConnectTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}:{}/{}", self.user, self.host, self.port, self.database)
    }
}

impl ConnectTarget {
    /// The same server and user, another database.
    #[must_use]
    pub fn with_database(&self, database: impl Into<String>) -> Self {
        Self {
            database: database.into(),
            ..self.clone()
        }
    }

    /// The same server, another log-in.
    #[must_use]
    pub fn with_user(&self, user: impl Into<String>, password: SecretString) -> Self {
        Self {
            user: user.into(),
            password,
            ..self.clone()
        }
    }

    /// The driver's configuration. `application` shows in `pg_stat_activity`; `connect_timeout` limits each
    /// address that the driver tries, and [`connect`](crate::connect) limits the whole connect.
    ///
    /// The kernel notices within about a minute that a host has vanished, both while the client waits for an
    /// answer and while it sends. A statement may run for any time.
    #[must_use]
    pub fn to_config(&self, application: &str, connect_timeout: Duration) -> Config {
        let mut config = Config::new();
        config
            .host(&self.host)
            .port(self.port)
            .user(&self.user)
            .password(self.password.expose_secret())
            .dbname(&self.database)
            .application_name(application)
            .connect_timeout(connect_timeout)
            .keepalives(true)
            .keepalives_idle(KEEPALIVE_IDLE)
            .keepalives_interval(KEEPALIVE_INTERVAL)
            .keepalives_retries(KEEPALIVE_RETRIES)
            .tcp_user_timeout(UNACKNOWLEDGED_MAX);
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_vanishes_is_noticed_within_bounds() {
        let target = ConnectTarget {
            host: "db".to_owned(),
            port: 5432,
            user: "u".to_owned(),
            password: SecretString::from("p"),
            database: "d".to_owned(),
        };
        let config = target.to_config("test", Duration::from_secs(1));
        assert!(config.get_keepalives());
        let questions = config.get_keepalives_interval().unwrap() * config.get_keepalives_retries().unwrap();
        assert!(config.get_keepalives_idle() + questions <= Duration::from_secs(60));
        assert!(
            config
                .get_tcp_user_timeout()
                .is_some_and(|limit| *limit <= Duration::from_secs(60))
        );
    }
}
