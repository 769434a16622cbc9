//! A TCP connection to a host: the first of its addresses that answers.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::exchange::Failure;

/// The addresses of a host, in the order in which they are tried.
pub(super) async fn resolved(host: &str, port: u16) -> Result<Vec<SocketAddr>, Failure> {
    let found = tokio::net::lookup_host((host, port))
        .await
        .map_err(|error| unreachable(format!("{host} cannot be resolved: {error}"), "dns_error"))?;
    Ok(interleaved(found.collect()))
}

/// A connection to the first of these addresses that answers; `whom` they are.
pub(super) async fn raced(whom: &str, addresses: Vec<SocketAddr>) -> Result<TcpStream, Failure> {
    let tcp = race(addresses).await.map_err(|error| {
        let kind = match error.kind() {
            io::ErrorKind::ConnectionRefused => "connection_refused",
            io::ErrorKind::TimedOut => "connection_timeout",
            _ => "destination_unavailable",
        };
        unreachable(format!("{whom} cannot be reached: {error}"), kind)
    })?;
    // Nagle's algorithm against delayed ACK costs 40 ms a connection.
    let ready = tcp.set_nodelay(true);
    ready.map_err(|error| unreachable(error.to_string(), "destination_unavailable"))?;
    Ok(tcp)
}

/// RFC 8305: one address after another, a quarter of a second apart; the first to connect wins.
async fn race(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut addresses = addresses.into_iter();
    let mut tries = JoinSet::new();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        let more = match addresses.next() {
            Some(address) => {
                tries.spawn(TcpStream::connect(address));
                true
            }
            None if tries.is_empty() => return Err(last),
            None => false,
        };
        let head_start = if more { HEAD_START } else { Duration::MAX };
        match timeout(head_start, tries.join_next()).await {
            Ok(Some(Ok(Ok(stream)))) => return Ok(stream),
            Ok(Some(Ok(Err(error)))) => last = error,
            Ok(Some(Err(panicked))) => last = io::Error::other(panicked),
            Ok(None) | Err(_) => {}
        }
    }
}

/// Alternates between families, beginning with the resolver's first (RFC 8305, section 4).
pub(super) fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let mut merged = Vec::with_capacity(first.len() + second.len());
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        let before = merged.len();
        merged.extend(first.next());
        merged.extend(second.next());
        if merged.len() == before {
            return merged;
        }
    }
}

/// No connection, for this reason.
pub(super) fn unreachable(detail: String, kind: &'static str) -> Failure {
    Failure::Unreachable { detail, kind }
}

/// RFC 8305, section 5, recommends 250 ms.
const HEAD_START: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn addresses(written: &[&str]) -> Vec<SocketAddr> {
        written.iter().map(|address| address.parse().expect("an address")).collect()
    }

    #[test]
    fn families_alternate_and_the_resolvers_first_is_first() {
        let (one, two, three) = ("192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1");
        let (six, seven) = ("[2001:db8::1]:1", "[2001:db8::2]:1");
        for (found, wanted) in [
            (&[][..], &[][..]),
            (&[one], &[one]),
            (&[one, two, three], &[one, two, three]),
            (&[six, seven, one], &[six, one, seven]),
            (&[one, six, seven], &[one, six, seven]),
            (&[one, two, three, six], &[one, six, two, three]),
            (&[six, one, two, three, seven], &[six, one, seven, two, three]),
        ] {
            assert_eq!(interleaved(addresses(found)), addresses(wanted), "{found:?}");
        }
    }

    #[tokio::test]
    async fn an_address_that_refuses_gives_way_to_the_next() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let open = listener.local_addr().expect("it is bound");
        let gone = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let closed = gone.local_addr().expect("it is bound");
        drop(gone);
        for found in
            [vec![open], vec![closed, open], vec![open, closed], vec![closed, closed, open]]
        {
            let stream = race(found).await.expect("one of them listens");
            assert_eq!(stream.peer_addr().expect("it is connected"), open);
        }
        let refused = race(vec![closed]).await.expect_err("nobody listens");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert!(race(Vec::new()).await.is_err());
    }
}
