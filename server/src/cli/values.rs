//! Values of flags: sizes, durations, addresses and networks.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

/// Text that a flag does not take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub(super) struct ValueError {
    text: String,
    expected: &'static str,
}

impl ValueError {
    fn new(text: &str, expected: &'static str) -> Self {
        Self { text: text.to_owned(), expected }
    }
}

/// Bytes, at least one, such as `512`, `64KiB`, `1.5GiB` or `32MB` (decimal).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ByteSize(pub(super) u64);

impl FromStr for ByteSize {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = text.trim();
        let number = number.strip_prefix('+').unwrap_or(number);
        let bytes = number.parse().ok().map(|bytesize::ByteSize(bytes)| bytes);
        // `bytesize` turns a size that is too large into the largest one.
        let is_too_large = |bytes: u64| bytes == u64::MAX && number.parse::<u64>().is_err();
        bytes
            .filter(|&bytes| bytes > 0 && !is_too_large(bytes))
            .map(Self)
            .ok_or_else(|| ValueError::new(text, "a size: use bytes, KiB, MiB, GiB, kB, MB or GB, such as 32MiB"))
    }
}

/// Bytes as [`ByteSize`], or 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ByteSizeOrZero(pub(super) u64);

impl FromStr for ByteSizeOrZero {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim() == "0" {
            return Ok(Self(0));
        }
        text.parse().map(|ByteSize(bytes)| Self(bytes))
    }
}

/// A duration, such as `250ms`, `30s`, `0.5m`, `1h30m` or `2 days`; a bare number is seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DurationValue(pub(super) Duration);

impl FromStr for DurationValue {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = text.trim_end_matches(char::is_alphabetic);
        let duration = match number.trim().parse() {
            Ok(count) => count_of_units(count, &text[number.len()..]),
            Err(_) => humantime::parse_duration(text).ok(),
        };
        duration
            .map(Self)
            .ok_or_else(|| ValueError::new(text, "a duration: use ms, s, m, h or days, such as 30s or 1h30m"))
    }
}

/// One number with or without a unit. `humantime` knows the units; it refuses `30`, `.5s` and `1e3ms`.
fn count_of_units(count: f64, unit: &str) -> Option<Duration> {
    let unit = if unit.is_empty() { "s" } else { unit };
    let unit = humantime::parse_duration(&format!("1{unit}")).ok()?;
    Duration::try_from_secs_f64(count * unit.as_secs_f64()).ok()
}

/// Reads an address to listen on, `127.0.0.1:8080`, or resolves a host name, `localhost:8080`. Of several addresses it
/// takes the first one of IPv4, which works in containers without IPv6.
///
/// # Errors
/// If the text has no port, or the host has no address.
pub(super) fn parse_listen_address(text: &str) -> Result<SocketAddr, ValueError> {
    let addresses = text.to_socket_addrs().ok();
    addresses
        .and_then(|addresses| addresses.min_by_key(SocketAddr::is_ipv6))
        .ok_or_else(|| ValueError::new(text, "an address that can be found: use HOST:PORT, such as 127.0.0.1:8080"))
}

/// A proxy's address, `10.0.0.7`, or a network of them, `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProxyNetwork(pub(super) IpNet);

