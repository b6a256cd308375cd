//! The built binary on its durable store: killed, traced, and let down by its disk.

use std::{
    env, fs,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rusqlite::Connection;
use tokio::{
    sync::Notify,
    task::{JoinHandle, JoinSet, block_in_place},
};
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt;
use user_service::proto::user::v1::{
    CreateUserRequest, GetUserRequest, ListUsersRequest, User, get_user_request::Key,
    user_service_client::UserServiceClient,
};
use uuid::Uuid;

use crate::{
    strace,
    support::{Server, TEST_TIMEOUT},
};

type Client = UserServiceClient<Channel>;

/// Clients that create users at the same time.
const CLIENTS: usize = 16;

/// A server on this file, perhaps under a wrapper, and a client of it.
async fn serve(file: &Path, wrapper: &[String]) -> (Server, Client) {
    let mut words = wrapper.iter().map(String::as_str).chain([env!("CARGO_BIN_EXE_user-service")]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words).env("USERSVC_STORE_URL", format!("sqlite:{}", file.display()));
    let server = block_in_place(|| Server::spawn(command));
    let channel =
        Channel::from_shared(format!("http://{}", server.grpc_addr)).unwrap().connect().await.unwrap();
    (server, Client::new(channel))
}

fn create(name: &str) -> CreateUserRequest {
    let user = User { name: "Ada".into(), email: format!("{name}@example.com"), age: 36, ..User::default() };
    CreateUserRequest { user: Some(user), ..CreateUserRequest::default() }
}

/// A create that is safe to repeat.
fn repeatable(name: &str) -> CreateUserRequest {
    CreateUserRequest { request_id: Uuid::new_v4().to_string(), ..create(name) }
}

async fn all_users(client: &mut Client) -> Vec<User> {
    let mut users = Vec::new();
    let mut page_token = String::new();
    loop {
        let page =
            client.list_users(ListUsersRequest { page_size: 1_000, page_token }).await.unwrap().into_inner();
        users.extend(page.users);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return users;
        }
    }
}

/// Creates users until the server is gone: `before` first, which it may have
/// created already. Returns the last request, and the users that it was told of.
fn keep_creating(
    mut client: Client,
    before: CreateUserRequest,
    acknowledged: Arc<AtomicUsize>,
    one_more: Arc<Notify>,
) -> JoinHandle<(CreateUserRequest, Vec<User>)> {
    tokio::spawn(async move {
        let mut request = before;
        let mut users = Vec::new();
        while let Ok(answer) = client.create_user(request.clone()).await {
            users.extend(answer.into_inner().user);
            acknowledged.fetch_add(1, Ordering::Relaxed);
            one_more.notify_one();
            request = repeatable(&Uuid::new_v4().simple().to_string());
        }
        (request, users)
    })
}

