use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use super::*;
use crate::config::SETTINGS;

/// Mutations of each kept input, and how long they may take on a busy machine.
const MUTATIONS: usize = 300;
const MUTATING: Duration = Duration::from_secs(5);

fn seeds(target: &Target) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target.name);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// Changes an input in one to four places. The same generator makes the same changes.
fn mutate(random: &mut fastrand::Rng, input: &[u8], others: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..random.usize(1..=4) {
        let at = random.usize(..=bytes.len());
        let until = random.usize(at..=bytes.len()).min(at + 64);
        match random.u8(..7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
            1 if at < bytes.len() => bytes[at] = random.u8(..),
            2 => bytes.insert(at, random.u8(..)),
            3 => drop(bytes.drain(at..until)),
            4 => drop(bytes.splice(at..at, bytes[at..until].to_vec())),
            5 => bytes.truncate(at),
            _ => {
                let other = random.choice(others).map_or(&[][..], Vec::as_slice);
                bytes.splice(at..until, other[random.usize(..=other.len())..].iter().copied());
            }
        }
    }
    bytes
}

fn run(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let seeds = seeds(target);
    assert!(!seeds.is_empty(), "{name} has no kept inputs");
    for seed in &seeds {
        (target.run)(seed);
    }
    let mut random = fastrand::Rng::with_seed(1);
    let until = Instant::now() + MUTATING;
    for _ in 0..MUTATIONS {
        for seed in &seeds {
            if Instant::now() > until {
                return;
            }
            (target.run)(&mutate(&mut random, seed, &seeds));
        }
    }
}

#[test]
fn the_kept_configurations_change_every_setting() {
    let target = TARGETS.iter().find(|target| target.name == "config_files").unwrap();
    let loaded: Vec<_> = seeds(target).iter().filter_map(|seed| load_file(seed).ok()).collect();
    for setting in SETTINGS {
        // A setting that is lost when it is printed has its default when it is read again.
        let is_changed = loaded.iter().any(|loaded| loaded.is_changed(setting.name));
        assert!(is_changed, "give {} another value in fuzz/seeds/config_files/every.toml", setting.name);
    }
}

/// A test for each target, so that a failure names it.
macro_rules! targets {
    ($($name:ident),+) => {
        $(#[test]
        fn $name() {
            run(stringify!($name));
        })+

        #[test]
        fn every_target_has_a_test_and_kept_inputs() {
            let targets: BTreeSet<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
            assert_eq!(targets, [$(stringify!($name).to_owned()),+].into());
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
            let name = |file: std::io::Result<fs::DirEntry>| file.unwrap().file_name().into_string().unwrap();
            assert_eq!(fs::read_dir(folder).unwrap().map(name).collect::<BTreeSet<_>>(), targets);
        }
    };
}

targets!(
    calls,
    connections,
    edge,
    page_tokens,
    resume_tokens,
    grpc_timeouts,
    traceparents,
    config_files,
    config_environments,
    postgres_urls,
    import_lines,
    key_sets,
    policies,
    tokens
);
