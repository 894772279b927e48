//! Limits before the handlers: connections, API keys, rate limits, administrators.

pub(super) mod administration;
pub(super) mod authenticate;
pub(super) mod connections;
pub(super) mod error;
pub(super) mod rate_limit;
