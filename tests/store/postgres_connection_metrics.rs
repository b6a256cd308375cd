//! What the built binary says of its connections to a database.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::Command,
    time::{Duration, Instant},
};

use tokio::task::block_in_place;
use tonic::transport::Channel;
use user_service::proto::user::v1::{
    CreateUserRequest, GetUserRequest, ListUsersRequest, User, get_user_request::Key,
    user_service_client::UserServiceClient,
};

use crate::{
    database::{Database, name},
    support::{Server, TEST_TIMEOUT, documented},
};

fn metrics(addr: SocketAddr) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.into()
}

/// The value of a series.
pub fn value(page: &str, series: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{series} in {page}")).parse().unwrap()
}

pub fn until(addr: SocketAddr, what: &str, so: &dyn Fn(&str) -> bool) -> String {
    let end = Instant::now() + TEST_TIMEOUT;
    loop {
        let page = metrics(addr);
        if so(&page) {
            return page;
        }
        assert!(Instant::now() < end, "not in time: {what}\n{page}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_tell_that_the_database_went_and_came_back() {
    let mut database = block_in_place(Database::start);
    let config = database.fresh().await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_user-service"));
    let place = format!("postgres://tests@127.0.0.1:{}/{}?sslmode=disable", database.port, name(&config));
    command.env("USERSVC_STORE_URL", place).args(["--store-connections", "4", "--serving-threads", "3"]);
    let server = block_in_place(|| Server::spawn(command));
    let channel = Channel::from_shared(format!("http://{}", server.grpc_addr)).unwrap();
    let mut users = UserServiceClient::new(channel.connect().await.unwrap());
    let user = User { name: "Ada".into(), email: "ada@example.com".into(), ..User::default() };
    let create = CreateUserRequest { user: Some(user), ..CreateUserRequest::default() };
    let created = users.create_user(create.clone()).await.unwrap().into_inner();
    let id = created.user.unwrap().id;
    let until = |what: &str, so: &dyn Fn(&str) -> bool| block_in_place(|| until(server.admin_addr, what, so));
    let open = |page: &str| {
        ["read", "write"].map(|of| {
            // A whole number, which text compares exactly.
            value(page, &format!("user_service_store_connections{{use=\"{of}\"}}")).to_string()
        })
    };
    let connected = "user_service_store_connects_total{outcome=\"connected\"}";
    let failed = "user_service_store_connects_total{outcome=\"failed\"}";
    until("half of the connections are open", &|page| open(page) == ["2", "1"]);
    // A connection each, so that every serving thread has one.
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut users = UserServiceClient::new(channel.connect().await.unwrap());
        let get = GetUserRequest { key: Some(Key::Id(id.clone())) };
        users.get_user(get).await.unwrap();
        clients.push(users);
    }
    // The third thread shares them.
    let all_open = |page: &str| open(page) == ["4", "1"];
    let before = until("every connection is open", &all_open);
    assert!(value(&before, connected) >= 5.0);

    block_in_place(|| database.stop("INT"));
    until("none is open, and attempts fail", &|page| {
        open(page) == ["0", "0"] && value(page, failed) > value(&before, failed)
    });
    users.create_user(create).await.unwrap_err();
    block_in_place(|| database.run());
    // A connection is open a moment before it is counted.
    let after = until("all are back, and counted", &|page| {
        all_open(page) && value(page, connected) >= value(&before, connected) + 5.0
    });

    let mut whom = documented::ALWAYS.to_vec();
    whom.extend(["PostgreSQL", "SQLite, PostgreSQL"]);
    documented::agrees(&after, &whom);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_tell_which_reads_wait_for_the_database() {
    let database = block_in_place(Database::start);
    let config = database.fresh().await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_user-service"));
    let place = format!("postgres://tests@127.0.0.1:{}/{}?sslmode=disable", database.port, name(&config));
    command.env("USERSVC_STORE_URL", place).args(["--store-connections", "1"]);
    command.args(["--store-timeout-ms", "60000", "--default-timeout-ms", "60000"]);
    let server = block_in_place(|| Server::spawn(command));
    let lock = database.client(&name(&config)).await;
    lock.batch_execute("BEGIN; LOCK TABLE user_service.users").await.unwrap();
    let channel = Channel::from_shared(format!("http://{}", server.grpc_addr)).unwrap();
    let users = UserServiceClient::new(channel.connect().await.unwrap());
    let reads: Vec<_> = (0..40)
        .map(|_| {
            let mut users = users.clone();
            tokio::spawn(async move { users.list_users(ListUsersRequest::default()).await })
        })
        .collect();
    let at = |page: &str, state: &str| value(page, &format!("user_service_store_reads{{state=\"{state}\"}}"));
    let until = |what: &str, so: &dyn Fn(&str) -> bool| block_in_place(|| until(server.admin_addr, what, so));
    // A connection takes two of them; probes of health are reads as well.
    until("the others wait", &|page| {
        (1.5..7.5).contains(&at(page, "in_flight")) && at(page, "queued") > 37.5
    });
    lock.batch_execute("ROLLBACK").await.unwrap();
    for read in reads {
        read.await.unwrap().unwrap();
    }
    until("no read is left", &|page| at(page, "in_flight") < 0.5 && at(page, "queued") < 0.5);
}
