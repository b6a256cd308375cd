//! What stands in for musl's own functions (`src/libc`), compiled as `build.rs`
//! compiles it and beside the libc that is here, whatever that is.

#![allow(clippy::unwrap_used, reason = "a test that panics has said enough")]

use std::{env, process::Command};

#[test]
fn copies_and_comparisons_are_those_of_the_c_standard() {
    let root = env!("CARGO_MANIFEST_DIR");
    let program = format!("{}/memory", env!("CARGO_TARGET_TMPDIR"));
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let done = Command::new(compiler)
        .args(["-O2", "-ffreestanding", "-fno-tree-loop-distribute-patterns", "-Wall", "-Wextra", "-Werror"])
        .args([&format!("{root}/tests/libc/memory.c"), "-o", &program])
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let tested = Command::new(program).output().unwrap();
    assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stdout));
}
