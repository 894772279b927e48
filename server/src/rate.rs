//! Rates of requests, as the flags and the file of API keys write them.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

/// Requests per time, written as `20/s`, `600/m` or `5000/h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    requests: NonZeroU32,
    per: Unit,
}

/// Unit of time of a [`Rate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Second,
    Minute,
    Hour,
}

impl Unit {
    const ALL: [Self; 3] = [Self::Second, Self::Minute, Self::Hour];

    fn name(self) -> &'static str {
        match self {
            Self::Second => "s",
            Self::Minute => "m",
            Self::Hour => "h",
        }
    }

    fn seconds(self) -> u32 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3600,
        }
    }
}

/// Text that is not a [`Rate`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a rate of at most 1000000: use N/s, N/m or N/h, such as 20/s")]
pub struct RateError {
    text: String,
}

impl Rate {
    /// Time in which one more request is granted; at least a microsecond.
    pub fn interval(&self) -> Duration {
        Duration::from_secs(self.per.seconds().into()) / self.requests.get()
    }

    /// Requests of one second, at least one.
    pub fn per_second(&self) -> NonZeroU32 {
        NonZeroU32::new(self.requests.get() / self.per.seconds()).unwrap_or(NonZeroU32::MIN)
    }
}

/// Writes the rate in the form that [`Rate::from_str`] reads.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.requests, self.per.name())
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // An interval shorter than a microsecond would round to nothing.
        const MAX_REQUESTS: u32 = 1_000_000;
        let rate = text.split_once('/').and_then(|(requests, unit)| {
            let requests = requests.trim().parse::<NonZeroU32>().ok()?;
            let per = Unit::ALL.into_iter().find(|known| known.name() == unit.trim())?;
            Some(Self { requests, per })
        });
        rate.filter(|rate| rate.requests.get() <= MAX_REQUESTS).ok_or_else(|| RateError { text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_rates() {
        let rate: Rate = "20/s".parse().unwrap();
        assert_eq!((rate.interval(), rate.per_second().get()), (Duration::from_millis(50), 20));
        let rate: Rate = "600/m".parse().unwrap();
        assert_eq!((rate.interval(), rate.per_second().get()), (Duration::from_millis(100), 10));
        let rate: Rate = "5 / h".parse().unwrap();
        assert_eq!((rate.interval(), rate.per_second().get()), (Duration::from_mins(12), 1));
        for text in ["20/s", "600/m", "5/h"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
        for wrong in ["", "20", "0/s", "-1/s", "20/d", "1.5/s", "20/s/s", "1000001/s"] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
    }
}
