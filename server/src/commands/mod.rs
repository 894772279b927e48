//! The subcommands.

mod evaluate;
mod healthcheck;
mod keys;
mod models;
mod offline;
mod output;
mod serve;

pub(crate) use self::evaluate::evaluate;
pub(crate) use self::healthcheck::healthcheck;
pub(crate) use self::keys::keys;
pub(crate) use self::models::{models, openapi};
pub(crate) use self::offline::{correspondence, features};
pub(crate) use self::serve::serve;
