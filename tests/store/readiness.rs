//! What health says of a database that does not answer.

use std::{process::Command, time::Instant};

use tokio::{task::block_in_place, time};
use tonic::transport::Channel;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{
    database::{name, shared},
    proxy::{Plan, Proxy},
    support::{Server, TEST_TIMEOUT},
};

/// Whether a name of health is served.
pub async fn serves(server: &Server, service: &str) -> bool {
    let channel = Channel::from_shared(format!("http://{}", server.admin_addr)).unwrap().connect_lazy();
    let request = HealthCheckRequest { service: service.into() };
    HealthClient::new(channel).check(request).await.unwrap().into_inner().status() == ServingStatus::Serving
}

async fn becomes(server: &Server, serving: bool) {
    let until = Instant::now() + TEST_TIMEOUT;
    while serves(server, "").await != serving {
        assert!(Instant::now() < until, "readiness does not become {serving}");
        time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_database_takes_out_only_replicas_whose_patience_is_over() {
    let database = block_in_place(shared);
    let name = name(&database.fresh().await);
    let proxy = Proxy::start(database.port).await;
    let url = format!("postgres://tests@127.0.0.1:{}/{name}?sslmode=disable", proxy.port);
    let [hasty, patient] = ["2", "600"].map(|failures| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_user-service"));
        command.env("USERSVC_STORE_URL", &url).env("USERSVC_STORE_PROBE_FAILURES", failures);
        block_in_place(|| Server::spawn(command))
    });
    becomes(&hasty, true).await;
    becomes(&patient, true).await;
    proxy.plan.send_replace(Plan::Silence);
    becomes(&hasty, false).await;
    assert!(serves(&patient, "").await, "a blip turns nobody away");
    for replica in [&hasty, &patient] {
        assert!(serves(replica, "liveness").await, "no restart makes a database answer");
    }
    proxy.plan.send_replace(Plan::Forward);
    becomes(&hasty, true).await;
    assert!(block_in_place(|| hasty.stop()).success() && block_in_place(|| patient.stop()).success());
}
