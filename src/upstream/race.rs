//! A TCP connection to a host: the first of its addresses that answers.

use std::future::{Ready, pending, ready};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::exchange::Failure;

/// The addresses of a host, in the order in which they are tried.
pub(super) async fn resolved(host: &str, port: u16) -> Result<Vec<SocketAddr>, Failure> {
    let found = tokio::net::lookup_host((host, port))
        .await
        .map_err(|error| unreachable(format!("{host} cannot be resolved: {error}"), "dns_error"))?;
    Ok(interleaved(found.collect()))
}

/// A connection to the first of these addresses that answers; `whom` they are.
///
/// `more` of them is asked for once all others were given their time.
pub(super) async fn raced(
    whom: &str,
    addresses: Vec<SocketAddr>,
    more: impl Future<Output = Vec<SocketAddr>>,
) -> Result<(TcpStream, SocketAddr), Failure> {
    let (tcp, to) = race(addresses, more, TcpStream::connect).await.map_err(|error| {
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
    Ok((tcp, to))
}

/// RFC 8305: one address after another, a quarter of a second apart; the first to connect
/// wins. `more` is asked once all others were given their time, while they go on.
async fn race<C, F, Tcp>(
    addresses: Vec<SocketAddr>,
    more: impl Future<Output = Vec<SocketAddr>>,
    connect: C,
) -> io::Result<(Tcp, SocketAddr)>
where
    C: Fn(SocketAddr) -> F,
    F: Future<Output = io::Result<Tcp>> + Send + 'static,
    Tcp: Send + 'static,
{
    let mut addresses = addresses.into_iter();
    let mut more = pin!(more);
    let mut asked = false;
    let mut tries = JoinSet::new();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        let all_have_begun = match addresses.next() {
            Some(to) => {
                let connected = connect(to);
                tries.spawn(async move { connected.await.map(|tcp| (tcp, to)) });
                false
            }
            None if asked && tries.is_empty() => return Err(last),
            None => true,
        };
        let head_start =
            async { if all_have_begun { pending().await } else { sleep(HEAD_START).await } };
        tokio::select! {
            biased;
            Some(done) = tries.join_next() => match done {
                Ok(Ok(connected)) => return Ok(connected),
                Ok(Err(error)) => last = error,
                Err(panicked) => last = io::Error::other(panicked),
            },
            found = &mut more, if all_have_begun && !asked => {
                asked = true;
                addresses = found.into_iter();
            }
            () = head_start => {}
        }
    }
}

/// No more addresses than are known.
pub(super) fn nobody() -> Ready<Vec<SocketAddr>> {
    ready(Vec::new())
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
        let race = |addresses| race(addresses, nobody(), TcpStream::connect);
        for found in
            [vec![open], vec![closed, open], vec![open, closed], vec![closed, closed, open]]
        {
            assert_eq!(race(found).await.expect("one of them listens").1, open);
        }
        let refused = race(vec![closed]).await.expect_err("nobody listens");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert!(race(Vec::new()).await.is_err());
    }

    /// The connection to each takes as many milliseconds as its port says; to port 1 it is refused.
    async fn after(to: SocketAddr) -> io::Result<()> {
        sleep(Duration::from_millis(to.port().into())).await;
        if to.port() == 1 { Err(io::ErrorKind::ConnectionRefused.into()) } else { Ok(()) }
    }

    async fn known_after(ms: u64, found: &str) -> Vec<SocketAddr> {
        sleep(Duration::from_millis(ms)).await;
        addresses(&[found])
    }

    #[tokio::test(start_paused = true)]
    async fn more_are_asked_for_in_time_and_hold_nobody_back() {
        let (refuses, slow) = ("192.0.2.1:1", "192.0.2.1:300");
        for (first, more_after, wanted, took) in [
            (refuses, 0, "192.0.2.2:20", 21),
            (refuses, 500, "192.0.2.2:20", 521),
            // Asked for after 250 ms, and 30 ms too late to be needed.
            (slow, 80, slow, 300),
            (slow, 60_000, slow, 300),
            (slow, 10, "192.0.2.2:20", 280),
            ("192.0.2.1:10", 0, "192.0.2.1:10", 10),
        ] {
            let begun = tokio::time::Instant::now();
            let more = known_after(more_after, "192.0.2.2:20");
            let connected = race(addresses(&[first]), more, after).await;
            assert_eq!(connected.expect("one answers").1, addresses(&[wanted])[0]);
            assert_eq!(begun.elapsed(), Duration::from_millis(took), "{first} {more_after}");
        }
        let unasked = async { panic!("nobody asks for more where the first answers") };
        let first = addresses(&["192.0.2.1:10"]);
        assert!(race(first, unasked, after).await.is_ok());
        assert!(race(addresses(&[refuses]), nobody(), after).await.is_err());
    }
}
