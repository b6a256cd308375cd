//! The lines to import, from files one after the other, or from stdin.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use tokio::sync::mpsc;

use crate::{
    cli::{PIPE, jsonl},
    proto::user::v1::ImportUsersRequest,
};

/// How many lines are read ahead.
const MAX_ITEMS_AHEAD: usize = 1_024;

/// The byte order mark at the start of a file.
const UTF_8_MARK: &[u8] = b"\xef\xbb\xbf";
const UTF_16_MARKS: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];

/// Where a line is from.
#[derive(Clone, Debug)]
pub struct SourceLine {
    pub file: Arc<str>,
    /// From 1.
    pub line: u64,
}

/// A line that is not blank.
pub struct Item {
    pub place: SourceLine,
    /// How long it is, with its end, in bytes.
    pub bytes: u64,
    /// The request, or the reason why the line is refused.
    pub request: Result<ImportUsersRequest, String>,
}

/// What there is to read: lines, and at last why reading failed, where it did.
pub type Items = mpsc::Receiver<Result<Item, String>>;

/// Reads on a separate thread, at most [`MAX_ITEMS_AHEAD`] items ahead.
pub fn read(files: Vec<PathBuf>) -> Items {
    let (items, received) = mpsc::channel(MAX_ITEMS_AHEAD);
    thread::spawn(move || {
        // A dropped receiver ends the reading.
        for path in files {
            let name = path.display().to_string();
            let read = if path == Path::new(PIPE) {
                lines("stdin", io::stdin().lock(), &items)
            } else {
                match File::open(&path) {
                    Ok(file) => lines(&name, BufReader::new(file), &items),
                    Err(error) => items.blocking_send(Err(format!("{name}: {error}"))).map_err(|_| Closed),
                }
            };
            if read.is_err() {
                return;
            }
        }
    });
    received
}

/// The receiver was dropped.
struct Closed;

fn lines(
    name: &str,
    mut from: impl BufRead,
    items: &mpsc::Sender<Result<Item, String>>,
) -> Result<(), Closed> {
    let send = |item| items.blocking_send(item).map_err(|_| Closed);
    let file: Arc<str> = name.into();
    let mut text = Vec::new();
    for number in 1.. {
        text.clear();
        let bytes = match next(&mut from, &mut text) {
            Ok(0) => return Ok(()),
            Ok(bytes) => bytes,
            Err(error) => return send(Err(format!("{name}, line {number}: {error}"))),
        };
        if number == 1 && UTF_16_MARKS.iter().any(|mark| text.starts_with(mark)) {
            return send(Err(format!(
                "{name} is UTF-16: convert it to UTF-8, as by iconv -f UTF-16 -t UTF-8"
            )));
        }
        // Files that were joined have marks within.
        let text = text.strip_prefix(UTF_8_MARK).unwrap_or(&text);
        if !text.trim_ascii().is_empty() {
            let place = SourceLine { file: file.clone(), line: number };
            send(Ok(Item { place, bytes, request: parse(text) }))?;
        }
    }
    Ok(())
}

fn parse(text: &[u8]) -> Result<ImportUsersRequest, String> {
    if text.len() > jsonl::MAX_LINE_BYTES {
        return Err(format!("the line has more than {} bytes", jsonl::MAX_LINE_BYTES));
    }
    jsonl::read(text)
}

/// Reads a line, and keeps no more of it than shows that it is too long. Says how
/// many bytes it had: 0 at the end.
fn next(from: &mut impl BufRead, text: &mut Vec<u8>) -> io::Result<u64> {
    let most = jsonl::MAX_LINE_BYTES as u64 + 1;
    let mut bytes = from.by_ref().take(most).read_until(b'\n', text)? as u64;
    while bytes >= most && text.last() != Some(&b'\n') {
        let buffer = from.fill_buf()?;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let skipped = end.map_or(buffer.len(), |end| end + 1);
        from.consume(skipped);
        bytes += skipped as u64;
        if end.is_some() || skipped == 0 {
            break;
        }
    }
    if text.last() == Some(&b'\n') {
        text.pop();
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_without_an_end_is_not_kept() {
        let long = vec![b'x'; 3 * jsonl::MAX_LINE_BYTES];
        let input = [&long[..], b"\n{}\n", &long].concat();
        let (mut from, mut text) = (BufReader::with_capacity(100, &input[..]), Vec::new());
        let mut read = || {
            text.clear();
            let bytes = next(&mut from, &mut text).unwrap();
            (bytes, text.len())
        };
        let kept = jsonl::MAX_LINE_BYTES + 1;
        let whole = long.len() as u64;
        assert_eq!([read(), read(), read(), read()], [(whole + 1, kept), (3, 2), (whole, kept), (0, 0)]);
        assert!(parse(&long).unwrap_err().contains("more than"));
    }
}
