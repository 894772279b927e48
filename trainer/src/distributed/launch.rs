//! The environment variables that a launcher such as `torchrun` sets.

use std::env;

use super::ProcessRank;

/// Variables that a launcher sets, always all of them.
const VARIABLES: [&str; 5] = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"];

/// One process of several, as its launcher started it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Rank of the process and number of processes.
    pub process: ProcessRank,
    /// Rank among the processes of this machine: the number of its GPU.
    pub local_rank: usize,
    /// Name or address of the machine of process 0.
    pub master_host: String,
    /// A free port there, or that of the launcher's store.
    pub master_port: u16,
    /// `true` if the launcher has opened a store there (`torchrun` does).
    pub launchers_store: bool,
    /// Number of times that the launcher has restarted the processes.
    pub restarts: String,
}

/// Environment variables that contradict each other.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// Some of the variables are there, others are not.
    #[error(
        "the environment says {} but not {}: a launcher such as torchrun sets all of {}; set the missing ones, or \
         none to train in one process", .set.join(", "), .missing.join(", "), VARIABLES.join(", ")
    )]
    HalfSet {
        /// Variables that are set.
        set: Vec<&'static str>,
        /// Variables that are not.
        missing: Vec<&'static str>,
    },
    /// A variable has an invalid value.
    #[error("{variable} is `{value}` in the environment; expected {expected}")]
    Value {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// A description of valid values.
        expected: String,
    },
}

impl Launch {
    /// Reads the launch from the environment; `None` without one, or with one process.
    ///
    /// # Errors
    /// If some variables are missing, or values do not fit.
    pub fn from_env() -> Result<Option<Self>, LaunchError> {
        Self::read(|name| env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn read(find: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, LaunchError> {
        let (set, missing): (Vec<_>, Vec<_>) = VARIABLES.into_iter().partition(|name| find(name).is_some());
        if set.is_empty() {
            return Ok(None);
        }
        let number = |variable: &'static str, expected: &str, fits: &dyn Fn(usize) -> bool| {
            let value = find(variable).unwrap_or_default();
            let number = value.parse().ok().filter(|number| fits(*number));
            number.ok_or(LaunchError::Value { variable, value, expected: expected.to_owned() })
        };
        if find("WORLD_SIZE").is_some_and(|size| size == "1") {
            return Ok(None);
        }
        if !missing.is_empty() {
            return Err(LaunchError::HalfSet { set, missing });
        }
        let size = number("WORLD_SIZE", "a number of processes, 1 or more", &|size| size >= 1)?;
        let below = format!("a number from 0 to {}, below WORLD_SIZE", size - 1);
        let rank = number("RANK", &below, &|rank| rank < size)?;
        let local_rank = number("LOCAL_RANK", &below, &|rank| rank < size)?;
        let master_port = number("MASTER_PORT", "a port", &|port| (1..=65_535).contains(&port))? as u16;
        Ok(Some(Self {
            process: ProcessRank { rank, size },
            local_rank,
            master_host: find("MASTER_ADDR").unwrap_or_default(),
            master_port,
            launchers_store: find("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|value| value == "True"),
            restarts: find("TORCHELASTIC_RESTART_COUNT").unwrap_or_else(|| "0".to_owned()),
        }))
    }
}

/// Returns `true` if, by the environment, this process is one of several but not the first, which
/// reports for all.
pub fn is_secondary_rank() -> bool {
    matches!(Launch::from_env(), Ok(Some(Launch { process: ProcessRank { rank: 1.., .. }, .. })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Launch>, LaunchError> {
        Launch::read(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
    }

    const WHOLE: [(&str, &str); 5] = [
        ("RANK", "3"),
        ("LOCAL_RANK", "1"),
        ("WORLD_SIZE", "4"),
        ("MASTER_ADDR", "10.0.0.1"),
        ("MASTER_PORT", "29500"),
    ];

    #[test]
    fn a_launch_is_read_whole_or_not_at_all() {
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[("WORLD_SIZE", "1"), ("RANK", "0")]), Ok(None));
        let launch = read(&WHOLE).unwrap().unwrap();
        assert_eq!(launch.process, ProcessRank { rank: 3, size: 4 });
        assert_eq!((launch.local_rank, launch.master_port, launch.launchers_store), (1, 29_500, false));
        let mut torchrun = WHOLE.to_vec();
        torchrun.extend([("TORCHELASTIC_USE_AGENT_STORE", "True"), ("TORCHELASTIC_RESTART_COUNT", "2")]);
        let launch = read(&torchrun).unwrap().unwrap();
        assert!(launch.launchers_store && launch.restarts == "2");
    }

    #[test]
    fn missing_and_invalid_variables_are_named() {
        let message = |variables: &[(&str, &str)]| read(variables).unwrap_err().to_string();
        let half = message(&WHOLE[..3]);
        assert!(half.contains("says RANK, LOCAL_RANK, WORLD_SIZE but not MASTER_ADDR, MASTER_PORT:"), "{half}");
        let with = |name: &'static str, value: &'static str| {
            let replaced = WHOLE.map(|(known, old)| (known, if known == name { value } else { old }));
            message(&replaced)
        };
        assert!(with("RANK", "4").contains("RANK is `4`") && with("RANK", "4").contains("0 to 3"));
        assert!(with("MASTER_PORT", "70000").contains("a port"));
        assert!(with("WORLD_SIZE", "two").contains("WORLD_SIZE is `two`"));
    }
}
