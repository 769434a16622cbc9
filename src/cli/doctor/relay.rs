//! Stands between a program and its proxy for one run, passes all on, and notes who came.
//!
//! Of what goes by it keeps the host and port of a request's first line, the status of the
//! first answer, and how far TLS has come: no field, no path, no body.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

use crate::cli::doctor::facts::{Asked, Talk};
use crate::cli::doctor::hello::Records;

/// A relay that listens; a clone shares it.
#[derive(Clone, Debug)]
pub(super) struct Relay {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Arc<Mutex<Seen>>>>>,
    tasks: TaskTracker,
}

/// One connection that goes by.
#[derive(Debug, Default)]
struct Seen {
    talk: Talk,
    head: Vec<u8>,
    answer: Vec<u8>,
    records: Records,
    /// Whether the head has come whole.
    begun: bool,
}

impl Relay {
    /// Listens on a free port for as long as its runtime lives, and passes on to `proxy`.
    pub(super) async fn start(proxy: String) -> io::Result<Self> {
        let socket = TcpListener::bind("127.0.0.1:0").await?;
        let address = socket.local_addr()?;
        let relay = Self { address, seen: Arc::default(), tasks: TaskTracker::new() };
        let own = relay.clone();
        let accepting = async move {
            loop {
                let (client, _) = next(|| socket.accept()).await;
                let seen = own.place();
                own.tasks.spawn(pass(client, proxy.clone(), seen));
            }
        };
        tokio::runtime::Handle::current().spawn(accepting);
        Ok(relay)
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What went by, once all connections have ended, or a moment has gone.
    pub(super) async fn talks(&self) -> Vec<Talk> {
        self.tasks.close();
        // A program that has ended has closed its connections; its children may have not.
        drop(tokio::time::timeout(LAST_WORDS, self.tasks.wait()).await);
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().map(|seen| held(seen).talk()).collect()
    }

    /// A place to note a connection in; past the limit it is passed on all the same.
    fn place(&self) -> Arc<Mutex<Seen>> {
        let place = Arc::default();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() < TALKS_MAX {
            seen.push(Arc::clone(&place));
        }
        place
    }
}

impl Seen {
    fn client_said(&mut self, bytes: &[u8]) {
        if self.begun {
            return self.records.take(bytes);
        }
        self.head.extend_from_slice(bytes);
        let end = memchr::memmem::find(&self.head, b"\r\n\r\n").map(|at| at + 4);
        let Some(end) = end.or_else(|| (self.head.len() > HEAD_MAX).then_some(self.head.len()))
        else {
            return;
        };
        self.begun = true;
        let head = std::mem::take(&mut self.head);
        let (head, rest) = head.split_at(end);
        self.talk.asked = asked(head);
        self.records.take(rest);
    }

    fn proxy_said(&mut self, bytes: &[u8]) {
        if self.talk.answered.is_none() && self.answer.len() < STATUS_END {
            self.answer.extend(bytes.iter().take(STATUS_END));
            self.talk.answered = status(&self.answer);
        }
    }

    fn talk(&self) -> Talk {
        let tls = match self.talk.asked {
            Asked::Connect(..) => self.records.tls(),
            Asked::Nothing | Asked::Plain(_) | Asked::Other => Talk::default().tls,
        };
        let asked = match &self.talk.asked {
            Asked::Nothing if !self.head.is_empty() => Asked::Other,
            asked => asked.clone(),
        };
        Talk { asked, tls, ..self.talk.clone() }
    }
}

/// What a head asks for: the host alone.
fn asked(head: &[u8]) -> Asked {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let Ok(uri) = target.parse::<http::Uri>() else { return Asked::Other };
    let host = uri.host().map(|host| host.trim_matches(['[', ']']).to_ascii_lowercase());
    match (method, host, uri.port_u16()) {
        ("CONNECT", Some(host), Some(port)) => Asked::Connect(host, port),
        (_, Some(host), _) if uri.scheme().is_some() => Asked::Plain(host),
        _ => Asked::Other,
    }
}

fn status(answer: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(answer.get(..STATUS_END)?).ok()?;
    text.strip_prefix("HTTP/1.")?.get(2..)?.parse().ok()
}

/// What is accepted next, however often that fails before.
async fn next<T, F: Future<Output = io::Result<T>>>(accept: impl Fn() -> F) -> T {
    loop {
        match accept().await {
            Ok(accepted) => return accepted,
            // Out of file descriptors, mostly: trying at once would only spin.
            Err(_) => tokio::time::sleep(ACCEPT_AGAIN).await,
        }
    }
}

async fn pass(client: TcpStream, proxy: String, seen: Arc<Mutex<Seen>>) {
    let Ok(proxy) = TcpStream::connect(&proxy).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_proxy, mut to_proxy) = proxy.into_split();
    let up = copy(&mut from_client, &mut to_proxy, |bytes| held(&seen).client_said(bytes));
    let down = copy(&mut from_proxy, &mut to_client, |bytes| held(&seen).proxy_said(bytes));
    tokio::join!(up, down);
}

