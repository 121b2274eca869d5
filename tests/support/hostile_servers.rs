//! Hostile servers on loopback, each wrong in one way. Dropping the value stops the server.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

/// How the server misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misbehaviour {
    // Below HTTP.
    /// Accepts the TCP connection and never sends anything.
    TcpSilent,
    /// Ends the TCP connection before the upgrade.
    TcpCloses,
    /// Aborts the TLS handshake with an alert.
    TlsAlert,
    /// Answers the TLS handshake with bytes that are not TLS.
    TlsGarbage,
    /// Ends the TCP connection in the TLS handshake.
    TlsCloses,
    /// Sends nothing in the TLS handshake.
    TlsSilent,

    // Instead of the upgrade.
    /// A web server without WebSockets: HTTP 404.
    NotFound,
    /// A web server that wants credentials: HTTP 401.
    Unauthorized,
    /// A web server that fails: HTTP 500.
    ServerError,
    /// A web server that redirects every request.
    Redirect,
    /// Answers the upgrade with endless header lines.
    EndlessHead,
    /// Answers the upgrade at one byte a second.
    SlowHead,
    /// Accepts the upgrade with the answer to another key.
    WrongKey,
    /// Accepts the upgrade with a subprotocol that was not offered.
    OwnSubprotocol,

    /// Has too few places: answers every text with a message of the protocol, but refuses a client too many with HTTP 503.
    Busy,

    // After the upgrade.
    /// Sends every text back.
    Echo,
    /// Never sends anything.
    Silent,
    /// Neither sends nor reads anything.
    Deaf,
    /// Closes with 1011.
    Closes,
    /// Closes with a code that is never sent, 1006.
    ClosesWith1006,
    /// Closes with half a code.
    ClosesWithHalfACode,
    /// Closes with a reason that is not UTF-8.
    ClosesWithLatin1,
    /// Closes with 1011 and ends the TCP connection, without waiting for the client's close frame.
    ClosesAndHangsUp,
    /// Ends the TCP connection.
    Hangs,
    /// Sends nothing to anyone from the first text on, and answers no upgrade any more.
    Freezes,
    /// Answers every text with text that is not JSON.
    GarbageText,
    /// Sends bytes that are not frames.
    GarbageBytes,
    /// Answers every text with one that is not UTF-8.
    NoUtf8,
    /// Answers every text with half a frame, and resets the TCP connection.
    Resets,
    /// Answers every text with a message of the protocol that no step expects.
    Unrelated,
    /// The same, at one byte a second.
    Slow,
    /// The same, in ten thousand fragments of one byte.
    Shreds,
    /// The same, unsolicited and as fast as possible.
    Flood,
    /// Text messages of 11 MiB, JSON of one string, as fast as possible.
    Giants,
    /// Text messages of 4 MiB, JSON of two million numbers, as fast as possible.
    Numerous,
    /// A frame of 100 MB.
    Giant,
    /// Announces a message of 2^62 bytes and starts sending it.
    Endless,
    /// A message with endless fragments.
    Fragments,
    /// A message with endless fragments of a byte.
    Crumbs,
    /// Greets and answers with JSON that is nested a hundred thousand deep.
    Deep,
    /// Greets and answers with a number of a thousand digits.
    Digits,
    /// Greets and answers with half a surrogate pair.
    Surrogate,
}

/// The most clients of a hub that is [`Misbehaviour::Busy`].
const PLACES: usize = 4;

pub struct HostileHub {
    address: SocketAddr,
    misbehaviour: Misbehaviour,
    clients: tokio::sync::watch::Receiver<usize>,
    // Dropping it ends its tasks.
    runtime: Runtime,
}

