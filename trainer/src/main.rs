//! `densecl-trainer`: see [`densecl_trainer::cli`].

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use densecl_trainer::cli::Cli;
use densecl_trainer::distributed::is_secondary_rank;
use densecl_trainer::monitor::LogWriter;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    // Of several processes that train together, only the first reports progress.
    let level = if is_secondary_rank() { "warn" } else { "info,ort=warn" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(LogWriter).init();
    match Cli::parse().run() {
        Ok(text) if text.is_empty() => ExitCode::SUCCESS,
        Ok(text) => {
            // A reader that has gone away, as `head` does, is no failure of the command.
            let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
