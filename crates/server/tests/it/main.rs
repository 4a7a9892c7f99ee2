//! The front door, as its users meet it: the real `tenantd` on a real PostgreSQL, over HTTP.

#[cfg(test)]
mod adopt;
#[cfg(test)]
mod backup_health;
#[cfg(test)]
mod backups;
#[cfg(test)]
mod bodies;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod described;
#[cfg(test)]
mod doctor;
#[cfg(test)]
mod exports;
#[cfg(test)]
mod feed;
#[cfg(test)]
mod fence;
#[cfg(test)]
mod forget;
#[cfg(test)]
mod guessing;
#[cfg(test)]
mod invitations;
#[cfg(test)]
mod isolation;
#[cfg(test)]
mod login;
#[cfg(test)]
mod marks;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod outages;
#[cfg(test)]
mod outdated;
#[cfg(test)]
mod own_password;
#[cfg(test)]
mod password_rules;
#[cfg(test)]
mod read_only;
#[cfg(test)]
mod readiness;
#[cfg(test)]
mod records;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod requests;
#[cfg(test)]
mod service;
#[cfg(test)]
mod service_manager;
#[cfg(test)]
mod sessions;
#[cfg(test)]
mod standing;
#[cfg(test)]
mod story;
#[cfg(test)]
mod strict;
#[cfg(test)]
mod support;
#[cfg(test)]
mod webhooks;
