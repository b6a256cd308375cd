//! Imports: what becomes of each user, on every store and over the wire.

use std::{env, fs, sync::Arc, time::Instant};

use crate::{
    database,
    fixtures::{fields, get, get_by_email, id, write},
    postgres_connection_metrics::{until, value},
    support::{Server, TEST_TIMEOUT},
};
use rusqlite::Connection;
use tokio::{
    sync::mpsc,
    task::{JoinSet, block_in_place},
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Code, Status, Streaming, transport::Channel};
use tonic_types::StatusExt;
use user_service::{
    domain::{Change, Error, Store, Timestamp, UniqueKey},
    proto::user::v1::{
        CreateUserRequest, ImportUsersRequest, ImportUsersResponse, ListUsersRequest, User,
        import_users_response::Result as Outcome, user_service_client::UserServiceClient,
    },
};

pub type Client = UserServiceClient<Channel>;

fn import(by: Option<&str>, new: &str, name: &str, create_time: Option<i64>) -> Change {
    let create_time = create_time.map(Timestamp::from_micros);
    Change::Import { id: by.map(id), new_id: id(new), fields: fields(name, name), create_time }
}

pub async fn an_import_creates_or_finds_and_overwrites_nobody(store: Arc<dyn Store>) {
    for by in [Some("ada"), None] {
        let name = by.unwrap_or("bob");
        let created = write(&store, import(by, "new", name, Some(7_000_001))).await.unwrap();
        let user = created.user.clone().unwrap();
        assert_eq!((user.create_time.as_micros(), created.revision), (7_000_001, user.revision));
        assert_eq!(user.id, id(by.unwrap_or("new")));
        assert_eq!(get_by_email(&store, name).await, created.user);
        for time in [Some(7_000_001), None] {
            let again = write(&store, import(by, "other", name, time)).await.unwrap();
            assert_eq!((again.user, again.revision), (created.user.clone(), 0));
        }
        let other = write(&store, import(by, "other", name, Some(7_000_002))).await;
        assert!(matches!(other, Err(Error::AlreadyExists(_))), "{other:?}");
        assert_eq!(get(&store, user.id.as_str()).await, created.user);
    }
    let taken = write(&store, import(Some("eve"), "new", "ada", None)).await;
    assert!(matches!(taken, Err(Error::AlreadyExists(UniqueKey::Email))), "{taken:?}");
}

pub async fn imports_of_the_same_users_at_once_create_each_once(store: Arc<dyn Store>) {
    const USERS: usize = 100;
    let mut writes = JoinSet::new();
    for number in 0..4 * USERS {
        let (store, name) = (Arc::clone(&store), format!("user-{}", number % USERS));
        // By id and by address, the one as often as the other.
        let by = (number / USERS).is_multiple_of(2).then(|| name.clone());
        let change = import(by.as_deref(), &name, &name, None);
        writes.spawn(async move { write(&store, change).await.unwrap() });
    }
    let written = writes.join_all().await;
    let created: Vec<_> = written.iter().filter(|written| written.revision > 0).collect();
    assert_eq!(created.len(), USERS);
    assert!(written.iter().all(|written| written.user.is_some()));
}

/// A server on this store, and a client of it.
pub async fn serve(store_url: &str) -> (Server, Client) {
    let server = block_in_place(|| Server::start(&["--store-url", store_url]));
    let channel =
        Channel::from_shared(format!("http://{}", server.grpc_addr)).unwrap().connect().await.unwrap();
    (server, Client::new(channel))
}

/// The address of an empty database.
pub async fn fresh_postgres() -> String {
    let shared = block_in_place(database::shared);
    let name = database::name(&shared.fresh().await);
    format!("postgres://tests@127.0.0.1:{}/{name}?sslmode=disable", shared.port)
}

fn user(number: usize) -> User {
    let time =
        prost_types::Timestamp { seconds: 1_600_000_000 + i64::try_from(number).unwrap(), nanos: 1_000 };
    User {
        name: format!("User {number}"),
        email: format!("user-{number}@example.com"),
        age: 36,
        create_time: Some(time),
        ..User::default()
    }
}

fn with_id(number: usize) -> ImportUsersRequest {
    ImportUsersRequest { user: Some(user(number)), user_id: format!("user-{number}") }
}

fn without_id(user: User) -> ImportUsersRequest {
    ImportUsersRequest { user: Some(user), user_id: String::new() }
}

