//! Seats at, under and over the cap; heads that never end; answers that nobody reads; streams
//! that do not end either.

use axum::body::Bytes;
use axum::routing::get;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use std::convert::Infallible;

use super::*;

const MUCH: usize = 1 << 18;
const ASK_MUCH: &[u8] = b"GET /much HTTP/1.1\r\nHost: a\r\n\r\n";
const ASK: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Answers at once at `/`, with more than a connection holds at `/much`, and without end at
/// `/events`.
fn app() -> Router {
    let ticks = || async {
        let ticks = futures_util::stream::unfold((), |()| async {
            sleep(Duration::from_secs(15)).await;
            Some((Ok::<_, Infallible>(Bytes::from_static(b"tick")), ()))
        });
        Body::from_stream(ticks)
    };
    Router::new()
        .route("/", get(|| async { "ok" }))
        .route("/much", get(|| async { vec![b'm'; MUCH] }))
        .route("/events", get(ticks))
}

#[test]
fn the_last_seats_are_for_callers_on_this_machine() {
    let seats = Seats::new(32);
    let mut strangers: Vec<_> = (0..16).map(|_| seats.take(false).expect("a seat")).collect();
    assert!(seats.take(false).is_none(), "those that are left are kept");
    let near: Vec<_> = (0..16).map(|_| seats.take(true).expect("a seat")).collect();
    assert!(seats.take(true).is_none() && seats.take(false).is_none(), "all are taken");
    strangers.pop();
    drop(seats.take(false).expect("one is free again"));
    drop(near);
    let all: Vec<_> = (0..17).map(|_| seats.take(true).expect("a seat")).collect();
    assert!(seats.take(false).is_none() && seats.take(true).is_none(), "{}", all.len());
}

/// A connection that is being served, and its other end.
fn guest() -> (DuplexStream, JoinHandle<()>, CancellationToken) {
    let (client, server) = tokio::io::duplex(1 << 16);
    let closing = CancellationToken::new();
    let peer = SocketAddr::from(([127, 0, 0, 1], 1));
    let closed = closing.clone();
    let serving = async move { drop(serve(server, peer, app(), closed).await) };
    (client, TaskTracker::new().spawn(serving), closing)
}

/// Reads until an answer is there.
async fn answered(client: &mut DuplexStream, end: &str) {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).ends_with(end) {
        assert!(client.read_buf(&mut seen).await.expect("it is read") > 0, "{seen:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_nothing_in_ten_seconds_is_cut() {
    for said in [&b""[..], b"GET /livez HTTP/1.1\r\nHost: a\r\nX-Slow:"] {
        let (mut client, served, _closing) = guest();
        client.write_all(said).await.expect("it is taken");
        let began = Instant::now();
        served.await.expect("it ends");
        assert_eq!(began.elapsed().as_secs(), 10, "{said:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_between_two_requests_may_take_longer_and_not_for_ever() {
    let (mut client, served, _closing) = guest();
    for _ in 0..2 {
        client.write_all(ASK).await.expect("it is taken");
        answered(&mut client, "\r\n\r\nok").await;
        sleep(Duration::from_mins(1)).await;
    }
    client.write_all(b"GET / HT").await.expect("it is taken");
    let began = Instant::now();
    served.await.expect("it ends");
    assert_eq!(began.elapsed().as_secs(), 15, "a later head has what is left of the pause");
}

#[tokio::test(start_paused = true)]
async fn who_takes_no_answer_in_half_a_minute_is_cut() {
    for bytes_a_second in [0, 1024] {
        let (mut client, served, _closing) = guest();
        client.write_all(ASK_MUCH).await.expect("it is taken");
        let began = Instant::now();
        // That it takes a little now and then gains it nothing.
        let sipping = async {
            for _ in 0..60 {
                sleep(Duration::from_secs(1)).await;
                client.read_exact(&mut vec![0; bytes_a_second]).await.expect("it is there");
            }
        };
        tokio::select! {
            ended = served => ended.expect("it ends"),
            () = sipping => {}
        }
        assert_eq!(began.elapsed().as_secs(), 30, "{bytes_a_second} bytes a second");
    }
}

#[tokio::test(start_paused = true)]
async fn who_takes_each_answer_late_and_in_time_is_not_cut() {
    let (mut client, served, _closing) = guest();
    let much = vec![b'm'; MUCH];
    for _ in 0..3 {
        client.write_all(ASK_MUCH).await.expect("it is taken");
        sleep(Duration::from_millis(29_990)).await;
        let mut seen = Vec::new();
        while !seen.ends_with(&much) {
            assert!(client.read_buf(&mut seen).await.expect("it is read") > 0);
        }
    }
    assert!(!served.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_events_goes_on() {
    let (mut client, served, closing) = guest();
    client.write_all(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("it is taken");
    let began = Instant::now();
    for _ in 0..40 {
        answered(&mut client, "tick\r\n").await;
    }
    assert_eq!(began.elapsed().as_secs(), 600);
    assert!(!served.is_finished() && !closing.is_cancelled());
}

/// Connects from this address, and tells what an answer begins with; nothing where it was refused.
async fn ask(from: [u8; 4], to: SocketAddr) -> (TcpStream, String) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from((from, 0))).expect("an address of this machine");
    let mut stream = socket.connect(to).await.expect("it listens");
    let mut seen = [0; 12];
    let asked = async {
        stream.write_all(ASK).await?;
        stream.read_exact(&mut seen).await
    };
    let answered = timeout(Duration::from_secs(10), asked).await.expect("it does not wait");
    let text = answered.map(|_| String::from_utf8_lossy(&seen).into_owned());
    (stream, text.unwrap_or_default())
}

#[tokio::test]
async fn who_is_near_is_answered_while_strangers_hold_all_their_seats() {
    let (near, stranger) = ([127, 0, 0, 1], [127, 0, 0, 2]);
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let at = socket.local_addr().expect("it is bound");
    let door = Door { connections: KEPT + 3, near: |peer| peer.ip().to_string() == "127.0.0.1" };
    let closing = CancellationToken::new();
    let kept = TaskTracker::new().spawn(door.keep(socket, app(), closing.clone()));
    let mut held = Vec::new();
    for _ in 0..3 {
        let (stream, answer) = ask(stranger, at).await;
        assert_eq!(answer, "HTTP/1.1 200");
        held.push(stream);
    }
    assert_eq!(ask(stranger, at).await.1, "", "a fourth is refused");
    for _ in 0..KEPT {
        let (stream, answer) = ask(near, at).await;
        assert_eq!(answer, "HTTP/1.1 200");
        held.push(stream);
    }
    assert_eq!(ask(near, at).await.1, "", "all are taken");
    held.clear();
    let again = async {
        while ask(stranger, at).await.1.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), again).await.expect("a seat is free again");
    closing.cancel();
    timeout(Duration::from_secs(10), kept).await.expect("it ends").expect("in order");
}