impl FromStr for ProxyNetwork {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let network = text.parse::<IpNet>().or_else(|_| text.parse().map(|address: IpAddr| address.into()));
        network.map(Self).map_err(|_| ValueError::new(text, "an address or a network, such as 10.0.0.7 or 10.0.0.0/8"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(text: &str) -> Option<u64> {
        text.parse().ok().map(|ByteSize(bytes)| bytes)
    }

    fn duration(text: &str) -> Option<Duration> {
        text.parse().ok().map(|DurationValue(duration)| duration)
    }

    #[test]
    fn reads_sizes() {
        for (text, expected) in [
            ("4096", 4096),
            ("+5", 5),
            ("64KiB", 64 << 10),
            ("32 MiB", 32 << 20),
            ("1GiB", 1 << 30),
            ("1.5GiB", 3 << 29),
            ("32MB", 32_000_000),
            ("1.5 kB", 1500),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(bytes(text), Some(expected), "{text}");
        }
        for wrong in ["", "0", "0MiB", "0.1", "-1", "MiB", "1e3", "1.2.3MiB", "99999999999GiB", "99999999999.5GiB"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
        let error = "32 furlongs".parse::<ByteSize>().unwrap_err().to_string();
        assert!(error.contains("`32 furlongs`") && error.contains("such as 32MiB"), "{error}");
    }

    #[test]
    fn zero_is_a_size_only_where_it_turns_something_off() {
        assert_eq!("0".parse(), Ok(ByteSizeOrZero(0)));
        assert_eq!("1GiB".parse(), Ok(ByteSizeOrZero(1 << 30)));
        for wrong in ["", "-1", "0MiB", "all"] {
            assert!(wrong.parse::<ByteSizeOrZero>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn reads_durations() {
        for (text, expected) in [
            ("250ms", Duration::from_millis(250)),
            ("0.5ms", Duration::from_micros(500)),
            ("30", Duration::from_secs(30)),
            (" 30 s", Duration::from_secs(30)),
            ("0s", Duration::ZERO),
            (".5", Duration::from_millis(500)),
            ("1e3ms", Duration::from_secs(1)),
            ("5m", Duration::from_mins(5)),
            ("0.5m", Duration::from_secs(30)),
            ("1h", Duration::from_hours(1)),
            ("1.5h", Duration::from_mins(90)),
            ("1h30m", Duration::from_mins(90)),
            ("2 days", Duration::from_hours(48)),
            ("1day 2h", Duration::from_hours(26)),
        ] {
            assert_eq!(duration(text), Some(expected), "{text}");
        }
        for wrong in ["", "s", "-1s", "nan", "inf", "1e300", "1 fortnight", "1h30", "s5", "1e300days"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
        let error = "soon".parse::<DurationValue>().unwrap_err().to_string();
        assert!(error.contains("`soon`") && error.contains("such as 30s"), "{error}");
    }

    proptest! {
        #[test]
        fn binary_sizes_are_exact(count in 1_u64..1 << 33, unit in 0_usize..4) {
            let text = format!("{count}{}", ["", "KiB", "MiB", "GiB"][unit]);
            prop_assert_eq!(bytes(&text), Some(count << (10 * unit)));
        }

        #[test]
        fn a_number_of_units_is_its_product(count in 0.0_f64..1e9, unit in 0_usize..4) {
            let (name, seconds) = [("", 1.0), ("ms", 0.001), ("s", 1.0), ("m", 60.0)][unit];
            prop_assert_eq!(duration(&format!("{count}{name}")), Some(Duration::from_secs_f64(count * seconds)));
        }

        #[test]
        fn any_text_is_read_or_refused(text: String) {
            let (_, _) = (bytes(&text), duration(&text));
        }
    }

    #[test]
    fn reads_addresses_to_listen_on() {
        for text in ["127.0.0.1:8080", "[::1]:0", "0.0.0.0:80"] {
            assert_eq!(parse_listen_address(text).map(|address| address.to_string()).as_deref(), Ok(text));
        }
        let local = parse_listen_address("localhost:8080").unwrap();
        assert!(local.ip().is_loopback() && local.port() == 8080, "{local}");
        for wrong in ["", "127.0.0.1", "127.0.0.1:99999", ":8080x"] {
            assert!(parse_listen_address(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn reads_networks() {
        let network: ProxyNetwork = "10.0.0.7".parse().unwrap();
        assert_eq!(network.0.to_string(), "10.0.0.7/32");
        for right in ["10.0.0.0/8", "::1", "fd00::/8"] {
            assert!(right.parse::<ProxyNetwork>().is_ok(), "{right}");
        }
        for wrong in ["", "proxy", "10.0.0.0/33", "10.0.0"] {
            assert!(wrong.parse::<ProxyNetwork>().is_err(), "{wrong}");
        }
    }
}