/// What one stream answers, and how it ends.
async fn answers(
    client: &mut Client,
    requests: Vec<ImportUsersRequest>,
) -> (Vec<ImportUsersResponse>, Option<Status>) {
    let mut stream = client.import_users(tokio_stream::iter(requests)).await.unwrap().into_inner();
    let mut answers = Vec::new();
    loop {
        match next(&mut stream).await {
            Some(Ok(answer)) => answers.push(answer),
            Some(Err(status)) => return (answers, Some(status)),
            None => return (answers, None),
        }
    }
}

async fn next(stream: &mut Streaming<ImportUsersResponse>) -> Option<Result<ImportUsersResponse, Status>> {
    tokio::time::timeout(TEST_TIMEOUT, stream.next()).await.expect("the stream goes on")
}

/// The reason of an item's error, once it is what such an error must be.
fn reason(answer: &ImportUsersResponse, code: Code) -> String {
    let Some(Outcome::Error(error)) = &answer.result else { panic!("{answer:?}") };
    assert_eq!(error.code, code as i32);
    let bytes = prost::Message::encode_to_vec(error);
    assert!(!bytes.contains(&b'@'), "an address in {error:?}");
    let status = Status::with_details(code, "", bytes.into());
    status.get_error_details().error_info().unwrap().reason.clone()
}

