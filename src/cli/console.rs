//! What commands print.

use std::{
    fmt::Display,
    io::{self, Write},
};

use tonic::Status;

/// Prints a line. A closed stdout must not stop the command: `println!` would panic,
/// and smoke would leave its user behind.
pub fn say(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// A failed call in one line.
pub fn describe(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}
