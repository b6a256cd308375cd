//! HTTP/2 as h2spec understands it.

use std::{path::Path, process::Command};

use crate::support::Server;

#[test]
fn every_case_of_h2spec_passes() {
    let h2spec = Path::new(env!("CARGO_MANIFEST_DIR")).join("bin/h2spec");
    assert!(h2spec.exists(), "bin/h2spec is missing: run `make tools`");
    let server = Server::start(&["--call-log", "false"]);
    let port = server.grpc_addr.port().to_string();
    let output = Command::new(h2spec)
        .args(["--host", "127.0.0.1", "--port", &port, "--strict", "--timeout", "10"])
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    // A case that is skipped has shown nothing.
    assert!(output.status.success() && report.contains(" 0 skipped, 0 failed"), "{report}");
    assert_eq!(server.stop().code(), Some(0));
}
