//! An open loop: calls arrive at a rate, answered or not, each with a deadline.
//! The time of a call counts from its arrival, waiting for a free stream included.

use std::{
    cell::{Cell, RefCell},
    ops::Range,
    rc::Rc,
    time::{Duration, Instant},
};

use crate::{Result, Which, calls::Calls, connection::Connection, summary::Summary, target::Target};

/// As a client of a loaded service would set it.
const TIMEOUT: Duration = Duration::from_secs(1);
/// For the server to say itself that the deadline is over. A client that resets
/// thousands of streams would be cut off as an attacker.
const GRACE: Duration = Duration::from_millis(250);

#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    which: Which,
    /// Calls a second.
    #[arg(long)]
    rate: f64,
    #[arg(long, default_value_t = 8.0)]
    seconds: f64,
    /// How long calls arrive before that, until as many are answered as are to be.
    #[arg(long, default_value_t = 0.0)]
    warm_up: f64,
    /// A server takes 100 streams or so on each.
    #[arg(long, default_value_t = 100)]
    connections: usize,
}

struct Run {
    calls: Calls,
    summary: RefCell<Summary>,
    in_flight: Cell<usize>,
    /// What is answered earlier or later says nothing about the rate.
    counted: Range<Instant>,
}

pub async fn run(target: &Target, options: Options) -> Result<String> {
    let connections = Connection::open_many(target, options.connections).await?;
    let seconds = options.warm_up + options.seconds;
    let began = Instant::now();
    let run = Rc::new(Run {
        calls: Calls::new(options.which),
        summary: RefCell::default(),
        in_flight: Cell::default(),
        counted: began + Duration::from_secs_f64(options.warm_up)..began + Duration::from_secs_f64(seconds),
    });
    let mut round = connections.iter().cycle();
    let mut tick = tokio::time::interval(Duration::from_millis(1));
    let (mut arrived, mut now) = (0.0, 0.0);
    while now < seconds {
        tick.tick().await;
        now = began.elapsed().as_secs_f64();
        while arrived < now.min(seconds) * options.rate {
            let arrival = began + Duration::from_secs_f64(arrived / options.rate);
            arrived += 1.0;
            let connection = round.next().ok_or("no connection")?.clone();
            run.in_flight.set(run.in_flight.get() + 1);
            tokio::task::spawn_local(Rc::clone(&run).one(connection, arrival));
        }
    }
    let took = began.elapsed() - Duration::from_secs_f64(options.warm_up);
    while run.in_flight.get() > 0 {
        tick.tick().await;
    }
    Ok(run.summary.take().line(took))
}

impl Run {
    async fn one(self: Rc<Self>, connection: Connection, arrival: Instant) {
        let deadline = arrival + TIMEOUT;
        let call = connection.call(self.calls.path(), self.calls.request(), Some(deadline));
        let reply = tokio::time::timeout_at((deadline + GRACE).into(), call).await;
        self.in_flight.set(self.in_flight.get() - 1);
        let (now, mut summary) = (Instant::now(), self.summary.borrow_mut());
        match reply {
            Ok(Ok(reply)) if reply.code != 0 => summary.add(reply.code, arrival),
            Ok(Ok(_)) if now > deadline => summary.add_unanswered(),
            Ok(Ok(_)) if !self.counted.contains(&now) => summary.add_outside(arrival),
            Ok(Ok(_)) => summary.add(0, arrival),
            Ok(Err(_)) | Err(_) => summary.add_unanswered(),
        }
    }
}
