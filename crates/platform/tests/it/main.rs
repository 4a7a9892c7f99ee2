//! The way both binaries start, against a real server.

#[cfg(test)]
mod prepare;
