//! The commands that call a server: `check` and `smoke`.

use std::net::TcpListener;

use user_service::proto::user::v1::{ListUsersRequest, User, user_service_client::UserServiceClient};

use crate::{cli::Cli, support::Server};

fn users(server: &Server) -> Vec<User> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let channel =
            tonic::transport::Endpoint::from_shared(format!("http://{}", server.grpc_addr)).unwrap();
        let mut client = UserServiceClient::new(channel.connect().await.unwrap());
        client.list_users(ListUsersRequest::default()).await.unwrap().into_inner().users
    })
}

#[test]
fn check_ends_with_1_when_used_wrongly() {
    let cli = Cli::new();
    for args in [&["check"][..], &["check", "localhost"], &["check", "localhost:1", "--timeout-ms", "x"]] {
        let refused = cli.run(args);
        assert_eq!(refused.code, Some(1), "{args:?}: {}", refused.err);
    }
    assert_eq!(cli.run(&["check", "--help"]).code, Some(0));
}

#[test]
fn check_ends_with_2_where_nobody_listens() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let checked = Cli::new().run(&["check", &free.to_string()]);
    assert_eq!(checked.code, Some(2), "{}", checked.err);
    assert!(checked.err.contains(&free.to_string()), "{}", checked.err);
}

#[test]
fn check_gives_up_on_a_peer_that_says_nothing() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = silent.local_addr().unwrap().to_string();
    let checked = Cli::new().run(&["check", &addr, "--timeout-ms", "100"]);
    assert_eq!(checked.code, Some(3), "{}", checked.err);
}

#[test]
#[ignore = "serve is not built in yet"]
fn check_tells_serving_from_unknown_and_from_draining() {
    let cli = Cli::new();
    let mut server = Server::start(&["--shutdown-delay-ms", "600000"]);
    let addr = server.grpc_addr.to_string();
    let serving = cli.run(&["check", &addr]);
    assert_eq!((serving.code, serving.out.as_str()), (Some(0), "SERVING\n"), "{}", serving.err);
    assert_eq!(
        cli.run(&["check", &server.admin_addr.to_string()]).code,
        Some(0),
        "the admin port tells, too"
    );
    assert_eq!(cli.run(&["check", &addr, "--service", "user.v1.UserService"]).code, Some(0));
    assert_eq!(cli.run(&["check", &addr, "--service", "nobody.Knows"]).code, Some(3));

    server.signal("TERM");
    server.wait_for_line("\"draining\"");
    let draining = cli.run(&["check", &addr]);
    assert_eq!((draining.code, draining.out.as_str()), (Some(4), "NOT_SERVING\n"), "{}", draining.err);
    assert_eq!(cli.run(&["check", &addr, "--service", "liveness"]).code, Some(0));

    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(143), "a second signal ends the drain");
}

#[test]
#[ignore = "serve is not built in yet"]
fn smoke_tries_everything_and_leaves_nothing_behind() {
    let cli = Cli::new();
    let server = Server::start(&[]);
    let smoke = cli.run(&["smoke", &server.grpc_addr.to_string()]);
    assert_eq!(smoke.code, Some(0), "{}{}", smoke.out, smoke.err);
    let steps =
        ["health", "reflection", "create", "get by id", "get by email", "batch get", "list", "update"];
    for step in steps.iter().chain(&["stale etag", "article", "delete", "gone"]) {
        assert!(smoke.out.contains(&format!("ok      {step}: ")), "no {step:?} in:\n{}", smoke.out);
    }
    assert_eq!(users(&server), []);
}

#[test]
#[ignore = "serve is not built in yet"]
fn smoke_says_which_step_failed() {
    let cli = Cli::new();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let nobody = cli.run(&["smoke", &free]);
    assert_eq!(nobody.code, Some(1), "{}", nobody.err);
    assert!(nobody.out.starts_with("FAILED  connect: "), "{}", nobody.out);

    let server = Server::start(&["--article-api", "false"]);
    let without = cli.run(&["smoke", &server.grpc_addr.to_string()]);
    assert_eq!(without.code, Some(0), "{}", without.out);
    assert!(without.out.contains("ok      article: not served here"), "{}", without.out);
}
