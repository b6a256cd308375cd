//! Users whose names and addresses are marked: no mark is found in anything that
//! the service says of itself. And callers who make things up leave no series.

use std::{process::Command, time::Instant};

use crate::{
    admin::ask,
    collector::Collector,
    held_calls::{GET_USER, HeldCalls, until},
    support::{Server, database::Database},
};
use futures_util::{StreamExt, future::join_all};
use prost::Message;
use tonic::{Code, Status};
use user_service::proto::{
    article,
    user::v1::{
        BatchGetUsersRequest, CreateUserRequest, DeleteUserRequest, GetUserRequest, ImportUsersRequest,
        ListUsersRequest, UpdateUserRequest, User, WatchUsersRequest, get_user_request::Key,
        import_users_response::Result as Outcome,
    },
};

/// In every name, address and made-up thing, in whatever case.
const MARK: &str = "canary";

/// A user with the mark in each text. A new field is marked here before this compiles.
fn user(email: &str) -> User {
    User {
        name: "Canary Bird".into(),
        email: email.into(),
        age: 36,
        id: String::new(),
        etag: String::new(),
        create_time: None,
        update_time: None,
    }
}

fn create(email: &str) -> CreateUserRequest {
    CreateUserRequest { user: Some(user(email)), ..CreateUserRequest::default() }
}

/// Makes every call, well and badly, and returns the statuses of those that failed.
async fn sing(caller: &HeldCalls) -> Vec<Status> {
    let mut users = caller.users();
    let email = "canary@canary.example.com";
    let made = users.create_user(create(email)).await.unwrap().into_inner().user.unwrap();
    let by = |email: &str| GetUserRequest { key: Some(Key::Email(email.into())) };
    users.get_user(by(email)).await.unwrap();
    users.list_users(ListUsersRequest::default()).await.unwrap();
    users
        .batch_get_users(BatchGetUsersRequest { ids: vec![made.id.clone()], allow_missing: false })
        .await
        .unwrap();
    let renamed = User { name: "Canary Two".into(), ..made.clone() };
    users
        .update_user(UpdateUserRequest { user: Some(renamed), ..UpdateUserRequest::default() })
        .await
        .unwrap();

    let mut failed = vec![
        users.create_user(create(email)).await.unwrap_err(),
        users.create_user(create("canary at example.com")).await.unwrap_err(),
        users.create_user(create(&format!("canary@{}.com", "x".repeat(400)))).await.unwrap_err(),
        users.get_user(by("other.canary@example.com")).await.unwrap_err(),
        users.get_user(by("canary")).await.unwrap_err(),
        users
            .update_user(UpdateUserRequest {
                user: Some(User { id: "nobody".into(), etag: "canary".into(), ..user(email) }),
                ..UpdateUserRequest::default()
            })
            .await
            .unwrap_err(),
        users
            .list_users(ListUsersRequest { page_token: "canary".into(), ..ListUsersRequest::default() })
            .await
            .unwrap_err(),
    ];
    let metadata = [
        ("x-user", "canary"),
        ("user-agent", "canary"),
        ("traceparent", "canary"),
        ("tracestate", "canary=canary"),
    ];
    failed.push(caller.call("/canary@example.com/Canary", &metadata).await);
    failed.push(caller.call(GET_USER, &[("grpc-timeout", "canary")]).await);
    failed.push(caller.call(GET_USER, &[("grpc-encoding", "canary")]).await);
    users.delete_user(DeleteUserRequest { id: made.id, ..DeleteUserRequest::default() }).await.unwrap();
    failed.extend(sing_in_streams(caller).await);
    failed.extend(sing_as_in_the_article(caller).await);
    failed
}

/// The calls of many messages, which name users in each.
async fn sing_in_streams(caller: &HeldCalls) -> Vec<Status> {
    let mut users = caller.users();
    let import = |user, id: &str| ImportUsersRequest { user: Some(user), user_id: id.into() };
    let requests = [
        import(user("imported.canary@example.com"), "canary-one"),
        import(user("imported.canary@example.com"), "canary-two"),
        import(user("canary"), "canary three"),
    ];
    let answers = users.import_users(tokio_stream::iter(requests)).await.unwrap().into_inner();
    let mut failed: Vec<_> = answers
        .filter_map(async |answer| match answer.unwrap().result.unwrap() {
            Outcome::Error(status) => {
                let details = status.encode_to_vec().into();
                Some(Status::with_details(status.code.into(), status.message, details))
            }
            _ => None,
        })
        .collect()
        .await;
    assert_eq!(failed.len(), 2, "{failed:?}");

    let all = WatchUsersRequest { initial_state: true, ..WatchUsersRequest::default() };
    let mut watch = users.watch_users(all).await.unwrap().into_inner();
    assert!(format!("{:?}", watch.message().await.unwrap()).contains("imported.canary"));
    let from_nowhere = WatchUsersRequest { resume_token: "canary".into(), ..WatchUsersRequest::default() };
    failed.push(users.watch_users(from_nowhere).await.unwrap_err());
    let nobody = tonic_health::pb::HealthCheckRequest { service: "canary".into() };
    failed.push(caller.health().check(nobody).await.unwrap_err());
    failed
}

