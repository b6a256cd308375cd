//! How a server that was told to stop ends.

use tokio::task;
use tonic::{Request, client::Grpc, transport::Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_prost::ProstCodec;
use user_service::proto::user::v1::{GetUserRequest, GetUserResponse};

use crate::support::Server;

#[test]
fn a_clean_stop_ends_with_0() {
    for signal in ["TERM", "INT"] {
        let mut server = Server::start(&[]);
        server.signal(signal);
        assert_eq!(server.wait().code(), Some(0), "{signal}");
    }
}

#[test]
fn a_second_signal_ends_the_drain_with_its_own_code() {
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let mut server = Server::start(&["--shutdown-delay-ms", "600000"]);
        server.signal("TERM");
        server.wait_for_line("\"draining\"");
        server.signal(signal);
        assert_eq!(server.wait().code(), Some(code), "{signal}");
    }
}

#[test]
fn calls_that_are_cut_end_with_75() {
    let mut server = Server::start(&["--drain-timeout-ms", "100"]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let channel =
            Endpoint::from_shared(format!("http://{}", server.grpc_addr)).unwrap().connect().await.unwrap();
        let mut client = Grpc::new(channel.clone());
        client.ready().await.unwrap();
        // Runs for as long as the runtime is kept.
        task::spawn(async move {
            // A request that never comes: the call stays in flight.
            let nothing = Request::new(tokio_stream::pending::<GetUserRequest>());
            let path = "/user.v1.UserService/GetUser".parse().unwrap();
            let codec = ProstCodec::<GetUserRequest, GetUserResponse>::default();
            client.client_streaming(nothing, path, codec).await
        });
        task::yield_now().await;
        // Sent after the call on the same connection: once it is answered, the call is there.
        HealthClient::new(channel).check(HealthCheckRequest::default()).await.unwrap();
    });
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(75), "{}", server.log().join("\n"));
    drop(runtime);
}