impl HostileHub {
    /// `unrelated`: a message of the protocol that no step expects, for the variants that send one.
    pub fn start(misbehaviour: Misbehaviour, unrelated: &str) -> Self {
        let unrelated: Arc<str> = unrelated.into();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (count, clients) = tokio::sync::watch::channel(0);
        let (is_frozen, places) = (Arc::new(AtomicBool::new(false)), Arc::new(Semaphore::new(PLACES)));
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.send_modify(|count| *count += 1);
                let (unrelated, is_frozen) = (Arc::clone(&unrelated), Arc::clone(&is_frozen));
                let places = Arc::clone(&places);
                tokio::spawn(async move {
                    // A conversation ends when the client has disconnected.
                    let _ = match misbehaviour {
                        Misbehaviour::Freezes => freeze(stream, &is_frozen).await,
                        Misbehaviour::Busy => match places.try_acquire() {
                            Ok(_place) => behave(stream, Misbehaviour::Unrelated, &unrelated).await,
                            Err(_) => respond(stream, "503 Service Unavailable", "").await,
                        },
                        _ => behave(stream, misbehaviour, &unrelated).await,
                    };
                });
            }
        });
        Self { address, misbehaviour, clients, runtime }
    }

    pub fn url(&self) -> String {
        let tls = matches!(
            self.misbehaviour,
            Misbehaviour::TlsAlert | Misbehaviour::TlsGarbage | Misbehaviour::TlsCloses | Misbehaviour::TlsSilent
        );
        format!("{}://{}", if tls { "wss" } else { "ws" }, self.address)
    }

    /// Returns the number of connections so far.
    pub fn clients(&self) -> usize {
        *self.clients.borrow()
    }

    /// Waits for this many connections.
    pub fn wait_for_clients(&self, many: usize) {
        let mut clients = self.clients.clone();
        self.runtime.block_on(async { clients.wait_for(|count| *count >= many).await.map(drop) }).unwrap();
    }
}

/// Returns an address that refuses connections while this process runs: a socket is bound to it and never listens.
pub fn closed_port() -> String {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    std::mem::forget(socket);
    format!("ws://{address}")
}

