//! HTTP/2, with frames and sockets that end where a script says.

use std::future::poll_fn;
use std::io;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;

use super::answer::{Answer, PIECE};
use super::api::{Act, Sim};
use super::apis::Name;
use super::gather::Gather;
use super::http1::LIE;
use super::request::{Head, Received};
use super::script::{Cut, Kind, Shape};
use super::socket::Socket;
use super::{Engine, Role};

/// How a stream ends the whole connection.
enum Order {
    Reset,
    Eof,
    /// GOAWAY naming this as the last stream, then end of stream.
    Goaway(u32),
    Garbage,
}

/// Serves a connection until either side, or a script, ends it.
pub(crate) async fn serve(
    engine: Engine,
    socket: Socket,
    role: Role,
    connection: u64,
) -> io::Result<()> {
    let mut builder = h2::server::Builder::new();
    builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 24);
    if let Some(most) = engine.max_streams {
        builder.max_concurrent_streams(most);
    }
    let mut http = builder.handshake::<_, Bytes>(socket.clone()).await.map_err(broken)?;
    let (orders, mut ordered) = mpsc::channel(1);
    let order = loop {
        // A script's order comes before frames: what a dropped stream would still say is not sent.
        tokio::select! {
            biased;
            order = ordered.recv() => break order,
            accepted = http.accept() => {
                let Some(accepted) = accepted else { break Some(Order::Eof) };
                let (request, respond) = accepted.map_err(broken)?;
                let orders = orders.clone();
                let stream = Stream { respond, orders, api: role.api(), connection };
                let engine = engine.clone();
                engine.clone().spawn(async move { stream.serve(&engine, request).await });
            }
        }
    };
    // From here the socket is ours alone: no frame of the layer can follow.
    drop(http);
    end(socket, order.unwrap_or(Order::Eof)).await
}

async fn end(mut socket: Socket, order: Order) -> io::Result<()> {
    match order {
        Order::Reset => return socket.reset(),
        Order::Eof => {}
        Order::Goaway(last) => {
            let mut frame = vec![0, 0, 8, 7, 0, 0, 0, 0, 0];
            frame.extend(last.to_be_bytes());
            frame.extend(u32::from(Reason::NO_ERROR).to_be_bytes());
            socket.write_all(&frame).await?;
        }
        Order::Garbage => socket.write_all(&[0xff; 64]).await?,
    }
    socket.close().await
}

struct Stream {
    respond: SendResponse<Bytes>,
    orders: mpsc::Sender<Order>,
    api: Option<Name>,
    connection: u64,
}

impl Stream {
    async fn serve(mut self, engine: &Engine, request: Request<RecvStream>) -> io::Result<()> {
        let (head, mut body) = self.parts(request);
        let turn = engine.sim.begin(head);
        if turn.head.is_for("duplex") {
            return self.duplex(body).await;
        }
        let act = if let Some(act) = Sim::before(&turn) {
            act
        } else {
            let asked = turn.head.field("expect").is_some();
            if asked || turn.step.kind == Kind::Hundred {
                let mut hundred = Response::new(());
                *hundred.status_mut() = http::StatusCode::CONTINUE;
                self.respond.send_informational(hundred).map_err(broken)?;
            }
            let received = receive(&turn.head, &mut body).await?;
            engine.sim.after(&turn, &received).await
        };
        match act {
            Act::Cut(cut) => self.cut(cut).await,
            Act::Garbage => self.order(Order::Garbage).await,
            Act::Answer(answer) => self.answer(&turn.head, &answer).await,
        }
    }

    fn parts(&self, request: Request<RecvStream>) -> (Head, RecvStream) {
        let (parts, body) = request.into_parts();
        let authority = parts.uri.authority().map(|a| (":authority".to_owned(), a.to_string()));
        let target = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let head = Head {
            connection: self.connection,
            api: self.api,
            version: "HTTP/2".to_owned(),
            method: parts.method.to_string(),
            target,
            headers: authority.into_iter().chain(listed(&parts.headers)).collect(),
        };
        (head, body)
    }

