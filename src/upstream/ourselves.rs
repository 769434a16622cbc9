//! Where this process listens, and the calls it makes: what would go in a circle.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use dashmap::DashSet;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The addresses on which this process listens, and its calls; a clone shares them.
#[derive(Clone, Debug, Default)]
pub struct Ourselves {
    listeners: Arc<ArcSwap<Vec<SocketAddr>>>,
    /// Filled only where a call can come back redirected.
    calls: Arc<OnceLock<DashSet<Ends>>>,
}

/// From where a call is made, and to where: no other connection has both.
type Ends = (SocketAddr, SocketAddr);

impl Ourselves {
    /// Replaces the list of listeners.
    pub fn set(&self, addresses: Vec<SocketAddr>) {
        self.listeners.store(Arc::new(addresses));
    }

    /// Remembers each call from here on, for as long as it is open.
    pub fn remember_calls(&self) {
        self.calls.get_or_init(DashSet::new);
    }

    /// Whether a connection to `address` would come back to this process.
    pub fn is(&self, address: SocketAddr) -> bool {
        let listeners = self.listeners.load();
        listeners.iter().any(|ours| {
            let (bound, asked) = (ours.ip().to_canonical(), address.ip().to_canonical());
            ours.port() == address.port()
                && (bound == asked
                    || asked.is_unspecified()
                    || bound.is_unspecified() && is_local(asked))
        })
    }

    /// Whether this process made the call that came `from` there, meant for `to`.
    ///
    /// A call is known before a byte of it is written.
    pub(super) fn called(&self, from: SocketAddr, to: SocketAddr) -> bool {
        self.calls.get().is_some_and(|calls| calls.contains(&(plain(from), plain(to))))
    }

    pub(super) fn call(&self, tcp: TcpStream, to: SocketAddr) -> io::Result<Call> {
        let Some(calls) = self.calls.get() else { return Ok(Call { tcp, noted: None }) };
        let ends = (plain(tcp.local_addr()?), plain(to));
        calls.insert(ends);
        Ok(Call { tcp, noted: Some(Noted { calls: self.calls.clone(), ends }) })
    }
}

/// Whether an address is one of this machine's: only such a one can be bound.
fn is_local(address: IpAddr) -> bool {
    address.is_loopback() || UdpSocket::bind((address, 0)).is_ok()
}

/// A listener of both families sees IPv4 addresses as IPv6 ones.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// A connection that this process made.
#[derive(Debug)]
pub(super) struct Call {
    tcp: TcpStream,
    #[expect(dead_code, reason = "it is forgotten when the connection is closed")]
    noted: Option<Noted>,
}

#[derive(Debug)]
struct Noted {
    calls: Arc<OnceLock<DashSet<Ends>>>,
    ends: Ends,
}

impl Drop for Noted {
    fn drop(&mut self) {
        if let Some(calls) = self.calls.get() {
            calls.remove(&self.ends);
        }
    }
}

impl Call {
    /// Waits until the upstream has said something, or ended.
    ///
    /// # Errors
    ///
    /// When the connection broke.
    ///
    /// # Cancel safety
    ///
    /// Nothing is read.
    pub(super) async fn heard(&self) -> io::Result<()> {
        self.tcp.peek(&mut [0]).await.map(drop)
    }
}

impl AsyncRead for Call {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Call {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn addresses(written: &[&str]) -> Vec<SocketAddr> {
        written.iter().map(|address| address.parse().expect("an address")).collect()
    }

    #[test]
    fn our_own_listeners_are_known_by_every_address_they_answer_on() {
        for (ours, asked, wanted) in [
            ("127.0.0.1:8080", "127.0.0.1:8080", true),
            ("127.0.0.1:8080", "127.0.0.1:8081", false),
            ("127.0.0.1:8080", "127.0.0.2:8080", false),
            ("127.0.0.1:8080", "[::ffff:127.0.0.1]:8080", true),
            ("127.0.0.1:8080", "0.0.0.0:8080", true), // the system takes it for loopback
            ("127.0.0.1:8080", "[::]:8080", true),
            ("127.0.0.1:8080", "203.0.113.9:8080", false),
            ("0.0.0.0:8080", "127.0.0.1:8080", true),
            ("0.0.0.0:8080", "127.8.8.8:8080", true),
            ("0.0.0.0:8080", "203.0.113.9:8080", false), // bound to all of ours, and not ours
            ("0.0.0.0:8080", "127.0.0.1:80", false),
            ("[::]:8080", "127.0.0.1:8080", true),
            ("[::]:8080", "[::1]:8080", true),
        ] {
            let ourselves = Ourselves::default();
            assert!(!ourselves.is(asked.parse().expect("an address")));
            ourselves.set(addresses(&["192.0.2.7:1", ours]));
            assert_eq!(ourselves.is(asked.parse().expect("an address")), wanted, "{ours} {asked}");
        }
    }

    #[tokio::test]
    async fn a_call_is_known_by_both_its_ends_while_it_is_open() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let to = listener.local_addr().expect("it is bound");
        for remembers in [true, false] {
            let ourselves = Ourselves::default();
            if remembers {
                ourselves.remember_calls();
            }
            let tcp = TcpStream::connect(to).await.expect("it listens");
            let from = tcp.local_addr().expect("it is connected");
            let call = ourselves.call(tcp, to).expect("it has an address");
            let elsewhere = addresses(&["192.0.2.1:443"])[0];
            assert_eq!(ourselves.called(from, to), remembers);
            assert!(!ourselves.called(from, elsewhere) && !ourselves.called(elsewhere, to));
            let mapped = format!("[::ffff:127.0.0.1]:{}", from.port());
            assert_eq!(ourselves.called(addresses(&[&mapped])[0], to), remembers);
            drop(call);
            assert!(!ourselves.called(from, to), "it is forgotten");
        }
    }
}
