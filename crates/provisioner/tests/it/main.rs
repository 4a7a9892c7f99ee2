//! The provisioner against a real server: whole laboratories are made, moved through their life and taken
//! away.

#[cfg(test)]
mod adopt;
#[cfg(test)]
mod archive;
#[cfg(test)]
mod backup;
#[cfg(test)]
mod clocks;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod doctor;
#[cfg(test)]
mod doctor_rights;
#[cfg(test)]
mod doctor_service;
#[cfg(test)]
mod fence;
#[cfg(test)]
mod hosts;
#[cfg(test)]
mod isolation;
#[cfg(test)]
mod killed_server;
#[cfg(test)]
mod life;
#[cfg(test)]
mod not_ours;

#[cfg(test)]
mod failures;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod offboard;
mod preconditions;
#[cfg(test)]
mod recording;
#[cfg(test)]
mod registry_loss;
#[cfg(test)]
mod restore;
#[cfg(test)]
mod schedules;
#[cfg(test)]
mod server_state;
#[cfg(test)]
mod spares;
#[cfg(test)]
mod walls;
#[cfg(test)]
mod workers;
#[cfg(test)]
mod zoo;
