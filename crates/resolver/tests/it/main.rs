//! The resolver against a real PostgreSQL.

#[cfg(test)]
mod budget;
#[cfg(test)]
mod changes;
#[cfg(test)]
mod clean;
#[cfg(test)]
mod gate;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod lru;
#[cfg(test)]
mod outages;
#[cfg(test)]
mod outdated;
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod registration;
