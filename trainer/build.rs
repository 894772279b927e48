//! Compiles the few libtorch calls that tch lacks, and records the revision of the source for the
//! manifests of exported models.

use std::path::Path;
use std::process::Command;

fn main() {
    // A path that does not exist would count as changed, and everything be compiled again each time.
    for path in ["HEAD", "logs/HEAD"].into_iter().filter_map(git_path).filter(|path| Path::new(path).exists()) {
        println!("cargo:rerun-if-changed={path}");
    }
    println!("cargo:rerun-if-env-changed=DENSECL_COMMIT");
    let given = std::env::var("DENSECL_COMMIT").ok();
    let commit = given.or_else(revision).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=DENSECL_COMMIT={commit}");

    compile_native();
}

/// `native/` against the headers of the libtorch that torch-sys links.
fn compile_native() {
    println!("cargo:rerun-if-changed=native");
    let libraries = std::env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys says where libtorch is");
    let include = Path::new(&libraries).parent().unwrap_or(Path::new(&libraries)).join("include");
    let abi = std::env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".to_owned());
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .warnings(false) // libtorch's headers have their own
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .include("native") // what libtorch's headers need of Gloo's
        .define("USE_C10D_GLOO", None)
        .define("_GLIBCXX_USE_CXX11_ABI", abi.as_str())
        .files(["native/ops.cpp", "native/process_group.cpp"])
        .compile("densecl_native");
}

fn revision() -> Option<String> {
    git(&["rev-parse", "--short=12", "HEAD"])
}

/// Where git keeps a file of this checkout, which may be a worktree of another.
fn git_path(file: &str) -> Option<String> {
    git(&["rev-parse", "--git-path", file])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}
