//! The harness itself, tried on the real server.

mod space;
