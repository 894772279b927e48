//! The command `densecl-server`.

mod commands;

use std::io::{self, Write};
use std::process::ExitCode;

use densecl_server::cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::from_process();
    let settings = cli.settings_from_variables();
    let result = match cli.into_command() {
        Command::Serve(arguments) => commands::serve(*arguments),
        Command::Features(arguments) => commands::features(&arguments),
        Command::Correspondence(arguments) => commands::correspondence(&arguments),
        Command::Evaluate(arguments) => commands::evaluate(&arguments),
        Command::Healthcheck(arguments) => commands::healthcheck(&arguments),
        Command::Openapi => commands::openapi(),
        Command::Models(arguments) => commands::models(&arguments),
        Command::Keys(command) => commands::keys(&command),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error may be closed; there is nowhere else to report it.
            let _ = writeln!(io::stderr(), "densecl-server: {error:#}");
            if let Some(settings) = settings {
                let _ = writeln!(io::stderr(), "densecl-server: {settings}");
            }
            ExitCode::FAILURE
        }
    }
}