async fn one_stream_says_what_became_of_each_user(store_url: &str) {
    const USERS: usize = 1_500;
    let (_server, mut client) = serve(store_url).await;
    let renamed = ImportUsersRequest { user: Some(User { age: 37, ..user(1) }), user_id: "user-1".into() };
    let bad = User { name: String::new(), age: 200, ..user(2) };
    let late = prost_types::Timestamp { seconds: 1, nanos: 1_000_000_000 };
    let mut requests: Vec<_> = (0..USERS).map(with_id).collect();
    requests.extend([
        with_id(0),
        without_id(user(0)),
        renamed,
        ImportUsersRequest { user: Some(user(0)), user_id: "somebody-else".into() },
        without_id(bad),
        ImportUsersRequest { user: None, user_id: "NO ID".into() },
        without_id(User { create_time: Some(late), ..user(3) }),
        without_id(user(USERS)),
        without_id(user(USERS)),
    ]);
    let count = requests.len();
    let (said, end) = answers(&mut client, requests.clone()).await;
    assert!(end.is_none(), "{end:?}");
    assert!(said.iter().map(|answer| answer.index).eq(0..i64::try_from(count).unwrap()), "in order");
    for (answer, request) in said.iter().zip(&requests).take(USERS) {
        let Some(Outcome::Created(created)) = &answer.result else { panic!("{answer:?}") };
        let asked = request.user.as_ref().unwrap();
        assert_eq!((&created.id, &created.create_time), (&request.user_id, &asked.create_time));
    }
    let [same, by_email, other, taken, bad, nobody, late, new, twice] = &said[USERS..] else { panic!() };
    let unchanged = |answer: &ImportUsersResponse| match &answer.result {
        Some(Outcome::Unchanged(user)) => user.id.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!([unchanged(same), unchanged(by_email)], ["user-0", "user-0"]);
    for answer in [other, taken] {
        assert_eq!(reason(answer, Code::AlreadyExists), "USER_ALREADY_EXISTS");
    }
    for answer in [bad, nobody, late] {
        assert_eq!(reason(answer, Code::InvalidArgument), "INVALID_FIELDS");
    }
    let Some(Outcome::Created(created)) = &new.result else { panic!("{new:?}") };
    assert_eq!(unchanged(twice), created.id);

    let (again, _) = answers(&mut client, requests).await;
    assert!(again.iter().all(|answer| !matches!(answer.result, Some(Outcome::Created(_)))));
    assert_eq!(all_users(&mut client).await.len(), USERS + 1);
}

pub async fn all_users(client: &mut Client) -> Vec<User> {
    let (mut users, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListUsersRequest { page_size: 1_000, page_token };
        let page = client.list_users(request).await.unwrap().into_inner();
        users.extend(page.users);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return users;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_into_memory() {
    one_stream_says_what_became_of_each_user("memory:").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_into_sqlite() {
    let dir = tempfile::tempdir().unwrap();
    one_stream_says_what_became_of_each_user(&format!("sqlite:{}/users.db", dir.path().display())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_into_postgres() {
    let store = fresh_postgres().await;
    one_stream_says_what_became_of_each_user(&store).await;
}

/// `IMPORT_USERS` says how many; a million in the soak. The bounds on memory are
/// the same for any number.
async fn a_large_import(store_url: &str) {
    let users = env::var("IMPORT_USERS").map_or(50_000, |users| users.parse().expect("a number"));
    let (server, mut client) = serve(store_url).await;
    let (began, before) = (Instant::now(), resident(&server));
    let requests = tokio_stream::iter((0..users).map(with_id));
    let mut stream = client.import_users(requests).await.unwrap().into_inner();
    let (mut count, mut most) = (0, 0);
    while let Some(answer) = next(&mut stream).await {
        assert!(matches!(answer.unwrap().result, Some(Outcome::Created(_))));
        count += 1;
        if count % 1_000 == 0 {
            most = most.max(resident(&server));
        }
    }
    assert_eq!(count, users);
    println!("{count} users into {store_url} in {:?}, {} KiB more", began.elapsed(), (most - before) / 1_024);
    // The cache of SQLite and its pages are most of it, and they are bounded.
    assert!(most - before < 100 << 20, "{} bytes more", most - before);
    assert_eq!(all_users(&mut client).await.len(), users);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_import_into_sqlite() {
    let dir = tempfile::tempdir().unwrap();
    a_large_import(&format!("sqlite:{}/users.db", dir.path().display())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_import_into_postgres() {
    a_large_import(&fresh_postgres().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_reads_no_answers_cannot_send_for_long() {
    let (server, mut client) = serve("memory:").await;
    let before = resident(&server);
    let (send, requests) = mpsc::channel(1);
    let stream = client.import_users(ReceiverStream::new(requests)).await.unwrap().into_inner();
    let mut taken = 0;
    // Nothing is taken for a second: then nothing will be.
    while let Ok(Ok(())) =
        tokio::time::timeout(std::time::Duration::from_secs(1), send.send(with_id(taken))).await
    {
        taken += 1;
        assert!(taken < 200_000, "there is no end to it");
    }
    // Each user takes less than a KiB, wherever it waits or is stored.
    let grown = resident(&server).saturating_sub(before);
    assert!(grown < (taken << 10) + (16 << 20), "{grown} bytes for {taken} users");
    // Read at last, it goes on where it stood.
    drop(send);
    let said: Vec<_> = stream.collect().await;
    assert!(said.len() >= taken && said.iter().all(Result::is_ok), "{} of {taken}", said.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_answers_what_was_taken_up_and_ends_the_stream() {
    let (mut server, mut client) = serve("memory:").await;
    let (send, requests) = mpsc::channel(1);
    let mut stream = client.import_users(ReceiverStream::new(requests)).await.unwrap().into_inner();
    send.send(with_id(0)).await.unwrap();
    assert_eq!(next(&mut stream).await.unwrap().unwrap().index, 0);
    server.signal("TERM");
    let status = next(&mut stream).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "DRAINING");
    assert!(details.retry_info().is_some());
    assert!(block_in_place(|| server.wait()).success(), "no call was cut");
}

/// However many imports there are, the store's queue has room for other writes.
#[tokio::test(flavor = "multi_thread")]
async fn imports_keep_no_other_write_out() {
    // More than the queue holds, but for the imports' limit.
    const IMPORTS: u16 = 3;
    const EACH: usize = 600;
    let last = usize::from(IMPORTS) * EACH;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("users.db");
    let (server, mut client) = serve(&format!("sqlite:{}", file.display())).await;
    let until = |what: &str, so: &dyn Fn(&str) -> bool| block_in_place(|| until(server.admin_addr, what, so));
    let received = |page: &str, kind: &str, method: &str| {
        let series = format!(
            "grpc_server_msg_received_total{{grpc_type=\"{kind}\",grpc_service=\"user.v1.UserService\",\
             grpc_method=\"{method}\"}}"
        );
        value(page, &series)
    };
    let hold = Connection::open(&file).unwrap();
    hold.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut imports = Vec::new();
    for import in 0..IMPORTS {
        let users: Vec<_> = (0..EACH).map(|n| with_id(usize::from(import) * EACH + n)).collect();
        imports.push(client.import_users(tokio_stream::iter(users)).await.unwrap());
    }
    until("the imports are taken up", &|page| {
        received(page, "bidi_stream", "ImportUsers") >= f64::from(IMPORTS) * 512.0
    });
    let mut other = client.clone();
    let create = tokio::spawn(async move {
        other.create_user(CreateUserRequest { user: Some(user(last)), ..Default::default() }).await
    });
    until("the create has come", &|page| received(page, "unary", "CreateUser") > 0.0);
    hold.execute_batch("COMMIT").unwrap();
    let created = create.await.unwrap();
    assert!(created.is_ok(), "{created:?}");
}

/// Memory that a server has resident, in bytes.
fn resident(server: &Server) -> usize {
    let statm = fs::read_to_string(format!("/proc/{}/statm", server.pid())).unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4_096
}
