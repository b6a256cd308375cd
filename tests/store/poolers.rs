//! Poolers in transaction mode, which keep no prepared statement, as people have them:
//! nothing was set for them.

use std::{process::Command, sync::atomic::Ordering, time::Instant};

use crate::{
    database::{self, name},
    fixtures::{create, get, stored, write},
    imports::{all_users, serve},
    pgbouncer,
    proxy::Proxy,
    support::TEST_TIMEOUT,
};
use tokio::task::{JoinSet, block_in_place};
use user_service::{
    domain::Deadline,
    proto::user::v1::{CreateUserRequest, GetUserRequest, ListUsersRequest, User, get_user_request::Key},
    store,
};

/// What the log says once where a pooler is found.
const NOTICED: &str = "store_prepared_statements";

/// A URL of an empty database behind the pooler.
async fn pooled_url() -> String {
    let config = block_in_place(pgbouncer::shared).fresh().await;
    format!("postgres://tests@127.0.0.1:{}/{}?sslmode=disable", pgbouncer::shared().port, name(&config))
}

/// 600 calls, 50 at the same time, and how many of them failed.
async fn calls(client: &crate::imports::Client) -> Vec<tonic::Status> {
    let mut calls = JoinSet::new();
    for caller in 0..50 {
        let mut client = client.clone();
        calls.spawn(async move {
            let mut failed = Vec::new();
            for round in 0..4 {
                let email = format!("user-{caller}-{round}@example.com");
                let user = User { name: "Ada".into(), email: email.clone(), age: 36, ..User::default() };
                let create = CreateUserRequest { user: Some(user), ..CreateUserRequest::default() };
                failed.extend(client.create_user(create).await.err());
                let key = Some(Key::Email(email));
                failed.extend(client.get_user(GetUserRequest { key }).await.err());
                failed.extend(client.list_users(ListUsersRequest::default()).await.err());
            }
            failed
        });
    }
    calls.join_all().await.concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_is_noticed_before_serving_and_every_call_works() {
    for args in [&[][..], &["--store-prepared-statements", "true"], &["--store-prepared-statements", "false"]]
    {
        let url = pooled_url().await;
        let mut server = block_in_place(|| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_user-service"));
            command.args(args).env("USERSVC_STORE_URL", &url);
            crate::support::Server::spawn(command)
        });
        let said = |log: &[String]| log.iter().filter(|line| line.contains(NOTICED)).count();
        let expected = usize::from(args.last() != Some(&"false"));
        assert_eq!(said(server.log()), expected, "{args:?}: before serving");
        let addr = format!("http://{}", server.grpc_addr);
        let channel = tonic::transport::Channel::from_shared(addr).unwrap().connect().await.unwrap();
        let mut client = crate::imports::Client::new(channel);
        let failed = calls(&client).await;
        assert!(failed.is_empty(), "{args:?}: {} of 600 calls failed: {:?}", failed.len(), failed[0]);
        assert_eq!(all_users(&mut client).await.len(), 200);
        assert_eq!(said(server.log()), expected, "{args:?}: once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_reached_directly_is_not_taken_for_a_pooler() {
    let (mut server, mut client) = serve(&crate::imports::fresh_postgres().await).await;
    assert_eq!(all_users(&mut client).await.len(), 0);
    assert!(!server.log().iter().any(|line| line.contains(NOTICED)), "{:?}", server.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_without_transactions_is_refused_in_its_own_words() {
    let database = block_in_place(database::shared);
    let config = database.fresh().await;
    let pooler = block_in_place(|| pgbouncer::Bouncer::start(database.port, "statement"));
    let config = database::at(pooler.port, "tests", &name(&config));
    let refused = block_in_place(|| store::open(&config)).err().expect("no write would work").to_string();
    assert!(refused.contains("statement pooling"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_comes_later_is_noticed_as_well() {
    let server = block_in_place(database::shared);
    let config = server.fresh().await;
    let proxy = Proxy::start(server.port).await;
    let store = {
        let config = database::at(proxy.port, "tests", &name(&config));
        block_in_place(|| store::open(&config)).unwrap()
    };
    stored(&store, create("before")).await;
    proxy.database.store(block_in_place(pgbouncer::shared).port, Ordering::SeqCst);
    let client = server.client(&name(&config)).await;
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    assert!(!client.query(cut, &[]).await.unwrap().is_empty());
    let until = Instant::now() + TEST_TIMEOUT;
    while write(&store, create("first")).await.is_err() || !store.probe().await.reads {
        assert!(Instant::now() < until, "the store does not come back");
    }
    let mut writes = JoinSet::new();
    for number in 0..200 {
        let store = store.clone();
        writes.spawn(async move {
            let name = format!("user-{number}");
            let user = stored(&store, create(&name)).await;
            assert_eq!(get(&store, &name).await, Some(user));
        });
    }
    writes.join_all().await;
    assert_eq!(store.log_head(Deadline::NONE).await.unwrap().newest.revision, 202);
    store.close().await;
}

/// As where a pooler that was not noticed gives a connection to another server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prepared_statement_that_is_lost_fails_no_call() {
    let server = block_in_place(database::shared);
    let config = server.fresh().await;
    let store = block_in_place(|| store::open(&config)).unwrap();
    server
        .client(&name(&config))
        .await
        .batch_execute(
            "CREATE FUNCTION user_service.forget() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN EXECUTE 'DEALLOCATE ALL'; RETURN NULL; END $$;
             CREATE TRIGGER forget AFTER INSERT ON user_service.users
                 FOR EACH STATEMENT EXECUTE FUNCTION user_service.forget()",
        )
        .await
        .unwrap();
    for name in ["ada", "bob", "carol"] {
        let user = stored(&store, create(name)).await;
        assert_eq!(get(&store, name).await, Some(user));
    }
    store.close().await;
}
