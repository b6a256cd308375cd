//! Many clients that do what they like on replicas of the built binary, and note
//! what they saw.

use std::{
    collections::BTreeMap,
    process::Command,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    history_checker::{Event, Logged, Row, Seen},
    support::{Server, revision},
};
use tokio::{
    task::{JoinSet, block_in_place},
    time,
};
use tonic::{Code, Status, transport::Channel};
use user_service::proto::user::v1::{
    BatchGetUsersRequest, CreateUserRequest, DeleteUserRequest, GetUserRequest, UpdateUserRequest, User,
    get_user_request::Key, user_service_client::UserServiceClient,
};
use uuid::Uuid;

type Client = UserServiceClient<Channel>;

pub const CLIENTS: u64 = 64;
const IDS: u64 = 40;
const ADDRESSES: u64 = 60;

/// Replicas on one database.
pub struct Replicas {
    url: String,
    servers: Mutex<Vec<Option<Server>>>,
    clients: RwLock<Vec<Client>>,
}

impl Replicas {
    pub fn start(url: &str, count: usize) -> Arc<Self> {
        let mut servers = Vec::new();
        let mut clients = Vec::new();
        for _ in 0..count {
            let server = block_in_place(|| serve(url));
            clients.push(client(&server));
            servers.push(Some(server));
        }
        Arc::new(Self { url: url.into(), servers: Mutex::new(servers), clients: RwLock::new(clients) })
    }

    pub fn len(&self) -> usize {
        self.clients.read().unwrap().len()
    }

    pub fn client(&self, n: usize) -> Client {
        self.clients.read().unwrap()[n].clone()
    }

    /// Kills one replica (SIGKILL) and starts another in its place.
    pub fn replace(&self, n: usize) {
        drop(self.servers.lock().unwrap()[n].take());
        let server = serve(&self.url);
        self.clients.write().unwrap()[n] = client(&server);
        self.servers.lock().unwrap()[n] = Some(server);
    }

    /// Until each replica reads and writes; how long that took.
    pub async fn recovered(&self) -> Duration {
        let begun = Instant::now();
        for n in 0..self.len() {
            let mut client = self.client(n);
            let name = format!("recovered-{}", Uuid::new_v4());
            loop {
                assert!(begun.elapsed() < crate::support::TEST_TIMEOUT, "replica {n} is not back");
                // Safe to repeat: the id is the same.
                let written = client.create_user(limited(create(&name, &name, ""))).await;
                let read =
                    client.get_user(limited(GetUserRequest { key: Some(Key::Id(name.clone())) })).await;
                let written = written.map_or_else(|status| status.code() == Code::AlreadyExists, |_| true);
                if written && read.is_ok() {
                    break;
                }
                time::sleep(Duration::from_millis(20)).await;
            }
        }
        begun.elapsed()
    }
}

fn serve(url: &str) -> Server {
    let mut command = Command::new(env!("CARGO_BIN_EXE_user-service"));
    command.env("USERSVC_STORE_URL", url).env("USERSVC_CALL_LOG", "false");
    command.env("USERSVC_STORE_TIMEOUT_MS", "2000").env("USERSVC_LOG_FILTER", "warn,user_service::app=info");
    Server::spawn(command)
}

fn client(server: &Server) -> Client {
    let endpoint = Channel::from_shared(format!("http://{}", server.grpc_addr)).unwrap();
    Client::new(endpoint.connect_lazy())
}

fn limited<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(Duration::from_secs(5));
    request
}

fn create(id: &str, name: &str, request_id: &str) -> CreateUserRequest {
    let user = User { name: name.into(), email: format!("{id}@example.com"), age: 36, ..User::default() };
    CreateUserRequest {
        user: Some(user),
        user_id: id.into(),
        request_id: request_id.into(),
        ..Default::default()
    }
}

/// What a crowd has done so far.
#[derive(Default)]
pub struct Counts {
    wrote: AtomicU64,
    read: AtomicU64,
    /// Calls that did not do what they should, not even refuse.
    pub failures: AtomicU64,
}

impl Counts {
    fn least(&self) -> u64 {
        self.wrote.load(Ordering::Relaxed).min(self.read.load(Ordering::Relaxed))
    }
}

/// Clients at work, until [`Workload::stop`].
pub struct Workload {
    stop: Arc<AtomicBool>,
    pub counts: Arc<Counts>,
    clients: JoinSet<Vec<Event>>,
}

