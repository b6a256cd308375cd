use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time::timeout,
};

use super::*;

const SETTINGS: [u8; 15] = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 100];
const PING: [u8; 17] = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];

fn handshake() -> Vec<u8> {
    [&PREFACE[..], &SETTINGS].concat()
}

fn connect() -> (DuplexStream, PolicedIo<DuplexStream>, Arc<Observed>) {
    let (peer, io) = duplex(1 << 20);
    let (io, observed) = PolicedIo::new(io, Duration::from_secs(20));
    (peer, io, observed)
}

/// Sends bytes, and reads them all or the error.
async fn passes(peer: &mut DuplexStream, io: &mut PolicedIo<DuplexStream>, bytes: &[u8]) -> io::Result<()> {
    peer.write_all(bytes).await.unwrap();
    let mut read = vec![0; bytes.len()];
    read_exact(io, &mut read).await?;
    assert_eq!(read, bytes);
    Ok(())
}

/// Reads as the owner of a connection has it polled.
async fn read_exact(io: &mut PolicedIo<DuplexStream>, bytes: &mut [u8]) -> io::Result<()> {
    let observed = Arc::clone(&io.observed);
    let mut read = std::pin::pin!(io.read_exact(bytes));
    std::future::poll_fn(|cx| {
        observed.begin_turn();
        read.as_mut().poll(cx)
    })
    .await
    .map(drop)
}

#[tokio::test]
async fn a_handshake_is_the_preface_and_the_whole_first_frame_however_they_are_cut() {
    let bytes = handshake();
    for step in 1..=bytes.len() {
        let (mut peer, mut io, observed) = connect();
        let mut parts = bytes.chunks(step).peekable();
        while let Some(part) = parts.next() {
            passes(&mut peer, &mut io, part).await.unwrap();
            assert_eq!(observed.is_handshake_done(), parts.peek().is_none(), "in steps of {step}");
        }
    }
}

#[tokio::test]
async fn a_frame_behind_the_first_one_that_is_not_whole_does_not_take_the_handshake_back() {
    let (mut peer, mut io, observed) = connect();
    passes(&mut peer, &mut io, &[&handshake()[..], &PING[..4]].concat()).await.unwrap();
    assert!(observed.is_handshake_done());
}

#[tokio::test]
async fn a_flood_is_an_error_and_its_goaway_names_the_kind_and_the_last_stream() {
    let (mut peer, mut io, observed) = connect();
    passes(&mut peer, &mut io, &handshake()).await.unwrap();
    passes(&mut peer, &mut io, &[0, 0, 1, 1, 5, 0, 0, 0, 7, 0x82]).await.unwrap();
    let pings = PING.repeat(1_000);
    let mut sent = 0;
    while passes(&mut peer, &mut io, &pings).await.is_ok() {
        sent += 1_000;
    }
    assert!((4_000..10_000).contains(&sent), "{sent}");
    assert_eq!(observed.violation(), Some(Violation::Frames(FrameKind::Ping)));
    let goaway = observed.told().unwrap();
    assert_eq!(goaway[..9], [0, 0, 8 + 14, 7, 0, 0, 0, 0, 0]);
    assert_eq!(goaway[9..17], [0, 0, 0, 7, 0, 0, 0, 11]);
    assert_eq!(&goaway[17..], b"too_many_pings");
}

#[tokio::test]
async fn bytes_that_are_written_let_a_peer_send_more() {
    let (mut peer, mut io, observed) = connect();
    passes(&mut peer, &mut io, &handshake()).await.unwrap();
    let mut answer = [0; 64];
    for _ in 0..50_000 {
        passes(&mut peer, &mut io, &PING).await.unwrap();
        io.write_all(&answer).await.unwrap();
        peer.read_exact(&mut answer).await.unwrap();
    }
    assert_eq!(observed.violation(), None);
}

#[tokio::test]
async fn a_burst_is_read_in_turns_that_the_owner_begins() {
    let (mut peer, mut io, observed) = connect();
    peer.write_all(&[handshake(), PING.repeat(1_000)].concat()).await.unwrap();
    let mut turns = 0;
    let mut left = handshake().len() + PING.len() * 1_000;
    while left > 0 {
        turns += 1;
        observed.begin_turn();
        let read = |cx: &mut Context<'_>| {
            let mut bytes = [0; 1_024];
            let mut buf = ReadBuf::new(&mut bytes);
            let read = Pin::new(&mut io).poll_read(cx, &mut buf);
            Poll::Ready(read.is_ready().then_some(buf.filled().len()))
        };
        let mut read = read;
        while let Some(bytes) = std::future::poll_fn(&mut read).await {
            left -= bytes;
        }
    }
    assert!((10..30).contains(&turns), "a turn is 40 PINGs and the rest of a read: {turns}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_nothing_is_gone() {
    let (mut peer, mut io, observed) = connect();
    let began = Instant::now();
    assert!(io.write_all(&vec![0; 2 << 20]).await.is_err());
    assert_eq!(began.elapsed().as_secs(), 20);
    assert!(observed.is_gone() && observed.violation().is_none());
    let mut taken = vec![0; 1 << 20];
    peer.read_exact(&mut taken).await.unwrap();
}

#[tokio::test]
async fn what_is_no_http2_is_not_looked_at() {
    let (mut peer, mut io, observed) = connect();
    passes(&mut peer, &mut io, b"GET /metrics HTTP/1.1\r\n\r\n").await.unwrap();
    for _ in 0..100 {
        passes(&mut peer, &mut io, &PING.repeat(1_000)).await.unwrap();
    }
    assert!(!observed.is_handshake_done() && observed.violation().is_none());
}

#[tokio::test(start_paused = true)]
async fn the_rest_of_a_header_block_must_come_soon_however_it_crawls() {
    let (mut peer, mut io, observed) = connect();
    passes(&mut peer, &mut io, &handshake()).await.unwrap();
    passes(&mut peer, &mut io, &[0, 0, 200, 1, 0, 0, 0, 0, 1]).await.unwrap();
    let began = Instant::now();
    let crawl = async {
        loop {
            peer.write_all(&[0]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(900)).await;
        }
    };
    let read = async {
        let mut byte = [0];
        while read_exact(&mut io, &mut byte).await.is_ok() {}
    };
    tokio::select! { () = crawl => {}, () = read => {} }
    assert_eq!(observed.violation(), Some(Violation::Incomplete));
    assert_eq!(began.elapsed().as_secs(), REST_TIMEOUT.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_connection_at_rest_or_in_the_middle_of_data_may_take_its_time() {
    for bytes in [&PING[..], &[0, 0, 200, 0, 0, 0, 0, 0, 1, 0]] {
        let (mut peer, mut io, observed) = connect();
        passes(&mut peer, &mut io, &handshake()).await.unwrap();
        passes(&mut peer, &mut io, bytes).await.unwrap();
        let mut byte = [0];
        assert!(timeout(Duration::from_hours(1), io.read_exact(&mut byte)).await.is_err());
        assert_eq!(observed.violation(), None);
    }
}

#[test]
fn every_violation_has_a_name_of_its_own() {
    let mut names: Vec<_> = Violation::all().iter().map(|violation| violation.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Violation::COUNT, "{names:?}");
}
