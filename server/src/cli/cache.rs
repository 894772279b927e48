//! Flags of the cache.

use std::ffi::OsStr;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, Args, Command};

use super::values::{ByteSize, ByteSizeOrZero, DurationValue};
use crate::cache::{CacheSettings, RedisAddress, RedisAddressError, RedisSettings};

/// Flags of the cache.
#[derive(Clone, Debug, Args)]
pub(super) struct CacheArgs {
    /// Memory for computed features, which equal requests and feature ids are answered from; 0 turns
    /// it off
    #[arg(long = "cache-bytes", env = "DENSECL_CACHE_BYTES", value_name = "SIZE", default_value = "512MiB")]
    bytes: ByteSizeOrZero,
    /// A Redis that replicas share features through
    #[arg(
        long = "cache-redis",
        env = "DENSECL_CACHE_REDIS",
        value_name = "URL",
        hide_env_values = true,
        value_parser = AddressParser,
        help = "A Redis that replicas share features through: redis://[[USER]:PASSWORD@]HOST[:PORT][/DB], rediss://… for TLS, or unix:///PATH"
    )]
    redis: Option<RedisAddress>,
    /// The longest that a request waits for Redis
    #[arg(
        long = "cache-redis-timeout",
        env = "DENSECL_CACHE_REDIS_TIMEOUT",
        value_name = "TIME",
        default_value = "50ms"
    )]
    redis_timeout: DurationValue,
    /// Life of features in Redis, such as 90s, 60m or 1day
    #[arg(long = "cache-redis-ttl", env = "DENSECL_CACHE_REDIS_TTL", value_name = "TIME", default_value = "60m")]
    redis_ttl: DurationValue,
    /// Largest features that are written to Redis or read from it
    #[arg(
        long = "cache-redis-max-entry",
        env = "DENSECL_CACHE_REDIS_MAX_ENTRY",
        value_name = "SIZE",
        default_value = "16MiB"
    )]
    redis_max_entry: ByteSize,
}

impl CacheArgs {
    pub(super) fn settings(&self) -> CacheSettings {
        let redis = self.redis.clone().map(|address| RedisSettings {
            address,
            timeout: self.redis_timeout.0,
            time_to_live: self.redis_ttl.0,
            max_entry_bytes: usize::try_from(self.redis_max_entry.0).unwrap_or(usize::MAX),
        });
        CacheSettings { memory_bytes: self.bytes.0, redis }
    }
}

/// Parses an address. Its errors do not repeat the value, which may hold a password; errors of clap do.
#[derive(Clone, Copy, Debug)]
struct AddressParser;

impl TypedValueParser for AddressParser {
    type Value = RedisAddress;

    fn parse_ref(&self, command: &Command, _: Option<&Arg>, value: &OsStr) -> Result<Self::Value, clap::Error> {
        parse_address("--cache-redis", command, value)
    }

    fn parse_ref_(
        &self,
        command: &Command,
        _: Option<&Arg>,
        value: &OsStr,
        source: ValueSource,
    ) -> Result<Self::Value, clap::Error> {
        let name = match source {
            ValueSource::EnvVariable => "the environment variable DENSECL_CACHE_REDIS",
            _ => "--cache-redis",
        };
        parse_address(name, command, value)
    }
}

fn parse_address(name: &str, command: &Command, value: &OsStr) -> Result<RedisAddress, clap::Error> {
    value.to_str().unwrap_or_default().parse().map_err(|error: RedisAddressError| {
        let message = format!("the value of {name} (not shown here) {error}\n");
        clap::Error::raw(ErrorKind::ValueValidation, message).with_cmd(command)
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};

    fn parse(url: &str) -> Result<super::CacheSettings, String> {
        let cli = Cli::try_parse_from(["densecl-server", "--cache-redis", url]).map_err(|error| error.to_string())?;
        let Command::Serve(serve) = cli.into_command() else { panic!("it serves") };
        Ok(serve.into_config().cache)
    }

    #[test]
    fn no_error_and_no_debug_output_shows_a_password() {
        let good = parse("redis://user:s3cret@cache.internal:6380/2").unwrap();
        assert!(!format!("{good:?}").contains("s3cret"), "{good:?}");
        for wrong in ["http://:s3cret@host", "rediss://:s3cret@host#insecure", "redis://:s3cret@host:port", "s3cret"] {
            let error = parse(wrong).unwrap_err();
            assert!(error.contains("--cache-redis") && !error.contains("s3cret"), "{wrong}: {error}");
        }
    }
}
