//! The trainer's command line as a separate process.
//!
//! ONNX Runtime allows one environment per process. Tests that run the server's engine therefore export models by this
//! program, which checks them in the trainer's ONNX Runtime.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use densecl_trainer::cli::Cli;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(text) => {
            let _ = writeln!(std::io::stdout(), "{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