/// Kills the server again and again while clients create users; each client then
/// repeats the create that it has no answer to. `KILLS` says how many times.
#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_user_outlives_a_kill_and_none_is_there_twice() {
    let kills = env::var("KILLS").map_or(20, |kills| kills.parse().expect("KILLS is a number"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("users.db");
    let mut acknowledged = Vec::new();
    let mut open: Vec<_> = (0..CLIENTS).map(|n| repeatable(&format!("first-{n}"))).collect();
    for round in 0..kills {
        let (mut server, client) = serve(&file, &[]).await;
        let (count, one_more) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let clients: Vec<_> = open
            .drain(..)
            .map(|before| keep_creating(client.clone(), before, count.clone(), one_more.clone()))
            .collect();
        // Kills fall on all moments of the life of a log.
        while count.load(Ordering::Relaxed) < 10 + round * 37 % 300 {
            one_more.notified().await;
        }
        server.signal("KILL");
        block_in_place(|| server.wait());
        for client in clients {
            let (unanswered, users) = client.await.unwrap();
            open.push(unanswered);
            acknowledged.extend(users);
        }
    }

    let (server, mut client) = serve(&file, &[]).await;
    for request in open {
        acknowledged.extend(client.create_user(request).await.unwrap().into_inner().user);
    }
    let mut stored = all_users(&mut client).await;
    // One for each request, whatever was repeated, and exactly as acknowledged.
    acknowledged.sort_by(|a, b| a.id.cmp(&b.id));
    stored.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(stored.len(), acknowledged.len());
    assert_eq!(stored, acknowledged);
    stored.sort_by(|a, b| a.email.cmp(&b.email));
    stored.dedup_by(|a, b| a.email == b.email);
    assert_eq!(stored.len(), acknowledged.len(), "an address is there twice");
    assert!(block_in_place(|| server.stop()).success());
}

/// What a client saw of its creates, one after the other, on a server under strace.
struct Traced {
    answers: Vec<(f64, Result<User, Status>)>,
    trace: String,
}

impl Traced {
    fn created(&self) -> Vec<&User> {
        self.answers.iter().filter_map(|(_, answer)| answer.as_ref().ok()).collect()
    }

    fn failures(&self) -> Vec<&Status> {
        self.answers.iter().filter_map(|(_, answer)| answer.as_ref().err()).collect()
    }
}

/// Creates 20 users on a traced server with `inject` done to its log. After the
/// first failure waits, up to `wait`, for creates to succeed again.
async fn trace(inject: &[&str], wait: Duration) -> Traced {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| fs::canonicalize(dir.path()).unwrap().join(name).to_str().unwrap().to_owned();
    let (file, output) = (path("users.db"), path("trace"));
    // So that opening it syncs nothing, and what is counted are commits.
    let migrate = Command::new(env!("CARGO_BIN_EXE_user-service"))
        .args(["migrate", "--store-url", &format!("sqlite:{file}")])
        .output()
        .unwrap();
    assert!(migrate.status.success(), "{migrate:?}");

    let wrapper = strace::arguments(&output, &[&path("users.db-wal")], inject);
    let (server, mut client) = serve(Path::new(&file), &wrapper).await;
    let mut answers = Vec::new();
    let mut waited = false;
    for n in 0..20 {
        let mut answer = client.create_user(create(&format!("user-{n}"))).await;
        if answer.is_err() && !waited {
            waited = true;
            let until = Instant::now() + wait;
            while answer.is_err() && Instant::now() < until {
                answers.push((now(), answer.map(|_| unreachable!("it failed"))));
                tokio::time::sleep(Duration::from_millis(50)).await;
                answer = client.create_user(create(&format!("user-{n}"))).await;
            }
        }
        answers.push((now(), answer.map(|answer| answer.into_inner().user.unwrap())));
    }
    let traced = Traced { answers, trace: String::new() };
    for user in traced.created() {
        let key = Some(Key::Id(user.id.clone()));
        let found = client.get_user(GetUserRequest { key }).await.expect("reads go on").into_inner();
        assert_eq!(found.user.as_ref(), Some(user));
    }
    drop(client);
    block_in_place(|| server.stop());
    let (server, mut client) = serve(Path::new(&file), &[]).await;
    let stored = all_users(&mut client).await;
    assert!(traced.created().iter().all(|user| stored.contains(user)), "what was acknowledged is kept");
    drop(server);
    Traced { trace: whole_trace(&output).await, ..traced }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// strace ends a little after what it traces.
async fn whole_trace(output: &str) -> String {
    let until = Instant::now() + TEST_TIMEOUT;
    loop {
        let trace = fs::read_to_string(output).unwrap();
        if trace.contains("+++ exited with") && trace.ends_with("+++\n") {
            return trace;
        }
        assert!(Instant::now() < until, "strace does not end:\n{trace}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_gets_no_answer_that_is_not_synced() {
    let traced = trace(&[], Duration::ZERO).await;
    assert!(traced.failures().is_empty(), "{:?}", traced.failures());
    let answers: Vec<_> = traced.answers.iter().map(|(time, _)| *time).collect();
    assert!(strace::unsynced(&traced.trace, &answers).is_empty(), "{}", traced.trace);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_learns_that_a_sync_failed_and_that_writes_are_off() {
    let traced = trace(&["inject=fsync,fdatasync:error=EIO:when=5"], Duration::from_secs(2)).await;
    let failures = traced.failures();
    assert_eq!(failures[0].code(), Code::Unknown, "{:?}", failures[0]);
    assert!(failures[1..].iter().all(|status| status.code() == Code::Unavailable), "{failures:?}");
    assert!(!traced.created().is_empty() && traced.answers.last().unwrap().1.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_gets_through_once_a_full_disk_has_room() {
    let traced = trace(&["inject=pwrite64:error=ENOSPC:when=20..21"], TEST_TIMEOUT).await;
    // Not applied, as UNAVAILABLE says: else a repeat would find the address taken.
    let failures = traced.failures();
    assert!(!failures.is_empty() && failures.iter().all(|status| status.code() == Code::Unavailable));
    assert_eq!(traced.created().len(), 20);
}

/// A disk that does not take writes for a while is no reason to refuse reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_are_answered_while_writes_are_stuck() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("users.db");
    let (server, mut client) = serve(&file, &[]).await;
    client.create_user(create("ada")).await.unwrap();
    let hold = Connection::open(&file).unwrap();
    hold.execute_batch("BEGIN IMMEDIATE").unwrap();
    // More than all the calls that may be in flight.
    let mut stuck = JoinSet::new();
    for connection in 0..30 {
        let url = format!("http://{}", server.grpc_addr);
        let client = Client::new(Channel::from_shared(url).unwrap().connect_lazy());
        for stream in 0..100 {
            let mut client = client.clone();
            let create = create(&format!("user-{connection}-{stream}"));
            stuck.spawn(async move { client.create_user(create).await.map(drop) });
        }
    }
    // Some may have waited for the file for too long before.
    while let Some(ended) = stuck.join_next().await {
        let refused = ended.unwrap().unwrap_err();
        if refused.get_error_details().error_info().is_some_and(|info| info.reason == "OVERLOADED") {
            break;
        }
        assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    }
    assert!(!stuck.is_empty(), "none was refused");
    // While the flood still comes in, too.
    for _ in 0..20 {
        let key = Some(Key::Email("ada@example.com".into()));
        let found = client.get_user(GetUserRequest { key }).await;
        assert!(found.is_ok(), "{found:?}");
    }
    hold.execute_batch("COMMIT").unwrap();
}
