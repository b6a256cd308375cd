//! tonic as its own examples set it up: `tonic-bare PORT`.

use std::{env, error::Error, net::Ipv4Addr};

use contract::{UserServiceServer, Users};
use tonic::transport::Server;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let port: u16 = env::args().nth(1).ok_or("usage: tonic-bare PORT")?.parse()?;
    Server::builder()
        .add_service(UserServiceServer::new(Users::default()))
        .serve((Ipv4Addr::LOCALHOST, port).into())
        .await?;
    Ok(())
}
