//! Values of flags: sizes, durations, addresses and networks.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
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

/// Port of an address without one.
const DEFAULT_PORT: u16 = 8080;

/// Reads an address to listen on: `127.0.0.1:8080`, `[::1]:8080`, a host name that is resolved, `localhost:8080`, `:8080`
/// or `*:8080` for all addresses of IPv4, a port of the loopback address, `8080`, or a host of the default port,
/// `0.0.0.0`. Of several addresses of a name it takes the first one of IPv4, which works in containers without IPv6.
///
/// # Errors
/// If the text has no such form, or the host has no address.
pub(super) fn parse_listen_address(text: &str) -> Result<SocketAddr, ValueError> {
    let expected = "an address that can be found: use HOST:PORT, such as 127.0.0.1:8080, localhost:8080, [::1]:8080, :8080 for all addresses, or a port";
    resolve(text.trim(), Some(DEFAULT_PORT)).ok_or_else(|| ValueError::new(text, expected))
}

/// Reads the address of administrators, as [`parse_listen_address`] does. It has no default port.
///
/// # Errors
/// If the text has no such form or no port, or the host has no address.
pub(super) fn parse_admin_address(text: &str) -> Result<SocketAddr, ValueError> {
    let expected =
        "an address that can be found: use HOST:PORT, such as 127.0.0.1:9090, localhost:9090, [::1]:9090, or a port";
    resolve(text.trim(), None).ok_or_else(|| ValueError::new(text, expected))
}

fn resolve(text: &str, default_port: Option<u16>) -> Option<SocketAddr> {
    if let Some(port) = parse_port(text) {
        return Some((Ipv4Addr::LOCALHOST, port).into());
    }
    // A resolver takes a number for an address.
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    if let Ok(ip) = without_brackets(text).parse::<IpAddr>() {
        return Some((ip, default_port?).into());
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, parse_port(port)?),
        None => (text, default_port?),
    };
    if host.is_empty() && !text.starts_with(':') {
        return None;
    }
    let host = if matches!(host, "" | "*") { "0.0.0.0" } else { without_brackets(host) };
    (host, port).to_socket_addrs().ok()?.min_by_key(SocketAddr::is_ipv6)
}

fn parse_port(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
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
        let read = |text: &str| parse_listen_address(text).map(|address| address.to_string());
        for (text, expected) in [
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("[::1]:0", "[::1]:0"),
            ("[::]:8080", "[::]:8080"),
            (":9000", "0.0.0.0:9000"),
            ("*:9000", "0.0.0.0:9000"),
            ("9000", "127.0.0.1:9000"),
            (" 9000 ", "127.0.0.1:9000"),
            ("0.0.0.0", "0.0.0.0:8080"),
            ("*", "0.0.0.0:8080"),
            ("::1", "[::1]:8080"),
            ("[::]", "[::]:8080"),
            ("localhost", "127.0.0.1:8080"),
            ("localhost:9000", "127.0.0.1:9000"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(expected), "{text}");
        }
        for wrong in ["", ":", "127.0.0.1:", "127.0.0.1:99999", "99999", ":8080x", "+80", "http://localhost:80", "[::1"]
        {
            let error = read(wrong).unwrap_err().to_string();
            assert!(error.contains("use HOST:PORT, such as"), "{wrong}: {error}");
        }
    }

    #[test]
    fn an_address_of_administrators_names_its_port() {
        for right in ["127.0.0.1:9090", ":9090", "9090", "localhost:9090", "[::1]:9090"] {
            assert_eq!(parse_admin_address(right).map(|address| address.port()), Ok(9090), "{right}");
        }
        for wrong in ["127.0.0.1", "localhost", "::1", "*"] {
            assert!(parse_admin_address(wrong).is_err(), "{wrong}");
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