    /// Says every piece back as it comes, and ends with trailers as gRPC does.
    async fn duplex(mut self, mut body: RecvStream) -> io::Result<()> {
        let response = Response::builder().header("content-type", "application/grpc");
        let response = response.body(()).map_err(io::Error::other)?;
        let mut sender = self.respond.send_response(response, false).map_err(broken)?;
        while let Some(piece) = body.data().await {
            let piece = piece.map_err(broken)?;
            body.flow_control().release_capacity(piece.len()).map_err(broken)?;
            send(&mut sender, piece).await?;
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
        sender.send_trailers(trailers).map_err(broken)
    }

    async fn cut(mut self, cut: Cut) -> io::Result<()> {
        let stream = self.respond.stream_id().as_u32();
        match cut {
            Cut::Reset => self.order(Order::Reset).await,
            Cut::Eof => self.order(Order::Eof).await,
            Cut::GoawayBelow => self.order(Order::Goaway(stream.saturating_sub(2))).await,
            Cut::GoawayAbove => self.order(Order::Goaway(stream)).await,
            Cut::RefusedStream => {
                self.respond.send_reset(Reason::REFUSED_STREAM);
                Ok(())
            }
            Cut::FailedStream => {
                self.respond.send_reset(Reason::INTERNAL_ERROR);
                Ok(())
            }
            Cut::Hang => {
                poll_fn(|cx| self.respond.poll_reset(cx)).await.map_err(broken)?;
                Ok(())
            }
        }
    }

    async fn order(&self, order: Order) -> io::Result<()> {
        self.orders.send(order).await.map_err(io::Error::other)?;
        // The stream is held until the connection is gone; dropped, it would say RST_STREAM.
        self.orders.closed().await;
        Ok(())
    }

    async fn answer(mut self, head: &Head, answer: &Answer) -> io::Result<()> {
        let mut response = Response::builder().status(answer.status);
        for (name, value) in answer.all_headers() {
            response = response.header(name.to_ascii_lowercase(), value);
        }
        let long = matches!(answer.shape, Shape::Truncated | Shape::TruncatedReset);
        let counted = !matches!(answer.shape, Shape::Chunked | Shape::UntilClose);
        if counted && answer.status != 204 {
            let length = answer.len() + if long { LIE } else { 0 };
            response = response.header("content-length", length);
        }
        let response = response.body(()).map_err(io::Error::other)?;
        let bodiless = head.method == "HEAD" || matches!(answer.status, 204 | 304);
        let mut sender = self.respond.send_response(response, bodiless).map_err(broken)?;
        if !bodiless {
            write_body(&mut sender, answer).await?;
        }
        match answer.end() {
            None => Ok(()),
            Some(cut) => {
                // The answer's frames are on their way before the connection is ended.
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                self.cut(cut).await
            }
        }
    }
}

async fn write_body(sender: &mut SendStream<Bytes>, answer: &Answer) -> io::Result<()> {
    for piece in answer.pieces() {
        send(sender, piece).await?;
        if let Shape::Drip(pause) = answer.shape {
            tokio::time::sleep(pause).await;
        }
    }
    if answer.cut.is_some() {
        return Ok(());
    }
    match answer.shape {
        Shape::Truncated | Shape::TruncatedReset => Ok(()),
        Shape::BadChunk => {
            sender.send_reset(Reason::PROTOCOL_ERROR);
            Ok(())
        }
        Shape::Chunked => {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sim-trailer", http::HeaderValue::from_static("1"));
            sender.send_trailers(trailers).map_err(broken)
        }
        Shape::Whole | Shape::Drip(_) | Shape::UntilClose => {
            sender.send_data(Bytes::new(), true).map_err(broken)
        }
    }
}

/// Sends one piece, no faster than the peer takes it.
async fn send(sender: &mut SendStream<Bytes>, mut piece: Bytes) -> io::Result<()> {
    while !piece.is_empty() {
        sender.reserve_capacity(piece.len().min(PIECE));
        let room = poll_fn(|cx| sender.poll_capacity(cx)).await;
        let room = room.ok_or_else(|| io::Error::other("the stream is gone"))?.map_err(broken)?;
        let here = piece.split_to(room.min(piece.len()));
        sender.send_data(here, false).map_err(broken)?;
    }
    Ok(())
}

async fn receive(head: &Head, body: &mut RecvStream) -> io::Result<Received> {
    let mut gather = Gather::new(head);
    while let Some(piece) = body.data().await {
        let piece = piece.map_err(broken)?;
        gather.add(&piece)?;
        body.flow_control().release_capacity(piece.len()).map_err(broken)?;
    }
    let trailers = body.trailers().await.map_err(broken)?;
    Ok(gather.done(trailers.iter().flat_map(listed).collect()))
}

fn listed(fields: &HeaderMap) -> Vec<(String, String)> {
    let value = |bytes| String::from_utf8_lossy(bytes).into_owned();
    fields.iter().map(|(name, v)| (name.to_string(), value(v.as_bytes()))).collect()
}

fn broken(error: h2::Error) -> io::Error {
    io::Error::other(error)
}
