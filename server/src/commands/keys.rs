//! `keys`: makes API keys.

use std::io::{self, Write};

use anyhow::Context;
use densecl_server::api_keys::NewKey;
use densecl_server::cli::{KeysCommand, NewKeyArgs};

use super::output::print;

pub(crate) fn keys(command: &KeysCommand) -> anyhow::Result<()> {
    let KeysCommand::New(arguments) = command;
    new(arguments)
}

/// Prints the entry to standard output, to be appended to the file. The key itself goes to standard
/// error, so that it never ends up in the file.
fn new(arguments: &NewKeyArgs) -> anyhow::Result<()> {
    let mut key = NewKey::generate(&arguments.name)?;
    if arguments.admin {
        key = key.for_administration();
    }
    if let Some(rate) = arguments.rate {
        key = key.with_rate(rate, arguments.burst);
    }
    if let Some(day) = arguments.expires {
        key = key.expiring_after(day);
    }
    writeln!(
        io::stderr(),
        "The key, which is shown only now:\n\n{}\n\nIts entry for the file of --api-keys:\n",
        key.secret()
    )
    .context("cannot show the key")?;
    print(&key.entry())
}
