//! What stands before the handlers: connections, API keys, rates of clients, administrators.

pub(super) mod administration;
pub(super) mod authenticate;
pub(super) mod connections;
pub(super) mod error;
pub(super) mod rate_limit;
