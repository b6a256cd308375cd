//! A clock that jumps, as it does where an administrator sets it, or a machine was paused.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tokio::task::block_in_place;
use tokio_stream::StreamExt;
use tonic::{Code, Streaming, transport::Channel};
use user_service::proto::user::v1::{
    CreateUserRequest, DeleteUserRequest, UpdateUserRequest, User, WatchUsersRequest, WatchUsersResponse,
    user_service_client::UserServiceClient, watch_users_response::Event,
};

use crate::support::{Server, TEST_TIMEOUT, http};

type Client = UserServiceClient<Channel>;

const DAY_SECONDS: i64 = 24 * 60 * 60;

/// The library that stands between a process and its clock (Debian's package `faketime`).
fn faketime() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").unwrap().map(|folder| folder.unwrap().path());
    let library = folders.map(|folder| folder.join("faketime/libfaketime.so.1")).find(|file| file.exists());
    library.expect("make tools installs faketime")
}

/// The offset of a server's clock.
struct Clock(PathBuf);

impl Clock {
    /// Puts the clock so many days ahead of the real one.
    fn jump(&self, days: i64) {
        let next = self.0.with_extension("next");
        fs::write(&next, format!("{days:+}d")).unwrap();
        fs::rename(next, &self.0).unwrap();
    }

    fn serve(&self, store: &str) -> Server {
        self.jump(0);
        let mut command = Command::new(env!("CARGO_BIN_EXE_user-service"));
        command.args(["--store-url", store]);
        command.env("LD_PRELOAD", faketime()).env("FAKETIME_TIMESTAMP_FILE", &self.0);
        // Timers go by the other clock, which never jumps.
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        Server::spawn(command)
    }
}

fn user(id: &str, name: &str) -> User {
    User { id: id.into(), name: name.into(), email: format!("{id}@example.com"), ..User::default() }
}

async fn create(client: &mut Client, id: &str, request_id: &str) -> Result<User, Code> {
    let user = Some(User { id: String::new(), ..user(id, id) });
    let (user_id, request_id) = (id.into(), request_id.into());
    let request = CreateUserRequest { user, user_id, request_id, ..CreateUserRequest::default() };
    client.create_user(request).await.map(|r| r.into_inner().user.unwrap()).map_err(|status| status.code())
}

async fn rename(client: &mut Client, id: &str, name: &str) -> User {
    let update = UpdateUserRequest { user: Some(user(id, name)), ..UpdateUserRequest::default() };
    client.update_user(update).await.unwrap().into_inner().user.unwrap()
}

async fn next(stream: &mut Streaming<WatchUsersResponse>) -> Event {
    let message = tokio::time::timeout(TEST_TIMEOUT, stream.next()).await.expect("the watch goes on");
    message.unwrap().unwrap().event.unwrap()
}

/// No age or lag is negative, or of a time before the jump.
fn ages_are_sane(server: &Server) {
    let page = http::ask(server.admin_addr, "GET /metrics").body;
    let lines =
        page.lines().filter(|line| !line.is_empty() && !line.starts_with('#') && !line.contains("timestamp"));
    for line in lines {
        let value: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        assert!(value >= 0.0, "{line}");
    }
}

async fn nothing_is_lost_when_the_clock_jumps(folder: &Path, store: &str) {
    const REQUEST: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
    let clock = Clock(folder.join("clock"));
    let server = block_in_place(|| clock.serve(store));
    let endpoint = Channel::from_shared(format!("http://{}", server.grpc_addr)).unwrap();
    let mut client = Client::new(endpoint.connect().await.unwrap());
    let request = WatchUsersRequest { initial_state: true, ..WatchUsersRequest::default() };
    let mut watch = client.watch_users(request).await.unwrap().into_inner();
    assert!(matches!(next(&mut watch).await, Event::CaughtUp(_)));

    let ada = create(&mut client, "ada", REQUEST).await.unwrap();
    assert_eq!(create(&mut client, "ada", REQUEST).await.as_ref(), Ok(&ada), "a repeat is known again");
    clock.jump(30);
    let bob = create(&mut client, "bob", "").await.unwrap();
    let seconds = |user: &User| user.create_time.unwrap().seconds;
    assert!(seconds(&bob) - seconds(&ada) > 29 * DAY_SECONDS, "the clock has jumped");
    // Past the time that a request is known: refused or known, and never made again.
    let repeated = create(&mut client, "ada", REQUEST).await;
    assert!(repeated == Ok(ada.clone()) || repeated == Err(Code::AlreadyExists), "{repeated:?}");
    rename(&mut client, "ada", "Later").await;
    clock.jump(-30);
    let repeated = create(&mut client, "ada", REQUEST).await;
    assert!(repeated.is_ok() || repeated == Err(Code::AlreadyExists), "{repeated:?}");
    rename(&mut client, "ada", "Earlier").await;
    let delete = DeleteUserRequest { id: "bob".into(), ..DeleteUserRequest::default() };
    client.delete_user(delete).await.unwrap();

    // In the order of their commits, whatever their times say.
    assert!(matches!(next(&mut watch).await, Event::Created(user) if user.id == "ada"));
    assert!(matches!(next(&mut watch).await, Event::Created(user) if user.id == "bob"));
    assert!(matches!(next(&mut watch).await, Event::Updated(user) if user.name == "Later"));
    assert!(matches!(next(&mut watch).await, Event::Updated(user) if user.name == "Earlier"));
    assert!(matches!(next(&mut watch).await, Event::Deleted(user) if user.id == "bob"));
    ages_are_sane(&server);
    drop((watch, client));
    assert!(block_in_place(|| server.stop()).success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_in_memory_loses_nothing_when_the_clock_jumps() {
    let folder = tempfile::tempdir().unwrap();
    nothing_is_lost_when_the_clock_jumps(folder.path(), "memory:").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_loses_nothing_when_the_clock_jumps() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", folder.path().join("users.db").display());
    nothing_is_lost_when_the_clock_jumps(folder.path(), &store).await;
}
