//! Tells when a connection's server has sent its HTTP/2 SETTINGS.
//!
//! A connection that TCP has made proves nothing: a process that hangs has it, too.
//! A peer speaks HTTP/2 if it sends the SETTINGS frame that a server sends first.

use tokio::{io::AsyncRead, sync::oneshot};
use tokio_util::io::InspectReader;

const FRAME_HEAD_BYTES: usize = 9;
const SETTINGS: u8 = 4;

/// Passes a connection on, and tells `waiting` of the server's SETTINGS. `waiting` is
/// dropped without a word once they cannot come any more.
pub fn await_settings<T: AsyncRead>(
    stream: T,
    mut waiting: Option<oneshot::Sender<()>>,
) -> InspectReader<T, impl FnMut(&[u8])> {
    let mut head = Vec::with_capacity(FRAME_HEAD_BYTES);
    InspectReader::new(stream, move |bytes| {
        if waiting.is_none() {
            return;
        }
        head.extend(bytes.iter().take(FRAME_HEAD_BYTES - head.len()));
        if bytes.is_empty() || head.len() == FRAME_HEAD_BYTES {
            let waiting = waiting.take();
            // A frame of SETTINGS, of the connection as a whole.
            if let (Some(waiting), [_, _, _, SETTINGS, _, 0, 0, 0, 0]) = (waiting, &head[..]) {
                let _ = waiting.send(());
            }
        }
    })
}
