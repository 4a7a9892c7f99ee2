//! The migrator against a real server.

#[cfg(test)]
mod databases;
#[cfg(test)]
mod rights;
#[cfg(test)]
mod templates;
#[cfg(test)]
mod witness;
