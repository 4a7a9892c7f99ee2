//! The PostgreSQL servers that host laboratories.

use std::fmt;

use deadpool_postgres::GenericClient;
use jiff::Timestamp;
use model::ServerName;
use tokio_postgres::Row;

use crate::{RegistryError, row::Reader, sql};

/// A server.
#[derive(Clone, PartialEq, Eq)]
pub struct Server {
    /// The name it has here.
    pub name: ServerName,
    /// Host name, address or socket directory.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The role that makes databases and roles there.
    pub admin_user: String,
    /// That role's password, sealed.
    pub admin_secret: Vec<u8>,
    /// Raised by every change of the row, out of the same sequence as the tenants'.
    pub generation: i64,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When the row changed last.
    pub updated_at: Timestamp,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("name", &self.name)
            .field("host", &self.host)
            .field("port", &self.port)
            .field("admin_user", &self.admin_user)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

macro_rules! columns {
    () => {
        "name, host, port, admin_user, admin_secret, generation, created_at, updated_at"
    };
}

impl Server {
    fn from_row(row: &Row) -> Result<Self, RegistryError> {
        let r = Reader::new(row, "servers", "name");
        Ok(Self {
            name: r.with("name", |text: &str| ServerName::parse(text))?,
            host: r.get("host")?,
            port: r.with("port", |n: i32| u16::try_from(n))?,
            admin_user: r.get("admin_user")?,
            admin_secret: r.get("admin_secret")?,
            generation: r.get("generation")?,
            created_at: r.get("created_at")?,
            updated_at: r.get("updated_at")?,
        })
    }
}

/// What is to be known of a server.
#[derive(Clone)]
pub struct NewServer {
    /// The name it shall have.
    pub name: ServerName,
    /// Host name, address or socket directory.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The role that makes databases and roles there.
    pub admin_user: String,
    /// That role's password, sealed.
    pub admin_secret: Vec<u8>,
}

impl fmt::Debug for NewServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "NewServer({} {}@{}:{})",
            self.name, self.admin_user, self.host, self.port
        )
    }
}

/// Registers a server or changes what is known of it. Routers hear of a change and read every tenant of the
/// server again, so a caller that seals the same password anew should look at [`server_by_name`] first.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked.
pub async fn server_upsert(client: &impl GenericClient, new: &NewServer) -> Result<Server, RegistryError> {
    let statement = concat!(
        "INSERT INTO servers (name, host, port, admin_user, admin_secret) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (name) DO UPDATE SET host = excluded.host, port = excluded.port,
             admin_user = excluded.admin_user, admin_secret = excluded.admin_secret
         RETURNING ",
        columns!()
    );
    let row = sql::row_one(
        client,
        "registering a server",
        statement,
        &[
            &new.name.as_str(),
            &new.host,
            &i32::from(new.port),
            &new.admin_user,
            &new.admin_secret,
        ],
    )
    .await;
    Server::from_row(&row?)
}

/// The server of this name.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked or the row cannot be read.
pub async fn server_by_name(
    client: &impl GenericClient,
    name: &ServerName,
) -> Result<Option<Server>, RegistryError> {
    let statement = concat!("SELECT ", columns!(), " FROM servers WHERE name = $1");
    let row = sql::row_opt(client, "reading a server", statement, &[&name.as_str()]).await?;
    row.as_ref().map(Server::from_row).transpose()
}

/// All servers, by name. Their number is that of PostgreSQL clusters people run: no pages.
///
/// # Errors
/// As [`server_by_name`].
pub async fn servers_list(client: &impl GenericClient) -> Result<Vec<Server>, RegistryError> {
    let statement = concat!("SELECT ", columns!(), " FROM servers ORDER BY name");
    let rows = sql::rows(client, "listing servers", statement, &[]).await?;
    rows.iter().map(Server::from_row).collect()
}
