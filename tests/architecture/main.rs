//! The rules of ARCHITECTURE.md about which crate and which module may use which.
//!
//! Nothing is compiled but this test: crates are read from `cargo metadata`, modules from their source files.

mod crates;
mod modules;
mod sources;

use std::path::Path;

/// Root of the repository.
fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}
