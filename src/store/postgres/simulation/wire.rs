//! The protocol of PostgreSQL, version 3, as far as a server needs it for the statements of
//! the store (PostgreSQL's documentation, "Message Formats").

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type};

/// What a client asks for.
#[derive(Debug)]
pub enum Request {
    /// Several statements without parameters.
    Simple(String),
    /// One statement with its parameters.
    Prepared(String, Vec<Option<Vec<u8>>>),
    /// A synchronisation and nothing before it.
    Sync,
}

/// A value of a row, in its binary form.
pub struct Cell(Option<BytesMut>);

impl Cell {
    pub fn of<T: ToSql>(of: &Type, value: &T) -> Self {
        let mut bytes = BytesMut::new();
        let null = value.to_sql(of, &mut bytes).expect("a value of this type");
        Self(matches!(null, IsNull::No).then_some(bytes))
    }

    pub const NULL: Self = Self(None);
}

pub type Row = Vec<Cell>;

/// The answer to one request.
pub enum Answer {
    /// With the columns of rows, where there may be none.
    Rows(Vec<Type>, Vec<Row>),
    Done,
    /// The SQLSTATE.
    Error(&'static str),
}

/// The parameter of a statement.
pub fn param<T: for<'a> FromSql<'a>>(params: &[Option<Vec<u8>>], types: &[Type], at: usize) -> T {
    let raw = params[at].as_deref().expect("no parameter is null");
    T::from_sql(&types[at], raw).expect("a parameter of its type")
}

/// Reads the message that begins a connection, and answers it.
pub async fn start(
    input: &mut (impl AsyncRead + Unpin),
    output: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    let len = input.read_u32().await?;
    let mut startup = vec![0; len as usize - 4];
    input.read_exact(&mut startup).await?;
    let mut bytes = message(b'R', &0_u32.to_be_bytes());
    bytes.extend(message(b'Z', b"I"));
    output.write_all(&bytes).await
}

/// The next request; an error where the client is gone.
pub async fn next(input: &mut (impl AsyncRead + Unpin)) -> io::Result<Request> {
    let mut statement = None;
    let mut params = Vec::new();
    loop {
        let kind = input.read_u8().await?;
        let len = input.read_u32().await?;
        let mut body = vec![0; len as usize - 4];
        input.read_exact(&mut body).await?;
        match kind {
            b'Q' => return Ok(Request::Simple(text(&body).0)),
            b'P' => {
                let (_, rest) = text(&body);
                statement = Some(text(rest).0);
            }
            b'B' => params = bound(&body),
            b'S' => return Ok(statement.map_or(Request::Sync, |sql| Request::Prepared(sql, params))),
            b'X' => return Err(io::ErrorKind::UnexpectedEof.into()),
            // Describe and Execute.
            _ => {}
        }
    }
}

/// The bytes of an answer. `state` is that of the transaction: `I`, `T` or `E`.
pub fn encode(request: &Request, answer: &Answer, state: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Answer::Error(code) = answer {
        let fields = format!("SERROR\0VERROR\0C{code}\0Msimulated\0\0");
        bytes.extend(message(b'E', fields.as_bytes()));
    } else {
        if matches!(request, Request::Prepared(..)) {
            bytes.extend(message(b'1', b""));
            bytes.extend(message(b'2', b""));
            match answer {
                Answer::Rows(columns, rows) => {
                    bytes.extend(message(b'T', &columns_of(columns)));
                    for row in rows {
                        bytes.extend(message(b'D', &cells_of(row)));
                    }
                }
                _ => bytes.extend(message(b'n', b"")),
            }
        }
        if !matches!(request, Request::Sync) {
            bytes.extend(message(b'C', b"DONE\0"));
        }
    }
    bytes.extend(message(b'Z', &[state]));
    bytes
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(u32::try_from(body.len() + 4).expect("messages are short").to_be_bytes());
    bytes.extend(body);
    bytes
}

/// A text that ends with a zero, and the rest.
fn text(bytes: &[u8]) -> (String, &[u8]) {
    let at = bytes.iter().position(|byte| *byte == 0).expect("a text ends");
    (String::from_utf8(bytes[..at].to_vec()).expect("a text is UTF-8"), &bytes[at + 1..])
}

fn short(bytes: &[u8], at: usize) -> usize {
    u16::from_be_bytes([bytes[at], bytes[at + 1]]).into()
}

/// The parameters of a Bind.
fn bound(body: &[u8]) -> Vec<Option<Vec<u8>>> {
    let (_, rest) = text(body);
    let (_, rest) = text(rest);
    let formats = short(rest, 0);
    let mut at = 2 + 2 * formats;
    let count = short(rest, at);
    at += 2;
    let mut params = Vec::new();
    for _ in 0..count {
        let len = i32::from_be_bytes(rest[at..at + 4].try_into().expect("four bytes"));
        at += 4;
        params.push(usize::try_from(len).ok().map(|len| {
            at += len;
            rest[at - len..at].to_vec()
        }));
    }
    params
}

fn count(of: usize) -> [u8; 2] {
    u16::try_from(of).expect("there are few columns").to_be_bytes()
}

fn columns_of(columns: &[Type]) -> Vec<u8> {
    let mut body = count(columns.len()).to_vec();
    for column in columns {
        body.extend(b"c\0\0\0\0\0\0\0");
        body.extend(column.oid().to_be_bytes());
        // The length and the modifier of the type, and the binary format.
        body.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 1]);
    }
    body
}

fn cells_of(row: &Row) -> Vec<u8> {
    let mut body = count(row.len()).to_vec();
    for Cell(value) in row {
        let len = value.as_ref().map_or(-1, |value| i32::try_from(value.len()).expect("values are short"));
        body.extend(len.to_be_bytes());
        body.extend(value.iter().flatten());
    }
    body
}
