//! tonic with the crates that people usually combine: tower-http's TraceLayer,
//! tracing-opentelemetry and OTLP in batches (1% of the calls, to a closed port),
//! a layer on `metrics` with the Prometheus exporter, health, reflection,
//! keepalive. `tonic-usual PORT`; metrics are served on PORT + 1000.

mod metered;
mod traced;

use std::{env, error::Error, net::Ipv4Addr, time::Duration};

use contract::{DESCRIPTORS, UserServiceServer, Users};
use metrics_exporter_prometheus::PrometheusBuilder;
use tonic::transport::Server;
use tower_http::trace::{DefaultOnResponse, TraceLayer};
use tracing::Level;

const BUCKETS_SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let port: u16 = env::args().nth(1).ok_or("usage: tonic-usual PORT")?.parse()?;
    traced::install()?;
    PrometheusBuilder::new()
        .with_http_listener((Ipv4Addr::LOCALHOST, port + 1000))
        .set_buckets(BUCKETS_SECONDS)?
        .install()?;

    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<UserServiceServer<Users>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .build_v1()?;

    let on_response = DefaultOnResponse::new().level(Level::INFO);
    Server::builder()
        .max_concurrent_streams(100)
        .http2_keepalive_interval(Some(Duration::from_mins(2)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .layer(TraceLayer::new_for_grpc().make_span_with(traced::span).on_response(on_response))
        .layer(metered::MeteredLayer)
        .add_service(UserServiceServer::new(Users::default()))
        .add_service(health)
        .add_service(reflection)
        .serve((Ipv4Addr::LOCALHOST, port).into())
        .await?;
    Ok(())
}

/// Service and method of a path such as `/UserService/GetUser`.
fn split(path: &str) -> (&str, &str) {
    path.trim_start_matches('/').split_once('/').unwrap_or(("", path))
}
