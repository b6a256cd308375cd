use tokio::time::Instant;

use super::*;

/// Walks whole messages, and returns where each ends, and the refusal at the end.
fn ends(bytes: &[u8], step: usize) -> (Vec<usize>, Option<Refusal>) {
    let mut walker = MessageWalker::new(1_000);
    let mut budget = FrameBudget::new(Instant::now());
    let (mut at, mut ends) = (0, Vec::new());
    while at < bytes.len() {
        let part = &bytes[at..bytes.len().min(at + step)];
        match walker.walk(part, &mut budget) {
            Ok(Walked { taken, ended, .. }) => {
                at += taken;
                if ended {
                    ends.push(at);
                }
            }
            Err(refusal) => return (ends, Some(refusal)),
        }
    }
    (ends, None)
}

#[test]
fn every_message_ends_where_its_length_says_however_the_reads_cut_it() {
    let messages: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n\r\n\r\n\n",
        b"POST /a HTTP/1.1\r\nhost:\r\ncontent-length: 0\r\n\r\n",
        b"POST /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: Chunked\r\n\r\n4\r\nab\r\n\r\nb;x=y\r\n0123456789a\r\n0\r\n\r\n",
        b"POST /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding:chunked\r\n\r\n0\r\nx-trailer: 1\r\n\r\n",
        b"\r\nGET / HTTP/1.0\r\n\r\n",
    ];
    let bytes = messages.concat();
    let expected: Vec<_> = messages
        .iter()
        .scan(0, |end, message| {
            *end += message.len();
            Some(*end)
        })
        .collect();
    for step in (1..60).chain([bytes.len()]) {
        assert_eq!(ends(&bytes, step), (expected.clone(), None), "in steps of {step}");
    }
}

#[test]
fn what_two_parsers_could_take_for_different_messages_is_refused() {
    let head = |fields: &str| format!("POST / HTTP/1.1\r\nhost: x\r\n{fields}\r\n\r\n");
    let chunked = |body: &str| head("transfer-encoding: chunked") + body;
    for (text, refusal) in [
        (head("content-length: 4\r\ntransfer-encoding: chunked"), Refusal::BothLengths),
        (head("transfer-encoding: chunked\r\nContent-Length: 4"), Refusal::BothLengths),
        (head("content-length: 4\r\ncontent-length: 4"), Refusal::ContentLength),
        (head("content-length: 4, 4"), Refusal::ContentLength),
        (head("content-length: +4"), Refusal::ContentLength),
        (head("content-length: -1"), Refusal::ContentLength),
        (head("content-length: 0x4"), Refusal::ContentLength),
        (head("content-length:"), Refusal::ContentLength),
        (head("content-length: 9999999999999999999"), Refusal::ContentLength),
        (head("transfer-encoding: identity"), Refusal::TransferEncoding),
        (head("transfer-encoding: chunked, identity"), Refusal::TransferEncoding),
        (head("transfer-encoding: gzip, chunked"), Refusal::TransferEncoding),
        (head("transfer-encoding: xchunked"), Refusal::TransferEncoding),
        (head("transfer-encoding: \"chunked\""), Refusal::TransferEncoding),
        (head("transfer-encoding: chunked\r\ntransfer-encoding: chunked"), Refusal::TransferEncoding),
        ("POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n".into(), Refusal::TransferEncoding),
        (head("transfer-encoding : chunked"), Refusal::Field),
        (head("content-length\t: 4"), Refusal::Field),
        (head("x: y\r\n z: folded"), Refusal::Field),
        (head("no colon"), Refusal::Field),
        (head(": no name"), Refusal::Field),
        (head("x: y\nz: bare"), Refusal::LineEnd),
        (head("x: y\rz: bare"), Refusal::LineEnd),
        (head("x: \0"), Refusal::LineEnd),
        ("GET / HTTP/1.1\nhost: x\n\n".into(), Refusal::LineEnd),
        ("\nGET / HTTP/1.1\r\n".into(), Refusal::LineEnd),
        ("\r\n\r\nGET / HTTP/1.1\r\n".into(), Refusal::RequestLine),
        ("GET  / HTTP/1.1\r\n".into(), Refusal::RequestLine),
        ("GET / HTTP/1.1 \r\n".into(), Refusal::RequestLine),
        ("GET /\r\n".into(), Refusal::RequestLine),
        ("GET / HTTP/1.2\r\n".into(), Refusal::RequestLine),
        ("PRI * HTTP/2.0\r\n".into(), Refusal::RequestLine),
        ("INVALID CONNECTION PREFACE\r\n".into(), Refusal::NotHttp),
        ("\u{16}\u{3}\u{1}".into(), Refusal::NotHttp),
        ("CONNECT x:1 HTTP/1.1\r\n".into(), Refusal::Connect),
        ("GET / HTTP/1.1\r\n\r\n".into(), Refusal::Host),
        (head("Host: y"), Refusal::Host),
        (head(&"x: y\r\n".repeat(200)), Refusal::HeadTooLarge),
        (chunked("\r\n"), Refusal::Chunk),
        (chunked("4 \r\nabcd\r\n"), Refusal::Chunk),
        (chunked("0x4\r\n"), Refusal::Chunk),
        (chunked("-4\r\n"), Refusal::Chunk),
        (chunked("4\nabcd\r\n"), Refusal::LineEnd),
        (chunked("4;x\n\r\nabcd\r\n"), Refusal::LineEnd),
        (chunked("4\r\nabcdx\r\n"), Refusal::Chunk),
        (chunked("4\r\nabcd\n"), Refusal::LineEnd),
        (chunked("1111111111111111\r\n"), Refusal::Chunk),
        (chunked(&format!("4;{}", "x".repeat(300))), Refusal::Chunk),
        (chunked("0\r\n folded: 1\r\n\r\n"), Refusal::Field),
        (chunked(&format!("0\r\n{}", "x: y\r\n".repeat(200))), Refusal::HeadTooLarge),
    ] {
        for step in [1, 7, text.len()] {
            assert_eq!(ends(text.as_bytes(), step), (vec![], Some(refusal)), "{text:?} in steps of {step}");
        }
    }
}

#[test]
fn only_data_and_the_next_chunk_may_take_their_time() {
    for (text, at_rest) in [
        ("GET", false),
        ("GET / HTTP/1.1\r\n", false),
        ("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n", true),
        ("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nab", true),
        ("POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n", true),
        ("POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1", false),
        ("POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\n", true),
        ("POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\na", false),
        ("POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", false),
    ] {
        let mut walker = MessageWalker::new(1_000);
        walker.walk(text.as_bytes(), &mut FrameBudget::new(Instant::now())).unwrap();
        assert_eq!(walker.is_at_rest(), at_rest, "{text:?}");
    }
}

#[test]
fn tiny_chunks_cost_tokens_and_large_ones_do_not() {
    for (chunk, most) in
        [("1\r\na\r\n".to_owned(), 60_000), (format!("100\r\n{}\r\n", "a".repeat(256)), usize::MAX)]
    {
        let mut walker = MessageWalker::new(1_000);
        let mut budget = FrameBudget::new(Instant::now());
        let head = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
        walker.walk(head, &mut budget).unwrap();
        let passed = (0..100_000).take_while(|_| walker.walk(chunk.as_bytes(), &mut budget).is_ok()).count();
        assert_eq!(passed < 100_000, most < 100_000, "{passed} of {chunk:?}");
        assert!(passed < most && passed > 40_000, "{passed} of {chunk:?}");
    }
}
