//! What stands between a store and its database, and can be told to fail.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Notify, watch},
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
    /// Cut it on the store's side alone, and let its transaction get through later.
    CutAndDeliverLate,
    /// Cut it when the database has committed, before anybody learns of that.
    CutAfterCommit,
}

/// A transaction that gets through when its store has given it up.
#[derive(Default)]
pub struct Late {
    pub deliver: Notify,
    pub ended: Notify,
}

pub struct Proxy {
    pub port: u16,
    /// The port that new connections go on to.
    pub database: Arc<AtomicU16>,
    pub plan: Arc<watch::Sender<Plan>>,
    pub late: Arc<Late>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub async fn start(database: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let plan = Arc::new(watch::Sender::new(Plan::Forward));
        let (plans, late) = (plan.clone(), Arc::<Late>::default());
        let lates = late.clone();
        let database = Arc::new(AtomicU16::new(database));
        let databases = database.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((store, _)) = listener.accept().await {
                let Ok(database) = TcpStream::connect(("127.0.0.1", databases.load(Ordering::SeqCst))).await
                else {
                    continue;
                };
                tokio::spawn(pass(store, database, plans.clone(), lates.clone()));
            }
        });
        Self { port, database, plan, late, accepting }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn pass(store: TcpStream, database: TcpStream, plan: Arc<watch::Sender<Plan>>, late: Arc<Late>) {
    let (from_store, to_store) = store.into_split();
    let (mut from_database, mut to_database) = database.into_split();
    let mute = AtomicBool::new(false);
    let kept = tokio::select! {
        kept = ask(from_store, &mut to_database, &plan, &mute) => kept,
        () = answer(&mut from_database, to_store, &plan, &mute) => None,
    };
    if let Some(kept) = kept {
        late.deliver.notified().await;
        to_database.write_all(&kept).await.unwrap();
        to_database.shutdown().await.unwrap();
        // The server has done all of it when it closes as well.
        let _ = from_database.read_to_end(&mut Vec::new()).await;
        late.ended.notify_one();
    }
}

/// Ends with the connection; with what is to be delivered late, if anything.
async fn ask(
    mut from: OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    plan: &watch::Sender<Plan>,
    mute: &AtomicBool,
) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 1 << 16];
    let mut alone = None;
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        alone = prepared_in(&buffer[..read]).or(alone);
        let _ = plan.subscribe().wait_for(|plan| *plan != Plan::Silence).await;
        let now = *plan.borrow();
        if let Plan::Slow(wait) = now {
            time::sleep(wait).await;
        }
        let cuts = matches!(now, Plan::CutBeforeCommit | Plan::CutAndDeliverLate | Plan::CutAfterCommit);
        if let Some(commit) = commit_in(&buffer[..read], alone.as_deref()).filter(|_| cuts) {
            plan.send_replace(Plan::Forward);
            match now {
                Plan::CutBeforeCommit => {
                    // All but that message.
                    let _ = to.write_all(&buffer[..commit]).await;
                    return None;
                }
                Plan::CutAndDeliverLate => return Some(buffer[..read].to_vec()),
                _ => mute.store(true, Ordering::SeqCst),
            }
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return None;
        }
    }
    None
}

async fn answer(
    from: &mut OwnedReadHalf,
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
            // There is no transaction any more.
            if find(&kept, b"Z\0\0\0\x05I").is_some() {
                return;
            }
        } else if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// Where the message is that commits: a statement, or a Bind of the one that commits by itself.
fn commit_in(bytes: &[u8], alone: Option<&[u8]>) -> Option<usize> {
    let bind = alone.map(|name| [b"\0", name, b"\0"].concat()).and_then(|bind| find(bytes, &bind));
    let commit = find(bytes, b"COMMIT\0").or(bind)?;
    // Its kind and its length stand before.
    commit.checked_sub(5)
}

/// The name that these bytes give to the statement that writes a whole batch, if they do.
fn prepared_in(bytes: &[u8]) -> Option<Vec<u8>> {
    let text = find(bytes, b"logged AS (")?;
    let end = bytes[..text].iter().rposition(|byte| *byte == 0)?;
    let begin = bytes[..end].iter().rposition(|byte| *byte == b's')?;
    Some(bytes[begin..end].to_vec())
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
