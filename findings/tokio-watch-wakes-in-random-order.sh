#!/usr/bin/env bash
# tokio 1.54.1 wakes the receivers of a watch channel in an order that differs from run to
# run, even on a current-thread runtime with a paused clock.
#
# Each waiting receiver joins one of eight lists that is drawn at random, and a value wakes
# one list after the other. So a program of several receivers that is deterministic
# otherwise makes another log each time, which a simulation by seed must allow for. The
# generator can be seeded by Builder::rng_seed with --cfg tokio_unstable only. Receivers of
# a broadcast channel wake in the order in which they began to wait.
#
# Output seen (the first line differs each time):
#   watch: 20 orders in 20 runs, first [3, 6, 1, 2, 0, 7, 4, 5]
#   broadcast: 1 order in 20 runs, first [0, 1, 2, 3, 4, 5, 6, 7]
#
# Exits with another code than 0 where the behaviour has changed. Needs cargo.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
mkdir src
cat >Cargo.toml <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
tokio = { version = "=1.54.1", features = ["rt", "sync", "time", "test-util"] }
TOML
cat >src/main.rs <<'RUST'
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use tokio::{runtime::Builder, sync::{broadcast, watch}, task::yield_now};

fn run(use_watch: bool) -> Vec<u32> {
    let woken = Arc::new(Mutex::new(Vec::new()));
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let one = watch::Sender::new(());
        let all = broadcast::Sender::new(1);
        let tasks: Vec<_> = (0..8)
            .map(|number| {
                let (mut one, mut all, woken) = (one.subscribe(), all.subscribe(), Arc::clone(&woken));
                tokio::spawn(async move {
                    if use_watch { one.changed().await.unwrap() } else { all.recv().await.unwrap() }
                    woken.lock().unwrap().push(number);
                })
            })
            .collect();
        yield_now().await;
        one.send(()).unwrap();
        all.send(()).unwrap();
        for task in tasks {
            task.await.unwrap();
        }
    });
    woken.lock().unwrap().clone()
}

fn main() {
    for (name, use_watch) in [("watch", true), ("broadcast", false)] {
        let runs: Vec<_> = (0..20).map(|_| run(use_watch)).collect();
        let orders = runs.iter().collect::<BTreeSet<_>>().len();
        println!("{name}: {orders} order{} in 20 runs, first {:?}", if orders == 1 { "" } else { "s" }, runs[0]);
        assert_eq!(orders > 1, use_watch);
    }
}
RUST
cargo run --quiet
