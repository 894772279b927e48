//! Address of the client: the peer of the connection, or the address that a trusted proxy names.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName};
use ipnet::IpNet;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address of the client behind `peer`.
///
/// Each proxy appends the address of its own client to `X-Forwarded-For`. The list is therefore read from its end, and
/// only as long as the address before was a trusted proxy's; a client can forge all earlier entries.
pub(super) fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut client = peer.to_canonical();
    // Repeated headers form one list.
    let lines = headers.get_all(FORWARDED_FOR).iter().rev();
    let mut entries = lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(','));
    while is_trusted(&client) {
        let Some(named) = entries.next().and_then(|entry| read_address(entry.trim())) else { break };
        client = named.to_canonical();
    }
    client
}

/// Parses an address, with or without a port.
fn read_address(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse().ok().map(|address: std::net::SocketAddr| address.ip());
    text.trim_matches(['[', ']']).parse().ok().or_else(with_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, forwarded: &[&str]) -> String {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        let headers = forwarded.iter().map(|line| (FORWARDED_FOR, line.parse().unwrap())).collect();
        client_address(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn the_header_of_an_untrusted_peer_is_ignored() {
        assert_eq!(client("192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
    }

    #[test]
    fn a_trusted_proxy_names_its_client() {
        assert_eq!(client("10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["203.0.113.9, 198.51.100.7"]), "198.51.100.7", "the first entry can be forged");
        assert_eq!(client("10.0.0.1", &["198.51.100.7, 10.0.0.2"]), "198.51.100.7", "two proxies");
        assert_eq!(client("10.0.0.1", &["203.0.113.9", "198.51.100.7"]), "198.51.100.7", "two lines");
        assert_eq!(client("::ffff:10.0.0.1", &["198.51.100.7:4711"]), "198.51.100.7");
        assert_eq!(client("::1", &["[2001:db8::7]:443"]), "2001:db8::7");
        assert_eq!(client("::1", &["2001:db8::7"]), "2001:db8::7");
    }

    #[test]
    fn an_unreadable_entry_ends_the_search() {
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["198.51.100.7, unknown"]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["10.0.0.2"]), "10.0.0.2");
    }
}
