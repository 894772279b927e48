//! `densecl-trainer`: see [`densecl_trainer::cli`].

use std::io::Write;

use anyhow::Result;
use clap::Parser;
use densecl_trainer::cli::Cli;
use tracing_subscriber::EnvFilter;

fn main() -> Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let text = Cli::parse().run()?;
    writeln!(std::io::stdout(), "{}", text.trim_end())?;
    Ok(())
}
