//! The way both binaries start, against a real server.

#[cfg(test)]
mod embedded;
#[cfg(test)]
mod prepare;
