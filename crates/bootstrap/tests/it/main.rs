//! The way both binaries start, against a real server.

#[cfg(test)]
mod budget;
#[cfg(test)]
mod clock;
#[cfg(test)]
mod embedded;
#[cfg(test)]
mod fit;
#[cfg(test)]
mod moved;
#[cfg(test)]
mod prepare;