/// Copies to the end, and passes the end on too.
async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    see: impl Fn(&[u8]),
) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let bytes = buffer.get(..count).unwrap_or_default();
        see(bytes);
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
    // The other side may have gone before.
    drop(to.shutdown().await);
}

/// A short section, never held while waiting.
fn held(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
const BUFFER: usize = 16 * 1024;
/// As long as the proxy itself takes a head to be.
const HEAD_MAX: usize = 64 * 1024;
/// `HTTP/1.1 200`.
const STATUS_END: usize = 12;
/// Connections that are noted.
const TALKS_MAX: usize = 1000;
const LAST_WORDS: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::hello::Tls;

    #[test]
    fn the_first_line_tells_where_to_and_nothing_else_is_kept() {
        let connect = |host: &str| Asked::Connect(host.to_owned(), 443);
        for (line, wanted) in [
            ("CONNECT API.test:443 HTTP/1.1", connect("api.test")),
            ("CONNECT [::1]:443 HTTP/1.1", connect("::1")),
            ("GET http://u:p@a.test/x?token=1 HTTP/1.1", Asked::Plain("a.test".to_owned())),
            ("GET /v1 HTTP/1.1", Asked::Other),
            ("CONNECT a.test HTTP/1.1", Asked::Other),
            ("\x16\x03\x01", Asked::Other),
        ] {
            let mut seen = Seen::default();
            let head = format!("{line}\r\nProxy-Authorization: Basic hush\r\n\r\n");
            head.as_bytes().chunks(5).for_each(|bytes| seen.client_said(bytes));
            assert_eq!(seen.talk().asked, wanted, "{line}");
            assert!(!format!("{seen:?}").contains("hush"));
        }
        assert_eq!(Seen::default().talk().asked, Asked::Nothing);
    }

    #[test]
    fn a_status_and_a_hello_are_told() {
        let mut seen = Seen::default();
        seen.client_said(b"CONNECT a.test:443 HTTP/1.1\r\n\r\n\x16\x03\x01\x00\x01x");
        b"HTTP/1.1 407 Proxy".chunks(3).for_each(|bytes| seen.proxy_said(bytes));
        assert_eq!((seen.talk().answered, seen.talk().tls), (Some(407), Tls::Begun));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_cannot_be_taken_is_not_the_last() {
        let left = std::cell::Cell::new(3);
        let began = tokio::time::Instant::now();
        let accept = async || {
            left.set(left.get() - 1);
            if left.get() > 0 { Err(io::Error::from_raw_os_error(24)) } else { Ok("taken") }
        };
        assert_eq!((next(accept).await, left.get()), ("taken", 0));
        assert_eq!(began.elapsed(), 2 * ACCEPT_AGAIN);
    }

    #[tokio::test]
    async fn what_comes_is_passed_on_both_ways() {
        let server = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let proxy = server.local_addr().expect("bound").to_string();
        let relay = Relay::start(proxy).await.expect("a port");
        let mut client = TcpStream::connect(relay.address()).await.expect("it listens");
        client.write_all(b"CONNECT a.test:443 HTTP/1.1\r\n\r\n").await.expect("it takes them");
        let (mut far, _) = server.accept().await.expect("passed on");
        far.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.expect("it takes them");
        let mut answer = [0; 19];
        client.read_exact(&mut answer).await.expect("passed back");
        drop(client);
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.expect("the end is passed on");
        assert!(rest.starts_with(b"CONNECT a.test:443 "));
        drop(far);
        let talks = relay.talks().await;
        let asked = Asked::Connect("a.test".to_owned(), 443);
        assert_eq!(talks, [Talk { asked, answered: Some(200), ..Talk::default() }]);
    }
}
