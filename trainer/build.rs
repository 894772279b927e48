//! Records the revision of the source, for the manifests of exported models.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=../.git/HEAD");
    println!("cargo:rerun-if-changed=../.git/logs/HEAD");
    println!("cargo:rerun-if-env-changed=DENSECL_COMMIT");
    let given = std::env::var("DENSECL_COMMIT").ok();
    let commit = given.or_else(revision).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=DENSECL_COMMIT={commit}");
}

fn revision() -> Option<String> {
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}