async fn sing_as_in_the_article(caller: &HeldCalls) -> Vec<Status> {
    let mut users = caller.article();
    let user = |email: &str| {
        Some(article::User { name: "Canary".into(), email: email.into(), ..article::User::default() })
    };
    let create = |email| article::CreateUserRequest { user: user(email) };
    let made = users.create_user(create("article.canary@example.com")).await.unwrap().into_inner().user;
    users.get_user(article::UserRequest { user: made }).await.unwrap();
    let taken = article::User { id: "another-canary".into(), ..user("article.canary@example.com").unwrap() };
    vec![
        users.create_user(create("canary")).await.unwrap_err(),
        users.create_user(article::CreateUserRequest { user: Some(taken) }).await.unwrap_err(),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_mark_is_found_in_anything_that_the_service_says_on_sqlite() {
    let dir = tempfile::tempdir().unwrap();
    no_mark_is_found(&format!("sqlite:{}", dir.path().join("users.db").display()), async || {}).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_mark_is_found_in_anything_that_the_service_says_on_postgres() {
    let database = Database::start();
    // What the database then says of a write it refuses holds the whole row.
    let refuse = async || {
        let row = "ALTER TABLE user_service.users ADD CHECK (length(email) < 3) NOT VALID";
        database.client("postgres").await.batch_execute(row).await.unwrap();
    };
    let url = format!("postgres://tests@127.0.0.1:{}/postgres?sslmode=disable", database.port);
    no_mark_is_found(&url, refuse).await;
}

/// Runs the service on this store, and has the store `refuse` writes in the end.
async fn no_mark_is_found(store_url: &str, refuse: impl AsyncFnOnce()) {
    let collector = Collector::start();
    let mut command = Command::new(env!("CARGO_BIN_EXE_user-service"));
    command.args(["--log-filter", "trace,h2=info", "--store-url", store_url]);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint());
    let mut server = Server::spawn(command);
    let caller = HeldCalls::connect(server.grpc_addr).await;
    let mut said: Vec<(&str, String)> = Vec::new();
    let mut failed = sing(&caller).await;
    refuse().await;
    let refused = create("refused@canary.example.com");
    if let Err(status) = caller.users().create_user(refused).await {
        failed.push(status);
    } else {
        assert!(store_url.starts_with("sqlite:"), "the database takes everything");
    }
    for status in failed {
        assert_ne!(status.code(), Code::Ok);
        // Message, details and metadata.
        let text = format!("{} {:?}", status.message(), status);
        said.push(("an error", text));
        said.push(("the details of an error", String::from_utf8_lossy(status.details()).into_owned()));
    }
    let held = caller.open("/canary.Service/Canary", &[("x-user", "canary")]);
    let held_too = caller.open(GET_USER, &[("x-user", "canary")]);
    until(|| (ask(server.admin_addr, "GET /calls").body.lines().count() > 1).then_some(())).await;
    for page in ["/metrics", "/calls", "/connections", "/log_filter", "/canary"] {
        said.push((page, ask(server.admin_addr, &format!("GET {page}")).body));
    }
    drop((held, held_too));
    server.signal("TERM");
    server.wait_for_line("\"ended\"");
    assert!(server.wait().success());
    let lines = server.log().to_vec();
    assert!(lines.iter().any(|line| line.contains("user.v1.UserService/DeleteUser")), "calls are logged");
    said.extend(lines.into_iter().map(|line| ("the log", line)));
    let spans = collector.rest();
    assert!(spans.iter().any(|span| span.name == "write users"), "calls are traced");
    // All of it, trace states and attributes included.
    said.extend(spans.iter().map(|span| ("a span", format!("{span:?}"))));
    let marked: Vec<_> = said.iter().filter(|(_, text)| text.to_lowercase().contains(MARK)).collect();
    assert!(marked.is_empty(), "{marked:#?}");
}

/// Every name of a series, and how many there are of it.
fn series(server: &Server) -> usize {
    let page = ask(server.admin_addr, "GET /metrics").body;
    page.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_made_up_calls_make_no_series() {
    const CALLS: usize = 100_000;
    let server = Server::start(&["--call-log", "false"]);
    let callers = join_all((0..4).map(|_| HeldCalls::connect(server.grpc_addr))).await;
    let begun = Instant::now();
    let flood = |calls: std::ops::Range<usize>| {
        join_all(callers.iter().enumerate().map(|(turn, caller)| {
            let calls: Vec<_> = calls.clone().filter(|call| call % callers.len() == turn).collect();
            async move {
                for some in calls.chunks(90) {
                    join_all(some.iter().map(|call| caller.made_up(*call))).await;
                }
            }
        }))
    };
    // The first of them make the series that all of them share.
    flood(0..100).await;
    let before = series(&server);
    flood(100..CALLS).await;
    assert_eq!(series(&server), before, "after {:?}", begun.elapsed());
    let page = ask(server.admin_addr, "GET /metrics").body;
    let counted = "grpc_server_handled_total{grpc_type=\"unary\",grpc_service=\"unknown\",\
                   grpc_method=\"unknown\",grpc_code=\"Unimplemented\"} 100000";
    assert!(page.lines().any(|line| line == counted), "{counted} is missing");
}
