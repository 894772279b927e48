//! The command line. Every flag of `serve` has an environment variable, too; the flag wins, and an empty variable counts
//! as unset.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

mod administration;
mod cache;
mod connections;
mod engine;
mod environment;
mod evaluate;
mod keys;
mod offline;
mod serve;
mod traces;
mod values;

pub use self::engine::{ComputePrecision, EngineArgs};
pub use self::evaluate::{Baseline, EvaluateArgs, Flip, RefineName};
pub use self::keys::{KeysCommand, NewKeyArgs};
pub use self::offline::{CorrespondenceArgs, FeaturesArgs, OfflineArgs, PoolName};
pub use self::serve::ServeArgs;
use self::values::parse_listen_address;

/// Serves dense features and point correspondences over HTTP.
#[derive(Debug, Parser)]
#[command(name = "densecl-server", version, about, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// Subcommand; `serve` if not given.
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
    /// Names of the environment variables that settings were taken from.
    #[arg(skip)]
    variables: Vec<String>,
}

impl Cli {
    /// Parses the arguments of this process and its environment variables. Ends the process if they are wrong, and for
    /// `--help` and `--version`.
    pub fn from_process() -> Self {
        let arguments: Vec<_> = std::env::args_os().collect();
        let mut command = environment::without_empty_variables(environment::of_subcommand(Self::command(), &arguments));
        let parsed = command.try_get_matches_from_mut(&arguments).and_then(|matches| {
            let cli = Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
            Ok(Self { variables: environment::used_variables(&command, &matches), ..cli })
        });
        parsed.unwrap_or_else(|error| environment::name_variables(error, &command, &arguments).exit())
    }

    /// A line that names the environment variables that settings were taken from, for errors about settings; `None` if
    /// there are none.
    pub fn settings_from_variables(&self) -> Option<String> {
        let names = environment::list(self.variables.iter().map(String::as_str));
        (!names.is_empty()).then(|| format!("settings from the environment: {names}"))
    }

    /// The subcommand with its arguments.
    pub fn into_command(self) -> Command {
        self.command.unwrap_or_else(|| Command::Serve(Box::new(self.serve)))
    }
}

/// A subcommand with its arguments.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Answer requests until SIGTERM or SIGINT (the default)
    Serve(Box<ServeArgs>),
    /// Compute the features of image files, without a server
    Features(Box<FeaturesArgs>),
    /// Find points of one image file in another, without a server
    Correspondence(Box<CorrespondenceArgs>),
    /// Measure correspondences on data with exact labels: HPatches, SPair-71k, procedural pairs and scenes
    Evaluate(Box<EvaluateArgs>),
    /// Check that a running server is ready, for the health check of a container
    Healthcheck(HealthcheckArgs),
    /// Print the OpenAPI document
    Openapi,
    /// List the models of a repository
    Models(ModelsArgs),
    /// Make API keys for clients
    #[command(subcommand)]
    Keys(KeysCommand),
}

/// Flags of the model repository.
#[derive(Clone, Debug, Args)]
pub struct RepositoryArgs {
    /// Folder of models, NAME/VERSION/model.onnx
    #[arg(long, env = "DENSECL_MODELS", value_name = "DIR", default_value = "models/zoo")]
    pub models: PathBuf,
}

/// Format of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text for people
    #[default]
    Text,
    /// One JSON document per line
    Json,
}

/// Format of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// Text for people
    #[default]
    Text,
    /// JSON for programs
    Json,
}

/// Arguments of `healthcheck`.
#[derive(Clone, Debug, Args)]
pub struct HealthcheckArgs {
    /// Address that the server listens on
    #[arg(long, env = "DENSECL_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:8080",
        value_parser = parse_listen_address)]
    pub listen: SocketAddr,
}

/// Arguments of `models`.
#[derive(Clone, Debug, Args)]
pub struct ModelsArgs {
    /// Flags of the model repository.
    #[command(flatten)]
    pub repository: RepositoryArgs,
    /// Format of the list
    #[arg(long, value_enum, default_value_t)]
    pub format: OutputFormat,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_valid() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_is_the_default() {
        let parse = |arguments: &[&str]| Cli::try_parse_from(arguments).unwrap().into_command();
        for arguments in
            [&["densecl-server", "--max-side", "512"][..], &["densecl-server", "serve", "--max-side", "512"]]
        {
            let Command::Serve(serve) = parse(arguments) else { panic!("{arguments:?} does not serve") };
            assert_eq!(serve.into_config().limits.max_side_px, 512);
        }
        assert!(matches!(parse(&["densecl-server", "openapi"]), Command::Openapi));
    }

    #[test]
    fn every_flag_has_a_variable() {
        let command = Cli::command();
        let serve = command.get_subcommands().find(|command| command.get_name() == "serve").unwrap();
        for argument in serve.get_arguments().filter(|argument| argument.get_long().is_some_and(|long| long != "help"))
        {
            let long = argument.get_long().unwrap_or_default();
            let expected = format!("DENSECL_{}", long.to_uppercase().replace('-', "_"));
            assert_eq!(argument.get_env().and_then(|name| name.to_str()), Some(expected.as_str()), "--{long}");
        }
    }
}
