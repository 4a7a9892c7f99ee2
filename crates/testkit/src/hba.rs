use std::time::Duration;

use pg::ConnectTarget;
use tokio_postgres::Client;

const CONNECT_LIMIT: Duration = Duration::from_secs(30);
/// Any number that no other test locks: two tests that change the file at once would lose one of the changes.
const LOCK: i64 = 0x6862_615f_7465_7374;

/// A line at the top of the server's `pg_hba.conf`, until [`HbaLine::take_away`].
///
/// It names one role, so other tests on the server are not disturbed, also when it is left behind.
pub struct HbaLine {
    client: Client,
    line: String,
}

impl HbaLine {
    /// Rejects the role, wherever it comes from.
    ///
    /// # Panics
    /// As [`HbaLine::new`].
    pub async fn rejecting(server: &ConnectTarget, role: &str) -> Self {
        Self::new(server, role, "reject").await
    }

    /// Puts a line for the role with this authentication method at the top of the file and has the server
    /// read it.
    ///
    /// # Panics
    /// When the server cannot be asked, or `server` is not a superuser's log-in.
    pub async fn new(server: &ConnectTarget, role: &str, method: &str) -> Self {
        let client = pg::connect(server, "tenantry testkit", CONNECT_LIMIT)
            .await
            .expect("the test server can be connected to");
        let line = format!("host all \"{role}\" all {method}\n");
        let added = Self { client, line };
        let line = added.line.clone();
        added.change(|text| format!("{line}{text}")).await;
        added
    }

    /// Takes the line away again.
    ///
    /// # Panics
    /// As [`HbaLine::new`].
    pub async fn take_away(self) {
        let line = self.line.clone();
        self.change(|text| text.replace(&line, "")).await;
    }

    async fn change(&self, change: impl FnOnce(String) -> String) {
        let client = &self.client;
        let lock = client.execute("SELECT pg_advisory_lock($1)", &[&LOCK]).await;
        lock.expect("the lock can be taken");
        let read = "SELECT pg_read_file(current_setting('hba_file'))";
        let text: String = client
            .query_one(read, &[])
            .await
            .expect("the file can be read")
            .get(0);
        // As a large object, whose export changes no byte; it is not seen before the statement after the one
        // that makes it.
        let make = "SELECT lo_from_bytea(0, $1)";
        let object: u32 = client
            .query_one(make, &[&change(text).into_bytes()])
            .await
            .expect("a large object can be made")
            .get(0);
        let write = "SELECT lo_export($1, current_setting('hba_file')), lo_unlink($1)";
        client
            .query(write, &[&object])
            .await
            .expect("the file can be written");
        client
            .execute("SELECT pg_reload_conf(), pg_advisory_unlock($1)", &[&LOCK])
            .await
            .expect("the server can be told to read the file");
    }
}
