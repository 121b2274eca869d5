//! A connection's bytes, in the clear or through TLS, without waiting. Who speaks in the clear pays one comparison for the
//! other.

use std::io::{self, Read as _, Write as _};
use std::sync::Arc;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

/// What a run needs to speak TLS.
#[derive(Clone, Debug)]
pub struct Tls {
    pub config: Arc<ClientConfig>,
    pub name: ServerName<'static>,
}

pub enum Stream {
    Plain(TcpStream),
    Secure(Box<Secure>),
}

/// TLS over a stream.
pub struct Secure {
    tcp: TcpStream,
    tls: ClientConnection,
}

impl Stream {
    /// # Errors
    /// TLS cannot be set up as it is configured.
    pub fn new(tcp: TcpStream, tls: Option<&Tls>) -> io::Result<Self> {
        Ok(match tls {
            None => Self::Plain(tcp),
            Some(Tls { config, name }) => {
                let tls = ClientConnection::new(Arc::clone(config), name.clone()).map_err(io::Error::other)?;
                Self::Secure(Box::new(Secure { tcp, tls }))
            }
        })
    }

    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Secure(secure) => &secure.tcp,
        }
    }

    /// Listens to it under a number; edges only, as mio has it.
    ///
    /// # Errors
    /// The system's.
    pub fn register(&mut self, registry: &Registry, seat: u32) -> io::Result<()> {
        let tcp = match self {
            Self::Plain(tcp) => tcp,
            Self::Secure(secure) => &mut secure.tcp,
        };
        registry.register(tcp, Token(seat as usize), Interest::READABLE | Interest::WRITABLE)
    }

    /// Reads what is there; 0 at the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` where nothing is there yet, and what the system or TLS says.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            // The C library would prepare for the thread's cancellation around each of them.
            #[cfg(target_os = "linux")]
            Self::Plain(tcp) => Ok(rustix::net::recv(&*tcp, buffer, rustix::net::RecvFlags::empty())?.0),
            #[cfg(not(target_os = "linux"))]
            Self::Plain(tcp) => tcp.read(buffer),
            Self::Secure(secure) => secure.read(buffer),
        }
    }

    /// Whether a read that did not fill its buffer has emptied the stream. A record of TLS may be followed by another.
    pub fn is_drained_by_short_read(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    /// Writes as much as goes.
    ///
    /// # Errors
    /// `WouldBlock` where nothing goes now, and what the system says.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            #[cfg(target_os = "linux")]
            Self::Plain(tcp) => Ok(rustix::net::send(&*tcp, bytes, rustix::net::SendFlags::NOSIGNAL)?),
            #[cfg(not(target_os = "linux"))]
            Self::Plain(tcp) => tcp.write(bytes),
            Self::Secure(secure) => {
                let taken = secure.tls.writer().write(bytes)?;
                match secure.flush() {
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
                    _ if taken == 0 => Err(io::ErrorKind::WouldBlock.into()),
                    _ => Ok(taken),
                }
            }
        }
    }

    /// Writes what TLS has left to say, its handshake for example.
    ///
    /// # Errors
    /// What the system says, but for `WouldBlock`.
    pub fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Secure(secure) => match secure.flush() {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
                _ => Ok(()),
            },
        }
    }
}

impl Secure {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.tls.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
            if self.tls.read_tls(&mut self.tcp)? == 0 {
                return Ok(0);
            }
            let done = self.tls.process_new_packets();
            // The handshake goes on, or the alert goes out that says why it does not.
            let flushed = self.flush();
            done.map_err(io::Error::other)?;
            match flushed {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.tcp)?;
        }
        Ok(())
    }
}
