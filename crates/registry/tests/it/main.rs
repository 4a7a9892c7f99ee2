//! The registry against a real PostgreSQL.

#[cfg(test)]
mod another_use;
#[cfg(test)]
mod audit;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod leases;
#[cfg(test)]
mod listener;
#[cfg(test)]
mod notifications;
#[cfg(test)]
mod operations;
#[cfg(test)]
mod order;
#[cfg(test)]
mod people;
#[cfg(test)]
mod pool;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod routers;
#[cfg(test)]
mod schema;
#[cfg(test)]
mod server_log;
#[cfg(test)]
mod tenants;
#[cfg(test)]
mod words;
