//! Failed commands, by what can be done about them.

use redis::{ErrorKind, RedisError};

use crate::cache::metrics::RedisErrorKind;

/// A failed command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CommandError {
    /// Redis refused the command; it may take others.
    Refused { kind: RedisErrorKind, cause: Cause },
    /// The connection is broken, or leads to a Redis that takes no command of ours.
    Unusable { kind: RedisErrorKind, cause: Cause },
}

/// Cause of an error, for the log. It contains neither the address nor a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cause {
    /// The first word of Redis' answer, such as `READONLY`; empty if there is no answer.
    pub(super) code: String,
    /// The answer, or why there is none.
    pub(super) reason: String,
}

/// Codes of a Redis that is the wrong one, or not ready: another connection may lead to the right one.
const UNUSABLE: [&str; 11] = [
    "READONLY",
    "MOVED",
    "ASK",
    "CLUSTERDOWN",
    "CROSSSLOT",
    "TRYAGAIN",
    "LOADING",
    "MASTERDOWN",
    "NOAUTH",
    "NOPERM",
    WRONG_PASSWORD,
];
const WRONG_PASSWORD: &str = "WRONGPASS";
/// Codes of a Redis from which entries can be read, but which takes no writes for a while.
const READS_ONLY: [&str; 3] = ["OOM", "MISCONF", "NOREPLICAS"];

impl Cause {
    /// The cause of a failure without an answer.
    pub(super) fn without_answer(reason: impl Into<String>) -> Self {
        Self { code: String::new(), reason: reason.into() }
    }

    /// True if entries can still be read.
    pub(super) fn is_about_writes(&self) -> bool {
        READS_ONLY.contains(&&*self.code)
    }

    /// True if the key holds a value of another type.
    pub(super) fn is_about_value(&self) -> bool {
        self.code == "WRONGTYPE"
    }

    /// Advice for the log.
    pub(super) fn advice(&self) -> &'static str {
        match &*self.code {
            "READONLY" => "it is a replica: name the primary, or an address that follows it",
            "MOVED" | "ASK" | "CLUSTERDOWN" | "CROSSSLOT" | "TRYAGAIN" => {
                "it is a node of a Redis Cluster, which is not supported: name a single Redis, or a proxy"
            }
            "LOADING" | "MASTERDOWN" => "it is used as soon as it is ready",
            "NOAUTH" | WRONG_PASSWORD => "check the user and the password of --cache-redis",
            "NOPERM" => "its user needs the commands PING, GETRANGE, SET and UNLINK on keys densecl:features:*",
            "OOM" => "it is full: set maxmemory-policy allkeys-lru",
            _ => "it is used as soon as it answers",
        }
    }
}

impl From<RedisError> for CommandError {
    fn from(error: RedisError) -> Self {
        let code = match error.kind() {
            ErrorKind::AuthenticationFailed => WRONG_PASSWORD,
            _ => error.code().unwrap_or_default(),
        };
        let reason = error.detail().map_or_else(|| error.to_string(), str::to_owned);
        let cause = Cause { code: code.to_owned(), reason };
        match code {
            "" if error.is_timeout() => Self::Unusable { kind: RedisErrorKind::Timeout, cause },
            "" => Self::Unusable { kind: RedisErrorKind::Connection, cause },
            "OOM" => Self::Refused { kind: RedisErrorKind::Full, cause },
            code if UNUSABLE.contains(&code) => Self::Unusable { kind: RedisErrorKind::Refused, cause },
            _ => Self::Refused { kind: RedisErrorKind::Refused, cause },
        }
    }
}

#[cfg(test)]
mod tests {
    use redis::{Value, parse_redis_value};

    use super::*;

    fn answered(line: &str) -> CommandError {
        let value = parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
        let Value::ServerError(error) = value else { panic!("{line} is an error") };
        RedisError::from(error).into()
    }

    #[test]
    fn a_wrong_redis_is_left_and_a_refused_command_is_not() {
        for line in [
            "READONLY You can't write against a read only replica.",
            "MOVED 3999 127.0.0.1:6381",
            "LOADING Redis is loading the dataset in memory",
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            "NOAUTH Authentication required.",
            "NOPERM User default has no permissions to run the 'set' command",
            "CLUSTERDOWN The cluster is down",
        ] {
            let CommandError::Unusable { kind, cause } = answered(line) else { panic!("{line} is final") };
            assert_eq!((kind, &*cause.code), (RedisErrorKind::Refused, line.split(' ').next().unwrap()));
            assert!(line.ends_with(&cause.reason), "{line}: {}", cause.reason);
        }
        for (line, expected) in [
            ("OOM command not allowed when used memory > 'maxmemory'.", RedisErrorKind::Full),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", RedisErrorKind::Refused),
            ("MISCONF Errors writing to the RDB file", RedisErrorKind::Refused),
            ("ERR unknown command 'GETRANGE'", RedisErrorKind::Refused),
        ] {
            let CommandError::Refused { kind, .. } = answered(line) else { panic!("{line} is about one command") };
            assert_eq!(kind, expected, "{line}");
        }
        let broken = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        let CommandError::Unusable { kind, cause } = RedisError::from(broken).into() else { panic!("it is broken") };
        assert_eq!((kind, &*cause.code), (RedisErrorKind::Connection, ""));
    }
}
