//! What stands between a store and its database, and can be told to fail.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
    time,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    Forward,
    /// Accept, and pass nothing on.
    Silence,
    /// Pass on what is asked for only after a while.
    Slow(Duration),
    /// Cut the next connection that commits before its commit gets through.
    CutBeforeCommit,
    /// Cut it when the database has committed, before anybody learns of that.
    CutAfterCommit,
}

pub struct Proxy {
    pub port: u16,
    pub plan: Arc<watch::Sender<Plan>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub async fn start(database: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let plan = Arc::new(watch::Sender::new(Plan::Forward));
        let plans = plan.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((store, _)) = listener.accept().await {
                let Ok(database) = TcpStream::connect(("127.0.0.1", database)).await else { continue };
                tokio::spawn(pass(store, database, plans.clone()));
            }
        });
        Self { port, plan, accepting }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn pass(store: TcpStream, database: TcpStream, plan: Arc<watch::Sender<Plan>>) {
    let (from_store, to_store) = store.into_split();
    let (from_database, to_database) = database.into_split();
    let mute = AtomicBool::new(false);
    tokio::select! {
        () = ask(from_store, to_database, &plan, &mute) => {}
        () = answer(from_database, to_store, &plan, &mute) => {}
    }
}

async fn ask(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, plan: &watch::Sender<Plan>, mute: &AtomicBool) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let _ = plan.subscribe().wait_for(|plan| *plan != Plan::Silence).await;
        let now = *plan.borrow();
        if let Plan::Slow(wait) = now {
            time::sleep(wait).await;
        }
        if matches!(now, Plan::CutBeforeCommit | Plan::CutAfterCommit) && holds_commit(&buffer[..read]) {
            plan.send_replace(Plan::Forward);
            if now == Plan::CutBeforeCommit {
                return;
            }
            mute.store(true, Ordering::SeqCst);
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

async fn answer(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    plan: &watch::Sender<Plan>,
    mute: &AtomicBool,
) {
    let mut buffer = vec![0; 1 << 16];
    let mut kept = Vec::new();
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let _ = plan.subscribe().wait_for(|plan| *plan != Plan::Silence).await;
        if mute.load(Ordering::SeqCst) {
            kept.extend_from_slice(&buffer[..read]);
            if holds_commit(&kept) {
                return;
            }
        } else if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// The statement, and the answer to it.
fn holds_commit(bytes: &[u8]) -> bool {
    bytes.windows(7).any(|window| window == b"COMMIT\0")
}
