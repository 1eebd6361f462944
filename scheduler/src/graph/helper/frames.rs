//! Messages between the scheduler and a helper: number of frames, their lengths (u64, little endian), the frames.

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Most frames in one message: a graph may carry an out-of-band buffer per task.
const FRAMES_MAX: u64 = 1 << 24;
/// Most bytes in one message, 64 GiB.
const MESSAGE_BYTES_MAX: u64 = 1 << 36;
/// Memory is set aside for this much of a message before it arrives, 1 MiB.
const READ_AHEAD_BYTES: usize = 1 << 20;
/// A message with fewer bytes than this is sent in one piece, 256 KiB.
const COALESCE_BYTES_MAX: usize = 1 << 18;

fn invalid(what: String) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, what)
}

/// Reads one message.
///
/// # Errors
/// The stream's errors, and `InvalidData` for a message over the limits.
pub(super) async fn read_message(input: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Vec<Bytes>> {
    let count = input.read_u64_le().await?;
    if count > FRAMES_MAX {
        return Err(invalid(format!("a message of {count} frames, over the limit of {FRAMES_MAX}")));
    }
    let mut table = read_exactly(input, count * 8).await?;
    let mut lengths = Vec::with_capacity(table.len() / 8);
    while table.has_remaining() {
        lengths.push(table.get_u64_le());
    }
    let total = lengths.iter().fold(0_u64, |sum, &length| sum.saturating_add(length));
    if total > MESSAGE_BYTES_MAX {
        return Err(invalid(format!("a message of {total} bytes, over the limit of {MESSAGE_BYTES_MAX}")));
    }
    let mut content = read_exactly(input, total).await?;
    let split = |length| content.split_to(usize::try_from(length).expect("no longer than the content read"));
    Ok(lengths.into_iter().map(split).collect())
}

async fn read_exactly(input: &mut (impl AsyncRead + Unpin), length: u64) -> std::io::Result<Bytes> {
    let length = usize::try_from(length).map_err(|_| invalid(format!("{length} bytes do not fit this machine")))?;
    let mut buffer = BytesMut::with_capacity(length.min(READ_AHEAD_BYTES));
    while buffer.len() < length {
        let missing = length - buffer.len();
        buffer.reserve(missing.min(READ_AHEAD_BYTES.max(buffer.len())));
        let read = (&mut *input).take(missing as u64).read_buf(&mut buffer).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(buffer.freeze())
}

/// Writes one message.
///
/// # Errors
/// The stream's errors.
pub(super) async fn write_message(output: &mut (impl AsyncWrite + Unpin), frames: &[Bytes]) -> std::io::Result<()> {
    let total: usize = frames.iter().map(Bytes::len).sum();
    let whole = total < COALESCE_BYTES_MAX;
    let mut head = Vec::with_capacity(8 * (1 + frames.len()) + if whole { total } else { 0 });
    head.extend((frames.len() as u64).to_le_bytes());
    for frame in frames {
        head.extend((frame.len() as u64).to_le_bytes());
    }
    if whole {
        frames.iter().for_each(|frame| head.extend_from_slice(frame));
        output.write_all(&head).await?;
    } else {
        output.write_all(&head).await?;
        for frame in frames {
            output.write_all(frame).await?;
        }
    }
    output.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_come_back_as_sent() {
        for sizes in [&[][..], &[0], &[3, 0, 5], &[COALESCE_BYTES_MAX, 1, 3 * READ_AHEAD_BYTES]] {
            let frames: Vec<Bytes> = sizes.iter().map(|&size| Bytes::from(vec![7; size])).collect();
            let (mut a, mut b) = tokio::io::duplex(1 << 16);
            let (sent, received) = tokio::join!(write_message(&mut a, &frames), read_message(&mut b));
            sent.expect("written");
            assert_eq!(received.expect("read"), frames);
        }
    }

    #[tokio::test]
    async fn excessive_claims_are_refused_before_memory_is_taken() {
        let mut frames = u64::MAX.to_le_bytes().to_vec();
        assert_eq!(read_message(&mut &frames[..]).await.expect_err("too many").kind(), std::io::ErrorKind::InvalidData);
        frames = [1_u64.to_le_bytes(), u64::MAX.to_le_bytes()].concat();
        assert_eq!(read_message(&mut &frames[..]).await.expect_err("too long").kind(), std::io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn a_message_cut_short_is_an_end_of_file() {
        let claim = [1_u64.to_le_bytes(), (1_u64 << 35).to_le_bytes()].concat();
        let error = read_message(&mut &claim[..]).await.expect_err("nothing follows");
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    }
}
