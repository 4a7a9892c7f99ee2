//! What both binaries are told from outside, as one typed struct per concern.
//!
//! Four layers, the later wins: built-in defaults, one TOML file, files that hold one secret each, the
//! environment. Every key stands once, in [`KEYS`]: its environment name, its default, what it accepts and
//! what it means. Reading, refusing, explaining and the table in docs/configuration.md all come from there,
//! so they cannot disagree.
//!
//! Invariant: a [`Settings`] that exists is valid. A key that is unknown or a value that is not accepted is
//! refused by its name, with where it came from and what would be accepted; all problems are told at once.
//! Settings never opens a connection and never reads the process' environment by itself: it is passed in.

mod accept;
mod error;
mod explain;
mod keys;
mod layers;
mod load;
mod secrets;
mod sections;
mod values;

pub use accept::Accept;
pub use error::{Problem, SettingsError};
pub use explain::{Explained, markdown_table};
pub use ipnet::IpNet;
pub use keys::{DefaultValue, KEYS, Key, OTHER_VARIABLES};
pub use secrets::{SECRET_VARIABLES, file_variable, secret_variable};
pub use sections::{
    Archive, Auth, ClientHeader, DefaultTenant, DefaultTenantHint, Http, Log, LogFormat, Names, Paths,
    RegistrySettings, Roles, Router, ServerAddress, Settings, TenantServerSettings, Webhooks, Worker,
};
