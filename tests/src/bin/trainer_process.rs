//! The trainer's command line as a process of its own.
//!
//! ONNX Runtime allows one environment per process, so tests that run the server's engine leave
//! exports, which are checked in the trainer's ONNX Runtime, to this program.

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
