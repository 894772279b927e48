//! Rates of requests, as the flags and the file of API keys write them.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

/// Requests per time, written as `20/s`, `600/m` or `5000/h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    requests: NonZeroU32,
    per: Duration,
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
        self.per / self.requests.get()
    }

    /// Requests of one second, at least one.
    pub fn per_second(&self) -> NonZeroU32 {
        let per_second = u64::from(self.requests.get()) / self.per.as_secs().max(1);
        NonZeroU32::new(u32::try_from(per_second).unwrap_or(u32::MAX)).unwrap_or(NonZeroU32::MIN)
    }
}

/// Writes the rate in the form that [`Rate::from_str`] reads.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.per.as_secs() {
            1 => "s",
            60 => "m",
            _ => "h",
        };
        write!(f, "{}/{unit}", self.requests)
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // An interval shorter than a microsecond would round to nothing.
        const MAX_REQUESTS: u32 = 1_000_000;
        let units = [("s", 1), ("m", 60), ("h", 3600)];
        let rate = text.split_once('/').and_then(|(requests, unit)| {
            let requests = requests.trim().parse::<NonZeroU32>().ok()?;
            let (_, seconds) = units.into_iter().find(|(name, _)| *name == unit.trim())?;
            Some(Self { requests, per: Duration::from_secs(seconds) })
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
