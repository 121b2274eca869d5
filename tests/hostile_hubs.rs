//! Servers that are no hub at all: small, on loopback, each wrong in a way of its own. They end with the value.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// Sends every text back.
    Echo,
    /// Accepts the upgrade, and says nothing ever.
    Silent,
    /// Accepts the TCP connection, and says nothing ever.
    TcpSilent,
    /// Accepts the upgrade, then closes with 1011.
    Closes,
    /// Accepts the upgrade, then ends the TCP connection.
    Hangs,
    /// Ends the TCP connection before the upgrade.
    TcpCloses,
    /// Answers every text by text that is no JSON.
    GarbageText,
    /// Answers the upgrade, then sends bytes that are no frames.
    GarbageBytes,
    /// Sends frames that are valid JSON, and that nobody asked for, as fast as they go.
    Flood,
    /// Announces a message longer than any memory, and begins it.
    Endless,
    /// Sends a message in fragments that never end.
    Fragments,
    /// A web server that knows nothing of WebSockets.
    NotFound,
}

pub struct HostileHub {
    address: SocketAddr,
    clients: tokio::sync::watch::Receiver<usize>,
    // Dropped: its tasks end with it.
    runtime: Runtime,
}

impl HostileHub {
    /// `flood`: the text that [`Habit::Flood`] repeats.
    pub fn start(habit: Habit, flood: &str) -> Self {
        Self::serving(frame(0x81, flood.as_bytes()), habit)
    }

    fn serving(flood: Vec<u8>, habit: Habit) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (count, clients) = tokio::sync::watch::channel(0);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.send_modify(|count| *count += 1);
                let flood = flood.clone();
                tokio::spawn(async move {
                    // A client that is gone is what ends a conversation here.
                    let _ = behave(stream, habit, &flood).await;
                });
            }
        });
        Self { address, clients, runtime }
    }

    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// How many have connected so far.
    pub fn clients(&self) -> usize {
        *self.clients.borrow()
    }

    /// Until so many have connected.
    pub fn wait_for_clients(&self, many: usize) {
        let mut clients = self.clients.clone();
        self.runtime.block_on(async { clients.wait_for(|count| *count >= many).await.map(drop) }).unwrap();
    }
}

/// An address at which nothing listens: it was free a moment ago, and ports are not handed out twice in a row.
pub fn closed_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("ws://{}", listener.local_addr().unwrap())
}

async fn behave(mut stream: TcpStream, habit: Habit, flood: &[u8]) -> std::io::Result<()> {
    match habit {
        Habit::TcpSilent => return linger(&mut stream).await,
        Habit::TcpCloses => return head(&mut stream).await.map(drop),
        Habit::NotFound => {
            head(&mut stream).await?;
            stream
                .write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\nConnection: close\r\n\r\nnot here\n")
                .await?;
            return linger(&mut stream).await;
        }
        _ => upgrade(&mut stream).await?,
    }
    match habit {
        Habit::Silent => linger(&mut stream).await,
        Habit::Closes => {
            stream.write_all(&frame(0x88, b"\x03\xf3out of order")).await?;
            linger(&mut stream).await
        }
        Habit::GarbageBytes => {
            stream.write_all(&[0xff; 64]).await?;
            linger(&mut stream).await
        }
        Habit::Flood => {
            let batch = flood.repeat(1 + 16_384 / flood.len());
            let (mut reader, mut writer) = stream.split();
            tokio::select! {
                ended = linger(&mut reader) => ended,
                ended = async { loop { writer.write_all(&batch).await?; } } => ended,
            }
        }
        Habit::Fragments => {
            stream.write_all(&frame(0x01, b"\"")).await?;
            let (mut reader, mut writer) = stream.split();
            let batch = frame(0x00, &[b'x'; 16_384]);
            tokio::select! {
                ended = linger(&mut reader) => ended,
                ended = async { loop { writer.write_all(&batch).await?; } } => ended,
            }
        }
        Habit::Endless => {
            // A text of 2^62 bytes, it says.
            stream.write_all(&[0x81, 127, 0x40, 0, 0, 0, 0, 0, 0, 0]).await?;
            let (mut reader, mut writer) = stream.split();
            let batch = vec![b'"'; 16_384];
            tokio::select! {
                ended = linger(&mut reader) => ended,
                ended = async { loop { writer.write_all(&batch).await?; } } => ended,
            }
        }
        Habit::Echo | Habit::GarbageText => loop {
            let (opcode, payload) = read_frame(&mut stream).await?;
            match (opcode, habit) {
                (0x1, Habit::GarbageText) => stream.write_all(&frame(0x81, b"huh?! \\o/")).await?,
                (0x8, _) => return stream.write_all(&frame(0x88, &payload)).await,
                (0x9, _) => stream.write_all(&frame(0x8a, &payload)).await?,
                (0x0..=0x2, _) => stream.write_all(&frame(0x80 | opcode, &payload)).await?,
                _ => {}
            }
        },
        Habit::Hangs | Habit::TcpSilent | Habit::TcpCloses | Habit::NotFound => Ok(()),
    }
}

