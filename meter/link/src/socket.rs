//! How tollgate is reached.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// Opens connections to tollgate.
pub trait Dial: Send {
    fn dial(&mut self) -> io::Result<Box<dyn Stream>>;
}

/// A connection to tollgate.
pub trait Stream: Send {
    /// Writes all of it, or fails when the other side takes nothing for too long.
    fn send(&mut self, lines: &[u8]) -> io::Result<()>;
    /// What the other side sends; it ends with the connection.
    fn receiver(&self) -> io::Result<Box<dyn Read + Send>>;
    /// Ends the connection, in both directions.
    fn close(&mut self);
}

/// How long a write may block before the connection is given up: tollgate hangs,
/// and the spill file must have its turn.
const WRITE_TIMEOUT: Duration = Duration::from_millis(500);

/// Dials a Unix socket.
pub struct UnixDial(pub PathBuf);

impl Dial for UnixDial {
    fn dial(&mut self) -> io::Result<Box<dyn Stream>> {
        let stream = UnixStream::connect(&self.0)?;
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        Ok(Box::new(stream))
    }
}

impl Stream for UnixStream {
    fn send(&mut self, lines: &[u8]) -> io::Result<()> {
        self.write_all(lines)
    }

    fn receiver(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(self.try_clone()?))
    }

    fn close(&mut self) {
        let _ = self.shutdown(Shutdown::Both); // it may be gone already
    }
}
