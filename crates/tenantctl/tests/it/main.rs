//! `tenantctl` through its front door: the real program, its output, its exit codes.

#[cfg(test)]
mod adopt;
#[cfg(test)]
mod backups;
#[cfg(test)]
mod by_hand;
#[cfg(test)]
mod config;
#[cfg(test)]
mod ctl;
#[cfg(test)]
mod doctor;
#[cfg(test)]
mod interrupt;
#[cfg(test)]
mod invite;
#[cfg(test)]
mod losing_the_registry;
#[cfg(test)]
mod messages;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod shared_server;
#[cfg(test)]
mod story;
#[cfg(test)]
mod truth;
#[cfg(test)]
mod up;
#[cfg(test)]
mod webhooks;