async fn behave(mut stream: TcpStream, misbehaviour: Misbehaviour, unrelated: &str) -> std::io::Result<()> {
    match misbehaviour {
        Misbehaviour::TcpSilent | Misbehaviour::TlsSilent => read_to_end(&mut stream).await,
        Misbehaviour::TcpCloses => read_head(&mut stream).await.map(drop),
        Misbehaviour::TlsCloses => stream.read_u8().await.map(drop),
        Misbehaviour::TlsAlert => send_once(stream, &[0x15, 3, 3, 0, 2, 2, 40]).await,
        Misbehaviour::TlsGarbage => send_once(stream, b"220 mail.example ESMTP\r\n").await,
        Misbehaviour::NotFound => respond(stream, "404 Not Found", "").await,
        Misbehaviour::Unauthorized => {
            respond(stream, "401 Unauthorized", "WWW-Authenticate: Bearer realm=\"hub\"\r\n").await
        }
        Misbehaviour::ServerError => respond(stream, "500 Internal Server Error", "").await,
        Misbehaviour::Redirect => respond(stream, "302 Found", "Location: https://elsewhere.example/ws\r\n").await,
        Misbehaviour::EndlessHead => {
            read_head(&mut stream).await?;
            stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\n").await?;
            send_endlessly(stream, b"X-More: and more\r\n").await
        }
        Misbehaviour::SlowHead => {
            read_head(&mut stream).await?;
            send_slowly(stream, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n").await
        }
        Misbehaviour::WrongKey => {
            let head = read_head(&mut stream).await?;
            send_once(stream, acceptance_head(&head, "bm90IHlvdXIga2V5").as_bytes()).await
        }
        Misbehaviour::OwnSubprotocol => {
            let head = read_head(&mut stream).await?;
            let answer = acceptance_head(&head, &accept_key(&head));
            let own = "\r\nSec-WebSocket-Protocol: of-its-own\r\n\r\n";
            let lines =
                answer.split("\r\n").filter(|line| !line.is_empty() && !line.starts_with("Sec-WebSocket-Protocol"));
            send_once(stream, (lines.collect::<Vec<_>>().join("\r\n") + own).as_bytes()).await
        }
        _ => {
            accept_upgrade(&mut stream).await?;
            converse_badly(stream, misbehaviour, unrelated).await
        }
    }
}

async fn freeze(mut stream: TcpStream, is_frozen: &AtomicBool) -> std::io::Result<()> {
    if !is_frozen.load(Ordering::Relaxed) {
        accept_upgrade(&mut stream).await?;
        read_frame(&mut stream).await?;
        is_frozen.store(true, Ordering::Relaxed);
    }
    read_to_end(&mut stream).await
}

async fn converse_badly(mut stream: TcpStream, misbehaviour: Misbehaviour, unrelated: &str) -> std::io::Result<()> {
    let text = |text: &str| frame(0x81, text.as_bytes());
    match misbehaviour {
        Misbehaviour::Silent => read_to_end(&mut stream).await,
        Misbehaviour::Deaf => std::future::pending().await,
        Misbehaviour::Closes => send_once(stream, &frame(0x88, b"\x03\xf3out of order")).await,
        Misbehaviour::ClosesWith1006 => send_once(stream, &frame(0x88, b"\x03\xee")).await,
        Misbehaviour::ClosesWithHalfACode => send_once(stream, &frame(0x88, b"\x03")).await,
        Misbehaviour::ClosesWithLatin1 => send_once(stream, &frame(0x88, b"\x03\xf3caf\xe9")).await,
        Misbehaviour::ClosesAndHangsUp => stream.write_all(&frame(0x88, b"\x03\xf3out of order")).await,
        Misbehaviour::GarbageBytes => send_once(stream, &[0xff; 64]).await,
        Misbehaviour::Flood => send_endlessly(stream, &text(unrelated).repeat(1 + 16_384 / unrelated.len())).await,
        Misbehaviour::Giants => send_endlessly(stream, &text(&format!("\"{}\"", "x".repeat(11 << 20)))).await,
        Misbehaviour::Numerous => send_endlessly(stream, &text(&format!("[{}0]", "0,".repeat(2 << 20)))).await,
        Misbehaviour::Giant => {
            let mut giant = vec![0x81, 127];
            giant.extend(100_000_000_u64.to_be_bytes());
            stream.write_all(&giant).await?;
            send_endlessly(stream, &[b'"'; 16_384]).await
        }
        Misbehaviour::Endless => {
            // The header of a text of 2^62 bytes.
            stream.write_all(&[0x81, 127, 0x40, 0, 0, 0, 0, 0, 0, 0]).await?;
            send_endlessly(stream, &[b'"'; 16_384]).await
        }
        Misbehaviour::Fragments => {
            stream.write_all(&frame(0x01, b"\"")).await?;
            send_endlessly(stream, &frame(0x00, &[b'x'; 16_384])).await
        }
        Misbehaviour::Crumbs => {
            stream.write_all(&frame(0x01, b"\"")).await?;
            send_endlessly(stream, &frame(0x00, b"x").repeat(4096)).await
        }
        Misbehaviour::Slow => send_slowly(stream, &text(unrelated)).await,
        Misbehaviour::Deep => {
            answer(stream, &text(&format!("{}{}", "[".repeat(100_000), "]".repeat(100_000))), true).await
        }
        Misbehaviour::Digits => answer(stream, &text(&format!("{{\"n\":{}}}", "7".repeat(1000))), true).await,
        Misbehaviour::Surrogate => answer(stream, &text(r#"{"text":"\ud800"}"#), true).await,
        Misbehaviour::GarbageText => answer(stream, &text("huh?! \\o/"), false).await,
        Misbehaviour::NoUtf8 => answer(stream, &frame(0x81, b"{\"text\":\"\xc3\x28\"}"), false).await,
        Misbehaviour::Unrelated => answer(stream, &text(unrelated), false).await,
        Misbehaviour::Shreds => answer(stream, &shredded_message(unrelated), false).await,
        Misbehaviour::Resets => {
            read_frame(&mut stream).await?;
            stream.write_all(&text(unrelated)[..20]).await?;
            stream.set_zero_linger()
        }
        Misbehaviour::Echo => loop {
            let (opcode, payload) = read_frame(&mut stream).await?;
            match opcode {
                0x8 => return stream.write_all(&frame(0x88, &payload)).await,
                0x9 if payload.len() <= 125 => stream.write_all(&frame(0x8a, &payload)).await?,
                // No ping is that long.
                0x9 => return stream.write_all(&frame(0x88, &1002_u16.to_be_bytes())).await,
                0x0..=0x2 => stream.write_all(&frame(0x80 | opcode, &payload)).await?,
                _ => {}
            }
        },
        Misbehaviour::Hangs => Ok(()),
        other => unreachable!("{other:?} does not get so far"),
    }
}

/// Answers texts with these bytes, and pings and closes correctly; with `greets` it also sends them first.
async fn answer(mut stream: TcpStream, bytes: &[u8], greets: bool) -> std::io::Result<()> {
    if greets {
        stream.write_all(bytes).await?;
    }
    loop {
        let (opcode, payload) = read_frame(&mut stream).await?;
        match opcode {
            0x1 => stream.write_all(bytes).await?,
            0x8 => return stream.write_all(&frame(0x88, &payload)).await,
            0x9 if payload.len() <= 125 => stream.write_all(&frame(0x8a, &payload)).await?,
            // No ping is that long.
            0x9 => return stream.write_all(&frame(0x88, &1002_u16.to_be_bytes())).await,
            _ => {}
        }
    }
}

/// Returns a message in ten thousand frames, padded with blanks.
fn shredded_message(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (place, byte) in format!("{text:10000}").bytes().enumerate() {
        let first = u8::from(place == 0) | u8::from(place == 9999) << 7;
        bytes.extend(frame(first, &[byte]));
    }
    bytes
}

/// Sends this, then nothing more.
async fn send_once(mut stream: TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(bytes).await?;
    read_to_end(&mut stream).await
}

/// Sends this repeatedly, as fast as possible, and reads nothing.
async fn send_endlessly(mut stream: TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    let (mut reader, mut writer) = stream.split();
    tokio::select! {
        ended = read_to_end(&mut reader) => ended,
        ended = async { loop { writer.write_all(bytes).await?; } } => ended,
    }
}

/// Sends this at one byte per second.
async fn send_slowly(mut stream: TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    let (mut reader, mut writer) = stream.split();
    let mut second = tokio::time::interval(Duration::from_secs(1));
    let slowly = async {
        for byte in bytes {
            second.tick().await;
            writer.write_all(&[*byte]).await?;
        }
        std::future::pending().await
    };
    tokio::select! {
        ended = read_to_end(&mut reader) => ended,
        ended = slowly => ended,
    }
}

async fn respond(mut stream: TcpStream, status: &str, headers: &str) -> std::io::Result<()> {
    read_head(&mut stream).await?;
    let answer = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: 9\r\nConnection: close\r\n\r\nnot here\n");
    send_once(stream, answer.as_bytes()).await
}

/// Reads and drops everything until the client has disconnected.
async fn read_to_end(stream: &mut (impl AsyncReadExt + Unpin)) -> std::io::Result<()> {
    let mut waste = [0; 4096];
    while stream.read(&mut waste).await? > 0 {}
    Ok(())
}

async fn read_head(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Accepts the upgrade, with the first subprotocol that was offered.
pub async fn accept_upgrade(stream: &mut TcpStream) -> std::io::Result<()> {
    let head = read_head(stream).await?;
    send_acceptance(stream, &head).await
}

/// Accepts the upgrade, or refuses it with 401.
async fn accept_or_refuse_upgrade(
    stream: &mut TcpStream,
    admits: &(dyn Fn(&str) -> bool + Send + Sync),
) -> std::io::Result<bool> {
    let head = read_head(stream).await?;
    let admitted = admits(&head);
    if admitted {
        send_acceptance(stream, &head).await?;
    } else {
        stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await?;
        read_to_end(stream).await?;
    }
    Ok(admitted)
}

async fn send_acceptance(stream: &mut TcpStream, head: &str) -> std::io::Result<()> {
    stream.write_all(acceptance_head(head, &accept_key(head)).as_bytes()).await
}

fn accept_key(head: &str) -> String {
    use base64::Engine as _;
    use sha1::Digest as _;
    let key = find_header(head, "Sec-WebSocket-Key").unwrap_or_default();
    let digest = sha1::Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
    base64::engine::general_purpose::STANDARD.encode(digest)
}

fn acceptance_head(head: &str, accept: &str) -> String {
    let subprotocol = find_header(head, "Sec-WebSocket-Protocol")
        .and_then(|offered| Some(format!("Sec-WebSocket-Protocol: {}\r\n", offered.split(',').next()?.trim())))
        .unwrap_or_default();
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n{subprotocol}\r\n"
    )
}

fn find_header(head: &str, wanted: &str) -> Option<String> {
    head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case(wanted).then(|| value.trim().to_owned())
    })
}

/// Encodes a frame as a server sends it: not masked. `first` is the first byte, FIN and opcode.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(length as u8),
        length @ 126..=0xffff => {
            frame.push(126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(payload);
    frame
}

/// Reads the client's next message or control frame: opcode and payload. Leaves control frames within a message out.
pub async fn read_frame(stream: &mut (impl AsyncReadExt + Unpin)) -> std::io::Result<(u8, Vec<u8>)> {
    let (mut last, opcode, mut payload) = read_fragment(stream).await?;
    while !last {
        let (ends, within, more) = read_fragment(stream).await?;
        if within == 0 {
            payload.extend(more);
            last = ends;
        }
    }
    Ok((opcode, payload))
}

async fn read_fragment(stream: &mut (impl AsyncReadExt + Unpin)) -> std::io::Result<(bool, u8, Vec<u8>)> {
    let first = stream.read_u8().await?;
    let length = match stream.read_u8().await? & 0x7f {
        126 => u64::from(stream.read_u16().await?),
        127 => stream.read_u64().await?,
        length => u64::from(length),
    };
    assert!(length <= 1 << 24, "hubproof sends no messages of this size");
    let mut mask = [0; 4];
    stream.read_exact(&mut mask).await?;
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).await?;
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    Ok((first & 0x80 != 0, first & 0x0f, payload))
}

/// A scripted hub: `answer` gets the connection's number, the number of the text on it, and the text, and returns the
/// texts to send back; one that begins with a null character is sent as a binary frame.
pub struct ScriptedHub {
    address: SocketAddr,
    _runtime: Runtime,
}

impl ScriptedHub {
    pub fn start(answer: impl Fn(usize, usize, &str) -> Vec<String> + Send + Sync + 'static) -> Self {
        Self::guarded(|_| true, answer)
    }

    /// Refuses upgrades whose head `admits` rejects.
    pub fn guarded(
        admits: impl Fn(&str) -> bool + Send + Sync + 'static,
        answer: impl Fn(usize, usize, &str) -> Vec<String> + Send + Sync + 'static,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let behaviour = std::sync::Arc::new((admits, answer));
        runtime.spawn(async move {
            let mut connection = 0;
            while let Ok((mut stream, _)) = listener.accept().await {
                let behaviour = std::sync::Arc::clone(&behaviour);
                tokio::spawn(async move {
                    let (admits, answer) = &*behaviour;
                    if accept_or_refuse_upgrade(&mut stream, admits).await.is_ok_and(|admitted| admitted) {
                        let _ = converse(stream, connection, answer).await;
                    }
                });
                connection += 1;
            }
        });
        Self { address, _runtime: runtime }
    }

    /// Starts a hub that gets all texts of a TCP segment together.
    pub fn by_segments(answer: impl Fn(&[String]) -> Vec<String> + Send + Sync + 'static) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let answer = std::sync::Arc::new(answer);
        runtime.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let answer = std::sync::Arc::clone(&answer);
                tokio::spawn(async move {
                    accept_upgrade(&mut stream).await?;
                    let mut segment = [0; 4096];
                    loop {
                        let size = stream.read(&mut segment).await?;
                        let (mut rest, mut texts) = (&segment[..size], Vec::new());
                        while let Ok((0x1, payload)) = read_frame(&mut rest).await {
                            texts.push(String::from_utf8_lossy(&payload).into_owned());
                        }
                        if texts.is_empty() {
                            return stream.write_all(&frame(0x88, &1000_u16.to_be_bytes())).await;
                        }
                        for text in answer(&texts) {
                            stream.write_all(&frame(0x81, text.as_bytes())).await?;
                        }
                    }
                });
            }
        });
        Self { address, _runtime: runtime }
    }

    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }
}

