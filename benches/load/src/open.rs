//! An open loop: calls arrive at a rate, answered or not, each with a deadline.
//! The time of a call counts from its arrival, waiting for a free stream included.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use crate::{Result, Which, calls::Calls, connection::Connection, summary::Summary};

/// As a client of a loaded service would set it.
const TIMEOUT: &str = "1S";
/// How long the last answers may take.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    which: Which,
    /// Calls a second.
    #[arg(long)]
    rate: f64,
    #[arg(long, default_value_t = 8.0)]
    seconds: f64,
    /// A server takes 100 streams or so on each.
    #[arg(long, default_value_t = 100)]
    connections: usize,
}

struct Run {
    calls: Calls,
    summary: RefCell<Summary>,
    in_flight: Cell<usize>,
}

pub async fn run(addr: SocketAddr, options: Options) -> Result<String> {
    let connections = Connection::open_many(addr, options.connections).await?;
    let run = Rc::new(Run {
        calls: Calls::new(options.which),
        summary: RefCell::default(),
        in_flight: Cell::default(),
    });
    let mut round = connections.iter().cycle();
    let mut tick = tokio::time::interval(Duration::from_millis(1));
    let began = Instant::now();
    let (mut arrived, mut now) = (0.0, 0.0);
    while now < options.seconds {
        tick.tick().await;
        now = began.elapsed().as_secs_f64();
        while arrived < now.min(options.seconds) * options.rate {
            arrived += 1.0;
            let arrival = began + Duration::from_secs_f64(arrived / options.rate);
            let connection = round.next().ok_or("no connection")?.clone();
            tokio::task::spawn_local(Rc::clone(&run).one(connection, arrival));
        }
    }
    let took = began.elapsed();
    while run.in_flight.get() > 0 && began.elapsed() < took + PATIENCE {
        tick.tick().await;
    }
    let mut summary = run.summary.take();
    summary.add_unanswered(run.in_flight.get());
    Ok(summary.line(took))
}

impl Run {
    async fn one(self: Rc<Self>, connection: Connection, arrival: Instant) {
        self.in_flight.set(self.in_flight.get() + 1);
        let reply = connection.call(self.calls.path(), self.calls.request(), Some(TIMEOUT)).await;
        self.in_flight.set(self.in_flight.get() - 1);
        match reply {
            Ok(reply) => self.summary.borrow_mut().add(reply.code, arrival),
            Err(_) => self.summary.borrow_mut().add_unanswered(1),
        }
    }
}
