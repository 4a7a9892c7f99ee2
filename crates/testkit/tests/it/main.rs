//! The harness itself, tried on the real server, and the code map, tried on the code.

#[cfg(test)]
mod architecture;
#[cfg(test)]
mod import_cycles;
#[cfg(test)]
mod links;
#[cfg(test)]
mod reliability;
#[cfg(test)]
mod setup;
#[cfg(test)]
mod space;
