//! Environment variables of flags: which count as unset, and errors that name them.

use std::ffi::{OsStr, OsString};

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

/// Treats empty environment variables as unset, at all levels of `command`.
pub(super) fn without_empty_variables(command: Command) -> Command {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    command
        .mut_args(
            |argument| if argument.get_env().is_some_and(is_empty) { argument.env(None::<&str>) } else { argument },
        )
        .mut_subcommands(without_empty_variables)
}

/// Leaves the variables to the subcommand, if `arguments` name one: the flags of the default subcommand would read them,
/// too, and refuse values that the subcommand's flags replace.
pub(super) fn of_subcommand(command: Command, arguments: &[OsString]) -> Command {
    let name = arguments.get(1).and_then(|argument| argument.to_str());
    if name.and_then(|name| command.find_subcommand(name)).is_none() {
        return command;
    }
    command.mut_args(|argument| argument.env(None::<&str>))
}

/// Adds to an error about the arguments which environment variables it may come from.
pub(super) fn name_variables(mut error: clap::Error, command: &Command, arguments: &[OsString]) -> clap::Error {
    if !error.use_stderr() {
        return error;
    }
    // Only what has been built knows how errors call its flags; subcommands are built when they are used.
    let mut command = command.clone();
    command.build();
    let set = set_variables(&command, arguments);
    let wrong = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(flag)) => set.iter().find(|variable| variable.flag == *flag),
        _ => None,
    };
    let tip = match wrong {
        Some(variable) => format!("the value is that of the environment variable {}", variable.name),
        None if set.is_empty() => return error,
        // The error is about several flags, or about none in particular.
        None => {
            format!("environment variables that are set: {}", list(set.iter().map(|variable| variable.name.as_str())))
        }
    };
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![StyledStr::from(tip)]));
    error
}

/// Names of the variables that settings were taken from.
pub(super) fn used_variables(command: &Command, matches: &ArgMatches) -> Vec<String> {
    let (command, matches) = match matches.subcommand() {
        Some((name, chosen)) => (command.find_subcommand(name).unwrap_or(command), chosen),
        None => (command, matches),
    };
    let used = command.get_arguments().filter(|argument| {
        let source = matches.try_get_raw(argument.get_id().as_str()).ok().flatten();
        source.is_some() && matches.value_source(argument.get_id().as_str()) == Some(ValueSource::EnvVariable)
    });
    used.filter_map(|argument| Some(argument.get_env()?.to_string_lossy().into_owned())).collect()
}

struct Variable {
    name: String,
    /// The flag as errors call it, such as `--threads <N>`.
    flag: String,
}

/// Variables that are set, and whose flags are not among the arguments.
fn set_variables(command: &Command, arguments: &[OsString]) -> Vec<Variable> {
    let mut set: Vec<Variable> = Vec::new();
    for command in std::iter::once(command).chain(command.get_subcommands()) {
        for argument in command.get_arguments() {
            let (Some(name), Some(long)) = (argument.get_env(), argument.get_long()) else { continue };
            let name = name.to_string_lossy().into_owned();
            let is_set = std::env::var_os(&name).is_some_and(|value| !value.is_empty());
            if is_set && !is_given(long, arguments) && set.iter().all(|known| known.name != name) {
                set.push(Variable { name, flag: argument.to_string() });
            }
        }
    }
    set
}

fn is_given(long: &str, arguments: &[OsString]) -> bool {
    arguments.iter().any(|argument| {
        let rest = argument.to_str().and_then(|text| text.strip_prefix("--")).and_then(|text| text.strip_prefix(long));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    })
}

/// The names, separated by commas.
pub(super) fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}
