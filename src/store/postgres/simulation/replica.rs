//! A replica: the real writer with its connection, and callers.

use std::{
    pin::pin,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use futures_util::future;
use metrics::counter;
use tokio::{
    io::{duplex, join},
    sync::watch,
    task::JoinHandle,
    time::{self, Instant},
};
use tokio_postgres::NoTls;

use super::{
    database::{Backend, Shared},
    history_checker::{Event, Seen},
};
use crate::{
    domain::{
        Caller, Change, Deadline, Email, Error, Fields, Idempotency, Name, Patch, RequestId, UserId, Write,
    },
    store::{
        heartbeat::WriteHeartbeat,
        postgres::{
            reconnecting::{ReconnectingSession, drive},
            session::{Lasting, Session},
            writer::Writer,
        },
        queue::{PendingWrite, WriteReceiver, queue},
        writer_loop::{self, BatchWriter},
    },
    util::{
        actor::{Actor, as_actor},
        fault_point::testing::{arm, at_each_await, disarm},
    },
};

/// How long a batch may take, and a statement.
const LIMIT: Duration = Duration::from_secs(2);

/// What the pipes of a connection hold, in bytes.
const PIPE_BYTES: usize = 1 << 20;

type Slot = Arc<RwLock<Option<Arc<Session>>>>;

fn set(slot: &Slot, session: Option<Arc<Session>>) {
    *slot.write().unwrap_or_else(PoisonError::into_inner) = session;
}

/// The actors of one replica.
#[derive(Clone)]
pub struct Actors {
    pub keeper: Actor,
    pub writer: Actor,
    /// Of the database's end of the connection.
    pub server: Actor,
}

/// A replica that runs.
pub struct Running {
    pub keeper: JoinHandle<()>,
    pub writer: JoinHandle<()>,
}

impl Running {
    /// Starts a replica. The actors of a later start draw other numbers.
    pub fn start(shared: &Shared, number: usize, actors: &Actors, seed: u64) -> Self {
        let slot = Arc::default();
        let (queue, receiver) = queue(100);
        let mut database = shared.lock().unwrap();
        if let Some(before) = database.queues.get_mut(number) {
            *before = queue;
        } else {
            database.queues.push(queue);
        }
        drop(database);
        let keeping = keep(Arc::clone(shared), Arc::clone(&slot), actors.server.seeded(seed));
        let keeper = tokio::spawn(as_actor(actors.keeper.seeded(seed + 1), keeping));
        let writer = tokio::spawn(as_actor(actors.writer.seeded(seed + 2), write(receiver, slot)));
        Self { keeper, writer }
    }

    /// Ends it as a kill does, wherever it is. What it has sent may still arrive.
    pub fn kill(&self) {
        self.keeper.abort();
        self.writer.abort();
    }
}

/// Keeps a connection to the database. `server` is the actor of its other end.
async fn keep(shared: Shared, slot: Slot, server: Actor) {
    loop {
        let (to_server, input) = duplex(PIPE_BYTES);
        let (from_server, output) = duplex(PIPE_BYTES);
        let backend = Backend::new(Arc::clone(&shared)).serve(input, output);
        let server = server.seeded(Actor::draw(|random| random.u64(..)));
        tokio::spawn(as_actor(server, backend));
        let mut config = tokio_postgres::Config::new();
        let connecting = config.user("simulated").connect_raw(join(from_server, to_server), NoTls);
        if let Ok(Ok((client, connection))) = time::timeout(LIMIT, connecting).await {
            let warned = Arc::default();
            let work = async {
                let session = Session::new(client, Lasting::new(false), LIMIT, Arc::clone(&warned)).await;
                if let Ok(mut session) = session {
                    session.has_limits = shared.lock().unwrap().has_limits;
                    let session = Arc::new(session);
                    set(&slot, Some(Arc::clone(&session)));
                    session.wait_until_broken(LIMIT).await;
                }
            };
            let (work, drive) = (pin!(work), pin!(drive(connection, &warned)));
            // Either may be polled first when both are woken.
            if Actor::draw(fastrand::Rng::bool) {
                future::select(work, drive).await;
            } else {
                future::select(drive, work).await;
            }
            set(&slot, None);
        }
        Actor::pause(1..=5).await;
    }
}

/// Writes what is queued, until the queue is closed.
async fn write(receiver: WriteReceiver, slot: Slot) {
    let mut writer = Interruptible(Writer {
        session: Arc::new(ReconnectingSession::simulated(slot)),
        newest: Arc::new(watch::Sender::new(0)),
        is_alone: false,
        retries: counter!("simulated"),
        heartbeat: Arc::new(WriteHeartbeat::new()),
        limit: LIMIT,
        change_log_retention: Duration::MAX,
        change_log_rows: i64::MAX,
        prune_at: Instant::now(),
        try_at: Instant::now(),
    });
    loop {
        receiver.wait_for(1).await;
        if !super::is_quiet() {
            // Others may join the batch.
            Actor::pause(0..=2).await;
        }
        let Some(batch) = receiver.take() else { return };
        if batch.is_empty() {
            continue;
        }
        let panics = !super::is_quiet() && Actor::draw(|random| random.u8(..20) == 0);
        if panics {
            arm(Actor::draw(|random| random.usize(1..=40)));
        }
        writer_loop::write(&mut writer, batch).await;
        if panics {
            disarm();
        }
    }
}

/// A writer that can panic wherever it waits, and not only at its fault points.
struct Interruptible(Writer);

impl BatchWriter for Interruptible {
    async fn write(&mut self, batch: Vec<PendingWrite>) {
        at_each_await(Box::pin(self.0.write(batch))).await;
    }

    fn recover(&mut self) {
        self.0.recover();
    }

    fn maintenance_due(&self) -> std::time::Instant {
        self.0.maintenance_due()
    }

    async fn maintain(&mut self, receiver: &WriteReceiver) {
        self.0.maintain(receiver).await;
    }
}

/// Makes one write after the other, and returns what it was told.
pub async fn call(shared: Shared, replica: usize) -> Vec<Event> {
    let mut events = Vec::new();
    let (slot, _) = Actor::identity();
    while !super::is_quiet() {
        Actor::pause(1..=60).await;
        let name = format!("write-{slot}-{}", events.len());
        let (change, deletes) = change(&name);
        let payload = name.as_bytes();
        let request = uuid::Builder::from_random_bytes(Actor::draw(|random| random.u128(..)).to_be_bytes());
        let request = RequestId::parse(&request.into_uuid().to_string()).expect("a UUID is a request id");
        let is_known_again = deletes.is_none() && Actor::draw(fastrand::Rng::bool);
        let idempotency =
            is_known_again.then(|| Idempotency::new(&Caller::ANONYMOUS, "Write", request, payload));
        let write = Write { change, idempotency, validate_only: false };
        let (begun, known) = (Instant::now().into_std(), shared.lock().unwrap().known);
        let mut answer = ask(&shared, replica, write.clone()).await;
        if is_known_again && matches!(answer, Err(Error::OutcomeUnknown)) {
            Actor::pause(1..=20).await;
            // Whatever another try is refused for, the first may still have happened.
            answer = ask(&shared, replica, write).await.map_err(|_| Error::OutcomeUnknown);
        }
        let ended = Instant::now().into_std();
        let mut database = shared.lock().unwrap();
        let seen = match (answer, deletes) {
            (Ok(revision), None) => Seen::Wrote { name: name.clone(), revision },
            (Ok(_), Some(id)) => Seen::Deleted { id },
            (Err(Error::OutcomeUnknown), None) => Seen::Unknown,
            (Err(Error::OutcomeUnknown), Some(id)) => Seen::UnknownDelete { id },
            (Err(_), _) => Seen::Failed { name: name.clone() },
        };
        if let Seen::Wrote { revision, .. } = &seen {
            database.known = database.known.max(*revision);
        }
        database.say(format!("{name}: {seen:?}"));
        events.push(Event { begun, ended, known, seen });
    }
    events
}

/// Any change of a few users, and the id that it deletes.
fn change(name: &str) -> (Change, Option<String>) {
    let (id, address, kind) = Actor::draw(|random| (random.u8(..5), random.u8(..5), random.u8(..8)));
    let id = UserId::parse(&format!("user-{id}")).expect("it is an id");
    let email = Email::parse(&format!("user-{address}@example.com")).expect("it is an address");
    let name = Name::parse(name).expect("it is a name");
    let fields = Fields { name: name.clone(), ..Fields::example(email.as_str()) };
    match kind {
        0..=2 => (Change::Create { id, fields }, None),
        3 | 4 => (Change::Upsert { id: Some(id.clone()), new_id: id, fields }, None),
        5 | 6 => {
            let patch = Patch { name: Some(name), ..Patch::default() };
            (Change::Update { id, patch, etag: None }, None)
        }
        _ => {
            let deleted = id.as_str().to_owned();
            (Change::Delete { id, etag: None, allow_missing: false }, Some(deleted))
        }
    }
}

/// The revision of a write. A caller may go away without waiting.
pub async fn ask(shared: &Shared, replica: usize, write: Write) -> Result<u64, Error> {
    let queue = Arc::clone(&shared.lock().unwrap().queues[replica]);
    let answered = queue.push(write, Deadline::NONE)?;
    let is_patient = super::is_quiet() || Actor::draw(|random| random.u8(..10)) > 0;
    let patience = if is_patient { 10_000 } else { Actor::draw(|random| random.u64(1..20)) };
    match time::timeout_at(Actor::moment(patience), answered).await {
        Ok(Ok(answer)) => answer.map(|written| written.revision),
        Ok(Err(_)) | Err(_) => Err(Error::OutcomeUnknown),
    }
}
