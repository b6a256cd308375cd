//! A plain HTTP client for the admin port.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    str::FromStr,
};

use super::TEST_TIMEOUT;

/// What a plain HTTP client gets: the status, the head and the body.
pub struct Page {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// Sends `METHOD PATH` and reads the answer to its end.
pub fn ask(addr: SocketAddr, request: &str) -> Page {
    answer(addr, &format!("{request} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n"))
}

/// Sends a request as it stands and reads the answer to its end.
pub fn answer(addr: SocketAddr, request: &str) -> Page {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Page { status, head: head.to_lowercase(), body: body.into() }
}

/// The value of one series on a page of `/metrics`, spelt as it stands there.
pub fn value<T: FromStr>(page: &str, series: &str) -> Option<T> {
    page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// The sum of the series of a metric on a page of `/metrics` that have all of these labels.
pub fn sum(page: &str, name: &str, labels: &[&str]) -> f64 {
    let lines = page.lines().filter_map(|line| line.strip_prefix(name)?.rsplit_once(' '));
    let of_name = lines.filter(|(rest, _)| rest.is_empty() || rest.starts_with('{'));
    let chosen = of_name.filter(|(rest, _)| labels.iter().all(|label| rest.contains(label)));
    chosen.map(|(_, value)| value.parse::<f64>().unwrap()).sum()
}