impl Workload {
    pub fn start(replicas: &Arc<Replicas>) -> Self {
        Self::start_again(replicas, 0)
    }

    /// The same after so many others, whose writes have other names.
    pub fn start_again(replicas: &Arc<Replicas>, before: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (known, counts) = (Arc::new(AtomicU64::new(0)), Arc::<Counts>::default());
        let mut clients = JoinSet::new();
        for number in before * CLIENTS + 1..=(before + 1) * CLIENTS {
            let member = WorkloadClient {
                replicas: Arc::clone(replicas),
                known: Arc::clone(&known),
                counts: Arc::clone(&counts),
                random: number.wrapping_mul(0x9e37_79b9_7f4a_7c15),
                number,
                count: 0,
                events: Vec::new(),
            };
            clients.spawn(member.work(Arc::clone(&stop)));
        }
        Self { stop, counts, clients }
    }

    /// Lets them work for so long, and until they have done enough, however slow the
    /// machine is.
    pub async fn work(&self, duration: Duration) {
        let enough = self.counts.least() + 200;
        time::sleep(duration).await;
        self.reach(enough).await;
    }

    /// Until they have done so many more reads, and as many more writes.
    pub async fn progress(&self, calls: u64) {
        self.reach(self.counts.least() + calls).await;
    }