/// Reads and drops whatever comes, until the client is gone.
async fn linger(stream: &mut (impl AsyncReadExt + Unpin)) -> std::io::Result<()> {
    let mut waste = [0; 4096];
    while stream.read(&mut waste).await? > 0 {}
    Ok(())
}

async fn head(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Accepts the upgrade, with the first subprotocol that was offered.
pub async fn upgrade(stream: &mut TcpStream) -> std::io::Result<()> {
    use base64::Engine as _;
    use sha1::Digest as _;
    let head = head(stream).await?;
    let header = |wanted: &str| {
        head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(wanted).then(|| value.trim().to_owned())
        })
    };
    let key = header("Sec-WebSocket-Key").unwrap_or_default();
    let digest = sha1::Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
    let accept = base64::engine::general_purpose::STANDARD.encode(digest);
    let subprotocol = header("Sec-WebSocket-Protocol")
        .and_then(|offered| Some(format!("Sec-WebSocket-Protocol: {}\r\n", offered.split(',').next()?.trim())))
        .unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n{subprotocol}\r\n"
    );
    stream.write_all(answer.as_bytes()).await
}

/// A frame as a server sends it: not masked. `first` is the first byte, FIN and opcode.
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

/// Opcode and payload of the client's next frame.
pub async fn read_frame(stream: &mut TcpStream) -> std::io::Result<(u8, Vec<u8>)> {
    let first = stream.read_u8().await?;
    let length = match stream.read_u8().await? & 0x7f {
        126 => u64::from(stream.read_u16().await?),
        127 => stream.read_u64().await?,
        length => u64::from(length),
    };
    assert!(length <= 1 << 24, "we do not send such messages");
    let mut mask = [0; 4];
    stream.read_exact(&mut mask).await?;
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).await?;
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    Ok((first & 0x0f, payload))
}

/// A hub of one's own making: `answer` gets every text of a connection with its number among them, and says what to
/// send back. It is handed the connection's number, too.
pub struct SmallHub {
    address: SocketAddr,
    _runtime: Runtime,
}

impl SmallHub {
    pub fn start(answer: impl Fn(usize, usize, &str) -> Vec<String> + Send + Sync + 'static) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let answer = std::sync::Arc::new(answer);
        runtime.spawn(async move {
            let mut connection = 0;
            while let Ok((stream, _)) = listener.accept().await {
                let answer = std::sync::Arc::clone(&answer);
                tokio::spawn(async move {
                    let _ = converse(stream, connection, &*answer).await;
                });
                connection += 1;
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
    upgrade(&mut stream).await?;
    for number in 0.. {
        let (opcode, payload) = read_frame(&mut stream).await?;
        match opcode {
            0x1 => {
                for text in answer(connection, number, &String::from_utf8_lossy(&payload)) {
                    stream.write_all(&frame(0x81, text.as_bytes())).await?;
                }
            }
            0x8 => {
                stream.write_all(&frame(0x88, &payload)).await?;
                // The client hangs up; whoever does it first leaves the other with a reset.
                let _ = tokio::time::timeout(Duration::from_secs(1), linger(&mut stream)).await;
                return Ok(());
            }
            _ => {}
        }
    }
    Ok(())
}
