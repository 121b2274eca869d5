//! A non-blocking byte stream, plain or with TLS.

use std::io::{self, Read as _, Write as _};
use std::sync::Arc;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use crate::transport::tls::{CertificateRequest, watch_requests};

/// The TLS settings of a run.
#[derive(Clone, Debug)]
pub struct ClientTls {
    pub config: Arc<ClientConfig>,
    pub name: ServerName<'static>,
}

pub enum ClientStream {
    Plain(TcpStream),
    Secure(Box<TlsSession>),
}

/// A TLS session over a stream.
pub struct TlsSession {
    tcp: TcpStream,
    tls: ClientConnection,
    certificate: CertificateRequest,
}

impl ClientStream {
    /// # Errors
    ///
    /// The TLS session cannot be created.
    pub fn new(tcp: TcpStream, tls: Option<&ClientTls>) -> io::Result<Self> {
        Ok(match tls {
            None => Self::Plain(tcp),
            Some(ClientTls { config, name }) => {
                let (config, certificate) = watch_requests(config);
                let tls = ClientConnection::new(config, name.clone()).map_err(io::Error::other)?;
                Self::Secure(Box::new(TlsSession { tcp, tls, certificate }))
            }
        })
    }

    #[cfg(target_os = "linux")]
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Secure(secure) => &secure.tcp,
        }
    }

    /// Explains an end of the stream before any answer by the certificate that the hub asks for.
    pub fn explain_end(&self, error: Option<&io::Error>) -> Option<&'static str> {
        match self {
            Self::Plain(_) => None,
            Self::Secure(secure) => secure.certificate.explain_end(error),
        }
    }

    /// Registers the stream with the poller, edge-triggered as mio does.
    ///
    /// # Errors
    /// Errors of the system.
    pub fn register(&mut self, registry: &Registry, slot: u32) -> io::Result<()> {
        let tcp = match self {
            Self::Plain(tcp) => tcp,
            Self::Secure(secure) => &mut secure.tcp,
        };
        registry.register(tcp, Token(slot as usize), Interest::READABLE | Interest::WRITABLE)
    }

    /// Reads available bytes; 0 at the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is available, and errors of the system or of TLS.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            // The C library's wrapper would add a cancellation point to each call.
            #[cfg(target_os = "linux")]
            Self::Plain(tcp) => Ok(rustix::net::recv(&*tcp, buffer, rustix::net::RecvFlags::empty())?.0),
            #[cfg(not(target_os = "linux"))]
            Self::Plain(tcp) => tcp.read(buffer),
            Self::Secure(secure) => secure.read(buffer),
        }
    }

    /// Whether a short read means that everything has been read; after a TLS record another may follow.
    pub fn is_drained_by_short_read(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    /// Writes as many bytes as the socket takes.
    ///
    /// # Errors
    /// `WouldBlock` if it takes none, and errors of the system.
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

    /// Writes pending TLS records, such as those of the handshake.
    ///
    /// # Errors
    /// Errors of the system, except `WouldBlock`.
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

impl TlsSession {
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
            // Continues the handshake, or sends the alert about its failure.
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
