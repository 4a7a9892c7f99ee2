//! The embedding macro tracks the files it found, not the directory: without this a new migration would not
//! be seen until something else in the crate changed.

fn main() {
    println!("cargo::rerun-if-changed=../../migrations-tenant");
    println!("cargo::rerun-if-changed=build.rs");
}
