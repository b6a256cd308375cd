//! Why a connection is ended for its frames, how its peer is told, and how it is counted.

use metrics::{Counter, counter};

use super::walker::FrameKind;

/// Why a connection is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Frames cost too much, most of them of this kind.
    Frames(FrameKind),
    /// The rest of a frame, or of a header block, did not come.
    Incomplete,
}

impl Violation {
    pub const COUNT: usize = FrameKind::ALL.len() + 1;

    pub fn all() -> [Self; Self::COUNT] {
        std::array::from_fn(|index| {
            FrameKind::ALL.get(index).map_or(Self::Incomplete, |kind| Self::Frames(*kind))
        })
    }

    pub fn index(self) -> usize {
        match self {
            Self::Frames(kind) => kind as usize,
            Self::Incomplete => FrameKind::ALL.len(),
        }
    }

    /// Its name in the metric.
    pub fn name(self) -> &'static str {
        // The debug data of its GOAWAY, but for what they have in common.
        match self {
            Self::Incomplete => "incomplete",
            Self::Frames(_) => self.debug_data().trim_start_matches("too_many_"),
        }
    }

    /// What its GOAWAY says. grpc-go understands `too_many_pings`, and sends fewer.
    fn debug_data(self) -> &'static str {
        match self {
            Self::Incomplete => "incomplete_frame",
            Self::Frames(kind) => match kind {
                FrameKind::Data => "too_many_data",
                FrameKind::Headers => "too_many_headers",
                FrameKind::Priority => "too_many_priorities",
                FrameKind::RstStream => "too_many_resets",
                FrameKind::Settings => "too_many_settings",
                FrameKind::PushPromise => "too_many_push_promises",
                FrameKind::Ping => "too_many_pings",
                FrameKind::Goaway => "too_many_goaways",
                FrameKind::WindowUpdate => "too_many_window_updates",
                FrameKind::Continuation => "too_many_continuations",
                FrameKind::Unknown => "too_many_unknown",
            },
        }
    }

    /// The GOAWAY of a connection on which this is the last stream that was begun.
    pub fn goaway(self, last_stream: u32) -> Vec<u8> {
        const GOAWAY: u8 = 7;
        const ENHANCE_YOUR_CALM: u32 = 11;
        let debug_data = self.debug_data().as_bytes();
        // A debug data has a few bytes.
        let len = 8 + u8::try_from(debug_data.len()).unwrap_or(0);
        let mut frame = vec![0, 0, len, GOAWAY, 0, 0, 0, 0, 0];
        frame.extend(last_stream.to_be_bytes());
        frame.extend(ENHANCE_YOUR_CALM.to_be_bytes());
        frame.extend(debug_data);
        frame
    }
}

/// Counts the connections of one port that were ended for a [`Violation`].
#[derive(Clone)]
pub struct PolicedConnections([Counter; Violation::COUNT]);

impl PolicedConnections {
    pub fn of(port: &'static str) -> Self {
        Self(Violation::all().map(
            |violation| counter!("user_service_policed_connections_total", "port" => port, "frames" => violation.name()),
        ))
    }

    pub fn count(&self, violation: Violation) {
        self.0[violation.index()].increment(1);
    }
}
