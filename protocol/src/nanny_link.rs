//! What a nanny and its worker process tell each other, over the socket pair that is the worker's standard input.
//!
//! The pair is also the leash: when one process is gone the other reads the end of the stream, whatever killed it.
//! Messages are msgpack maps behind a 4-byte little-endian length.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::address::Address;

/// Longest message either side accepts, in bytes; an address, a path and a reason fit many times.
pub const LINK_MESSAGE_BYTES_MAX: usize = 65_536;

/// From the worker process to its nanny.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FromWorker {
    /// The worker is registered with the scheduler.
    Started {
        /// Its contact address.
        address: Address,
        /// Its working directory, which the nanny removes if the worker cannot.
        local_directory: PathBuf,
    },
    /// The worker could not start and exits.
    Failed {
        /// Why not.
        text: String,
    },
    /// The worker leaves for good: the nanny shall not start another one (`close_gracefully`).
    ClosingGracefully {
        /// Why.
        reason: String,
    },
}

/// From the nanny to its worker process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FromNanny {
    /// Close, because the nanny says so; it will decide what comes next.
    Stop {
        /// How long the worker has before it is killed, in seconds.
        timeout: f64,
        /// Why.
        reason: String,
    },
}

/// Writes one message.
///
/// # Errors
/// When the other process is gone.
pub fn write<T: Serialize>(stream: &mut impl Write, message: &T) -> io::Result<()> {
    let body = rmp_serde::to_vec_named(message).map_err(io::Error::other)?;
    let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= LINK_MESSAGE_BYTES_MAX);
    let length = length.ok_or_else(|| io::Error::other("nanny link message too long"))?;
    stream.write_all(&[&length.to_le_bytes(), &body[..]].concat())
}

/// Reads one message; `None` at the end of the stream.
///
/// # Errors
/// When the stream breaks within a message, or the message is not one of these.
pub fn read<T: DeserializeOwned>(stream: &mut impl Read) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > LINK_MESSAGE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "nanny link message too long"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    rmp_serde::from_slice(&body).map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_in_order_and_then_the_end() {
        let started = FromWorker::Started { address: "tcp://127.0.0.1:1".into(), local_directory: "/tmp/w".into() };
        let closing = FromWorker::ClosingGracefully { reason: "scheduler-close".to_owned() };
        let mut bytes = Vec::new();
        write(&mut bytes, &started).expect("a vector takes everything");
        write(&mut bytes, &closing).expect("a vector takes everything");
        let mut stream = &bytes[..];
        assert_eq!(read::<FromWorker>(&mut stream).expect("whole"), Some(started));
        assert_eq!(read::<FromWorker>(&mut stream).expect("whole"), Some(closing));
        assert_eq!(read::<FromWorker>(&mut stream).expect("ended"), None);
    }

    #[test]
    fn garbage_and_huge_lengths_are_refused() {
        assert!(read::<FromNanny>(&mut &[255, 255, 255, 255, 0][..]).is_err());
        assert!(read::<FromNanny>(&mut &[2, 0, 0, 0, 0xc1, 0xc1][..]).is_err());
        assert!(read::<FromNanny>(&mut &[9, 0, 0, 0, 1][..]).is_err());
    }
}
