//! `healthcheck`: asks `/readyz` of a running server. No HTTP client is linked for this one line.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail};
use densecl_server::cli::HealthcheckArgs;

const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn healthcheck(arguments: &HealthcheckArgs) -> anyhow::Result<()> {
    let address = reachable(arguments.listen);
    let unreachable = || format!("no server answers at {address}");
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).with_context(unreachable)?;
    stream.set_read_timeout(Some(PATIENCE)).with_context(unreachable)?;
    stream.set_write_timeout(Some(PATIENCE)).with_context(unreachable)?;
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

/// A server that listens on all addresses is asked on the loopback one.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}