    async fn reach(&self, enough: u64) {
        let end = Instant::now() + crate::support::TEST_TIMEOUT;
        while self.counts.least() < enough {
            assert!(Instant::now() < end, "only {} of {enough} calls are done", self.counts.least());
            time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn stop(self) -> Vec<Event> {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.join_all().await.into_iter().flatten().collect()
    }
}

struct WorkloadClient {
    replicas: Arc<Replicas>,
    known: Arc<AtomicU64>,
    counts: Arc<Counts>,
    random: u64,
    number: u64,
    count: u64,
    events: Vec<Event>,
}

impl WorkloadClient {
    async fn work(mut self, stop: Arc<AtomicBool>) -> Vec<Event> {
        while !stop.load(Ordering::Relaxed) {
            self.count += 1;
            let (begun, known) = (Instant::now(), self.known.load(Ordering::SeqCst));
            let Some(seen) = self.act().await else {
                time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            let told = match &seen {
                Seen::Wrote { revision, .. } => {
                    self.counts.wrote.fetch_add(1, Ordering::Relaxed);
                    *revision
                }
                Seen::Read(rows) => {
                    self.counts.read.fetch_add(1, Ordering::Relaxed);
                    rows.iter().filter_map(|(_, row)| Some(row.as_ref()?.0)).max().unwrap_or(0)
                }
                _ => 0,
            };
            self.known.fetch_max(told, Ordering::SeqCst);
            self.events.push(Event { begun, ended: Instant::now(), known, seen });
        }
        self.events
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }

    fn client(&mut self) -> Client {
        let replicas = self.replicas.len() as u64;
        let n = usize::try_from(self.below(replicas)).unwrap();
        self.replicas.client(n)
    }

    fn noted<T>(&self, answer: Result<T, Status>) -> Result<T, Status> {
        answer.inspect_err(|status| {
            if !is_refused(status) {
                self.counts.failures.fetch_add(1, Ordering::Relaxed);
            }
        })
    }

    /// One call, or one that is repeated until its outcome is known.
    async fn act(&mut self) -> Option<Seen> {
        let id = format!("user-{}", self.below(IDS));
        let name = format!("write-{}-{}", self.number, self.count);
        let email = format!("address-{}@example.com", self.below(ADDRESSES));
        let user = User { id: id.clone(), name: name.clone(), email, age: 36, ..User::default() };
        let request_id = if self.below(2) == 0 { Uuid::new_v4().to_string() } else { String::new() };
        match self.below(10) {
            0..=2 => {
                let request =
                    CreateUserRequest { user: Some(user), user_id: id, request_id, ..Default::default() };
                self.write(&name, Change::Create(request)).await
            }
            3 | 4 => {
                let request = UpdateUserRequest { user: Some(user), request_id, ..Default::default() };
                self.write(&name, Change::Update(request)).await
            }
            5 => self.delete(id).await,
            6 | 7 => self.get(id).await,
            _ => self.batch_get().await,
        }
    }

    async fn write(&mut self, name: &str, change: Change) -> Option<Seen> {
        let repeatable = change.is_repeatable();
        // Whether a try before may still be at work.
        let mut open = false;
        for _ in 0..30 {
            let name = name.to_owned();
            let answer = change.call(self.client()).await;
            match self.noted(answer) {
                Ok(user) => return Some(Seen::Wrote { name, revision: revision(&user?) }),
                Err(status) if is_refused(&status) && open => return Some(Seen::Unknown),
                Err(status) if is_refused(&status) => return Some(Seen::Failed { name }),
                Err(status) if repeatable => {
                    open |= !is_not_applied(&status);
                    time::sleep(Duration::from_millis(200)).await;
                }
                Err(status) if is_not_applied(&status) => return Some(Seen::Failed { name }),
                Err(_) => return Some(Seen::Unknown),
            }
        }
        Some(Seen::Unknown)
    }

    async fn delete(&mut self, id: String) -> Option<Seen> {
        let request = DeleteUserRequest { id: id.clone(), ..DeleteUserRequest::default() };
        let answer = self.client().delete_user(limited(request)).await;
        match self.noted(answer) {
            Ok(_) => Some(Seen::Deleted { id }),
            Err(status) if is_refused(&status) || is_not_applied(&status) => None,
            Err(_) => Some(Seen::UnknownDelete { id }),
        }
    }

    async fn get(&mut self, id: String) -> Option<Seen> {
        let request = GetUserRequest { key: Some(Key::Id(id.clone())) };
        let answer = self.client().get_user(limited(request)).await;
        match self.noted(answer) {
            Ok(user) => Some(Seen::Read(vec![(id, user.into_inner().user.map(row))])),
            Err(status) if status.code() == Code::NotFound => Some(Seen::Read(vec![(id, None)])),
            Err(_) => None,
        }
    }

    async fn batch_get(&mut self) -> Option<Seen> {
        let ids: Vec<_> = (0..IDS).step_by(5).map(|id| format!("user-{id}")).collect();
        let request = BatchGetUsersRequest { ids: ids.clone(), allow_missing: true };
        let answer = self.client().batch_get_users(limited(request)).await;
        let users = self.noted(answer).ok()?.into_inner().users;
        let mut found: BTreeMap<_, _> = users.into_iter().map(|user| (user.id.clone(), row(user))).collect();
        Some(Seen::Read(ids.into_iter().map(|id| (id.clone(), found.remove(&id))).collect()))
    }
}

enum Change {
    Create(CreateUserRequest),
    Update(UpdateUserRequest),
}

impl Change {
    fn is_repeatable(&self) -> bool {
        match self {
            Self::Create(request) => !request.request_id.is_empty(),
            Self::Update(request) => !request.request_id.is_empty(),
        }
    }

    async fn call(&self, mut client: Client) -> Result<Option<User>, Status> {
        Ok(match self {
            Self::Create(request) => client.create_user(limited(request.clone())).await?.into_inner().user,
            Self::Update(request) => client.update_user(limited(request.clone())).await?.into_inner().user,
        })
    }
}

/// Its revision, and what was written.
pub fn row(user: User) -> (u64, Row) {
    (revision(&user), Row { name: user.name, email: user.email })
}

/// Decided on what is stored, so nothing was written.
fn is_refused(status: &Status) -> bool {
    matches!(status.code(), Code::NotFound | Code::AlreadyExists | Code::Aborted)
}

/// The service's own word; a connection that breaks says the same without details.
fn is_not_applied(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::ResourceExhausted) && !status.details().is_empty()
}

/// What the database holds in the end: the change log, and who is there.
pub async fn stored(client: &tokio_postgres::Client) -> (Vec<Logged>, BTreeMap<String, (u64, Row)>) {
    let row = |row: &tokio_postgres::Row| {
        Some(Row { name: row.get::<_, Option<String>>(2)?, email: row.get::<_, Option<String>>(3)? })
    };
    let log = "SELECT revision, id, after_image::json->>'name', after_image::json->>'email'
               FROM user_service.changes ORDER BY revision";
    let log = client.query(log, &[]).await.unwrap();
    let log = log.iter().map(|line| Logged {
        revision: line.get::<_, i64>(0).cast_unsigned(),
        id: line.get(1),
        row: row(line),
    });
    let users = client.query("SELECT revision, id, name, email FROM user_service.users", &[]).await.unwrap();
    let users =
        users.iter().map(|line| (line.get(1), (line.get::<_, i64>(0).cast_unsigned(), row(line).unwrap())));
    (log.collect(), users.collect())
}