/// A correct hub whose answers may go to the connections at another path.
pub struct PathHub {
    address: SocketAddr,
    _runtime: Runtime,
}

impl PathHub {
    /// `answer` returns, for a text that came over a connection at a path, the texts with the paths to which they go.
    pub fn start(answer: impl Fn(&str, &str) -> Vec<(String, String)> + Send + Sync + 'static) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let answer = std::sync::Arc::new(answer);
        let (send, _) = tokio::sync::broadcast::channel::<(String, String)>(64);
        runtime.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (answer, send, mut receive) = (std::sync::Arc::clone(&answer), send.clone(), send.subscribe());
                tokio::spawn(async move {
                    let head = read_head(&mut stream).await?;
                    send_acceptance(&mut stream, &head).await?;
                    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                    let (mut from, mut to) = stream.into_split();
                    let here = path.clone();
                    let writes = tokio::spawn(async move {
                        while let Ok((path, text)) = receive.recv().await {
                            if path == here && to.write_all(&frame(0x81, text.as_bytes())).await.is_err() {
                                break;
                            }
                        }
                    });
                    while let Ok((0x1, payload)) = read_frame(&mut from).await {
                        for message in answer(&path, &String::from_utf8_lossy(&payload)) {
                            let _ = send.send(message);
                        }
                    }
                    writes.abort();
                    std::io::Result::Ok(())
                });
            }
        });
        Self { address, _runtime: runtime }
    }

    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }
}

async fn converse(
    mut stream: TcpStream,
    connection: usize,
    answer: &(dyn Fn(usize, usize, &str) -> Vec<String> + Send + Sync),
) -> std::io::Result<()> {
    for number in 0.. {
        let (opcode, payload) = read_frame(&mut stream).await?;
        match opcode {
            0x1 => {
                for text in answer(connection, number, &String::from_utf8_lossy(&payload)) {
                    let first = if text.starts_with('\0') { 0x82 } else { 0x81 };
                    stream.write_all(&frame(first, text.as_bytes())).await?;
                }
            }
            0x8 => {
                stream.write_all(&frame(0x88, &payload)).await?;
                // Wait for the client to end the stream; ending it first could reset the client's side.
                let _ = tokio::time::timeout(Duration::from_secs(1), read_to_end(&mut stream)).await;
                return Ok(());
            }
            0x9 if payload.len() <= 125 => stream.write_all(&frame(0x8a, &payload)).await?,
            // No ping is that long.
            0x9 => return stream.write_all(&frame(0x88, &1002_u16.to_be_bytes())).await,
            _ => {}
        }
    }
    Ok(())
}
