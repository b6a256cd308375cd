//! The target that `FUZZ_TARGET` names: one binary for all, because each would be linked with
//! the whole service.

#![no_main]

use std::{env, sync::LazyLock};

use user_service::fuzzing::{TARGETS, Target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = env::var("FUZZ_TARGET").unwrap_or_default();
    let names = || TARGETS.iter().map(|target| target.name).collect::<Vec<_>>().join(", ");
    *TARGETS.iter().find(|target| target.name == name).unwrap_or_else(|| panic!("FUZZ_TARGET is one of {}", names()))
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| (TARGET.run)(input));
