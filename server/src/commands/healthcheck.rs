//! `healthcheck`: requests `/readyz` from a running server. One request line needs no HTTP client library.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail};
use densecl_server::cli::HealthcheckArgs;

const TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) fn healthcheck(arguments: &HealthcheckArgs) -> anyhow::Result<()> {
    let address = connectable(arguments.listen);
    let unreachable = || format!("no server answers at {address}");
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).with_context(unreachable)?;
    stream.set_read_timeout(Some(TIMEOUT)).with_context(unreachable)?;
    stream.set_write_timeout(Some(TIMEOUT)).with_context(unreachable)?;
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).with_context(unreachable)?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).with_context(unreachable)?;
    match head.strip_prefix(b"HTTP/1.1 ") {
        Some(b"200") => Ok(()),
        Some(status) => bail!("the server at {address} is not ready: status {}", String::from_utf8_lossy(status)),
        None => bail!("what answers at {address} is not an HTTP server"),
    }
}

/// Replaces the unspecified address, on which a server listens to all, by the loopback one.
fn connectable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}
