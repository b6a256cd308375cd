//! Watches of a running server: how they are kept alive, how they end, and what
//! those cost that nobody reads.

use std::fs;

use tokio::task::{JoinSet, block_in_place};
use tokio_stream::StreamExt;
use tonic::{Code, Status, Streaming, transport::Channel};
use tonic_types::StatusExt;
use user_service::proto::user::v1::{
    CreateUserRequest, UpdateUserRequest, User, WatchUsersRequest, WatchUsersResponse,
    user_service_client::UserServiceClient, watch_users_response::Event,
};

use crate::support::{Server, TEST_TIMEOUT, revision};

type Client = UserServiceClient<Channel>;

async fn connect(server: &Server) -> Client {
    let endpoint = Channel::from_shared(format!("http://{}", server.grpc_addr)).unwrap();
    // What a client without a care has: a stream stops when nobody reads it.
    Client::new(endpoint.initial_stream_window_size(65_535).connect().await.unwrap())
}

async fn start(args: &[&str]) -> (Server, Client) {
    let server = block_in_place(|| Server::start(args));
    let client = connect(&server).await;
    (server, client)
}

async fn watch(client: &mut Client, resume_token: &str) -> Streaming<WatchUsersResponse> {
    let request = WatchUsersRequest { initial_state: true, resume_token: resume_token.into() };
    client.watch_users(request).await.unwrap().into_inner()
}

async fn next(stream: &mut Streaming<WatchUsersResponse>) -> Result<WatchUsersResponse, Status> {
    tokio::time::timeout(TEST_TIMEOUT, stream.next())
        .await
        .expect("the stream goes on")
        .expect("it has a status")
}

async fn save(client: &mut Client, id: &str, name: &str) -> User {
    let user =
        User { name: name.into(), email: format!("{id}@example.com"), id: id.into(), ..User::default() };
    let update = UpdateUserRequest { user: Some(user.clone()), ..UpdateUserRequest::default() };
    if let Ok(updated) = client.update_user(update).await {
        return updated.into_inner().user.unwrap();
    }
    let create = CreateUserRequest { user: Some(user), user_id: id.into(), ..CreateUserRequest::default() };
    client.create_user(create).await.unwrap().into_inner().user.unwrap()
}

/// The token in a status, once it is the one that is expected.
fn token_of(status: &Status, reason: &str) -> String {
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    let details = status.get_error_details();
    assert!(details.retry_info().is_some(), "{status:?}");
    let info = details.error_info().unwrap();
    assert_eq!(info.reason, reason);
    info.metadata["resume_token"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_watch_is_sent_heartbeats_that_it_can_be_resumed_from() {
    let (_server, mut client) = start(&["--watch-heartbeat-ms", "100"]).await;
    let ada = save(&mut client, "ada", "Ada").await;
    let mut stream = watch(&mut client, "").await;
    assert_eq!(next(&mut stream).await.unwrap().event, Some(Event::Existing(ada)));
    assert!(matches!(next(&mut stream).await.unwrap().event, Some(Event::CaughtUp(_))));
    let heartbeat = next(&mut stream).await.unwrap();
    assert!(matches!(heartbeat.event, Some(Event::Heartbeat(_))), "{heartbeat:?}");
    drop(stream);
    let bob = save(&mut client, "bob", "Bob").await;
    let mut stream = watch(&mut client, &heartbeat.resume_token).await;
    assert_eq!(next(&mut stream).await.unwrap().event, Some(Event::Created(bob)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_none_is_refused() {
    let (_server, mut client) = start(&[]).await;
    let request = WatchUsersRequest { initial_state: false, resume_token: "something".into() };
    let status = client.watch_users(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let details = status.get_error_details();
    assert_eq!(details.bad_request().unwrap().field_violations[0].field, "resume_token");

    let token = next(&mut watch(&mut client, "").await).await.unwrap().resume_token;
    let (_other, mut client) = start(&[]).await;
    let request = WatchUsersRequest { initial_state: false, resume_token: token };
    let status = client.watch_users(request).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange);
    assert_eq!(status.get_error_details().error_info().unwrap().reason, "RESUME_TOKEN_EXPIRED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_watches_with_their_tokens_and_waits_for_nothing_else() {
    let (mut server, mut client) = start(&[]).await;
    let mut stream = watch(&mut client, "").await;
    let caught_up = next(&mut stream).await.unwrap();
    server.signal("TERM");
    let status = next(&mut stream).await.unwrap_err();
    assert_eq!(token_of(&status, "DRAINING"), caught_up.resume_token);
    assert!(block_in_place(|| server.wait()).success(), "no call was cut");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_before_its_connection_is_too_old() {
    let (server, mut client) =
        start(&["--max-connection-age-ms", "2000", "--max-connection-age-grace-ms", "60000"]).await;
    let mut stream = watch(&mut client, "").await;
    let caught_up = next(&mut stream).await.unwrap();
    let status = next(&mut stream).await.unwrap_err();
    let token = token_of(&status, "CONNECTION_AGED");
    assert_eq!(token, caught_up.resume_token);
    // Another connection, as this one closes, and tonic's client gives up a call that it
    // has begun on a connection that does.
    let mut stream = watch(&mut connect(&server).await, &token).await;
    assert!(matches!(next(&mut stream).await.unwrap().event, Some(Event::CaughtUp(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_that_nobody_reads_cost_little_and_are_cut_and_can_be_resumed() {
    const WATCHES: usize = 30;
    const CHANGES: usize = 4_000;
    let (server, mut client) =
        start(&["--watch-buffer-bytes", "1048576", "--change-log-rows", "100000"]).await;
    let mut unread = Vec::new();
    for _ in 0..WATCHES {
        let mut stream = watch(&mut client, "").await;
        assert!(matches!(next(&mut stream).await.unwrap().event, Some(Event::CaughtUp(_))));
        unread.push(stream);
    }
    // One change while they wait, so that they are served from the buffer.
    save(&mut client, "user-0", "Ada").await;
    for stream in &mut unread {
        next(stream).await.unwrap();
    }
    let before = resident(&server);
    let long_name = "\u{1f980}".repeat(256);
    let mut writers = JoinSet::new();
    for writer in 0..8 {
        let (server_client, long_name) = (connect(&server).await, long_name.clone());
        writers.spawn(async move {
            let mut client = server_client;
            for _ in 0..CHANGES / 8 {
                save(&mut client, &format!("user-{writer}"), &long_name).await;
            }
        });
    }
    writers.join_all().await;
    let newest = revision(&save(&mut client, "last", "Ada").await);
    // Once for the log, which is in memory here, and not once more for each watch.
    let log = CHANGES * (1_024 + 400);
    let grown = resident(&server).saturating_sub(before);
    assert!(grown < 4 * log, "{grown} bytes more, the log has some {log}");

    let mut stream = unread.pop().unwrap();
    let mut told = 1;
    let mut take = |message: &WatchUsersResponse| {
        let Some(Event::Created(user) | Event::Updated(user)) = &message.event else { return told };
        assert_eq!(revision(user), told + 1, "none is left out, none comes twice");
        told += 1;
        told
    };
    let status = loop {
        match next(&mut stream).await {
            Ok(message) => drop(take(&message)),
            Err(status) => break status,
        }
    };
    let mut stream = watch(&mut client, &token_of(&status, "WATCHER_TOO_SLOW")).await;
    while take(&next(&mut stream).await.unwrap()) < newest {}
}

/// Memory that a server has resident, in bytes.
fn resident(server: &Server) -> usize {
    let statm = fs::read_to_string(format!("/proc/{}/statm", server.pid())).unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4_096
}
