//! The migrations are embedded by a macro, and cargo does not see a file added beside them on its own.

fn main() {
    println!("cargo::rerun-if-changed=../../migrations-master");
}
