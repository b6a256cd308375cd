//! A closed loop: so many calls in flight, for a time or for a number of calls.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::{Result, Which, calls::Calls, connection::Connection, summary::Summary, target::Target};

#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    which: Which,
    #[arg(long, default_value_t = 10)]
    connections: usize,
    /// Calls in flight on each connection.
    #[arg(long, default_value_t = 20)]
    streams: usize,
    #[arg(long, default_value_t = 8.0)]
    seconds: f64,
    /// Stop after so many calls instead.
    #[arg(long)]
    calls: Option<u64>,
    /// Count answers other than OK instead of failing.
    #[arg(long)]
    tolerant: bool,
}

struct Run {
    calls: Calls,
    summary: RefCell<Summary>,
    left: Cell<u64>,
    until: Option<Instant>,
    tolerant: bool,
}

pub async fn run(target: &Target, options: Options) -> Result<String> {
    let connections = Connection::open_many(target, options.connections).await?;
    let began = Instant::now();
    let run = Rc::new(Run {
        calls: Calls::new(options.which),
        summary: RefCell::default(),
        left: Cell::new(options.calls.unwrap_or(u64::MAX)),
        until: options.calls.is_none().then(|| began + Duration::from_secs_f64(options.seconds)),
        tolerant: options.tolerant,
    });
    let mut workers = JoinSet::new();
    for connection in &connections {
        for _ in 0..options.streams {
            let (run, connection) = (Rc::clone(&run), connection.clone());
            workers.spawn_local(async move { run.work(connection).await.map_err(|error| error.to_string()) });
        }
    }
    while let Some(ended) = workers.join_next().await {
        ended??;
    }
    let took = began.elapsed();
    Ok(run.summary.take().line(took))
}

impl Run {
    async fn work(&self, connection: Connection) -> Result<()> {
        while self.left.get() > 0 && self.until.is_none_or(|until| Instant::now() < until) {
            self.left.set(self.left.get() - 1);
            let began = Instant::now();
            let reply = connection.call(self.calls.path(), self.calls.request(), None).await?;
            if reply.code != 0 && !self.tolerant {
                return Err(format!("{} answered with status {}", self.calls.path(), reply.code).into());
            }
            if reply.code == 0 && !self.calls.is_right(&reply) {
                return Err(format!("{} answered OK with a wrong message", self.calls.path()).into());
            }
            self.summary.borrow_mut().add(reply.code, began);
        }
        Ok(())
    }
}
