//! Those who watch a crowd, one on each replica, whatever happens to it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    history_checker::{Logged, Row},
    support::TEST_TIMEOUT,
    workload_clients::{Replicas, row},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time,
};
use user_service::proto::user::v1::{
    User, WatchUsersRequest, WatchUsersResponse, watch_users_response::Event,
};

pub struct WorkloadWatchers {
    /// How many changes they wait for.
    until: watch::Sender<usize>,
    watching: JoinSet<Vec<Logged>>,
}

impl WorkloadWatchers {
    /// Returns when all of them watch.
    pub async fn start(replicas: &Arc<Replicas>) -> Self {
        let until = watch::Sender::new(usize::MAX);
        let (begun, mut all_begun) = mpsc::channel(1);
        let mut watching = JoinSet::new();
        for replica in 0..replicas.len() {
            let onlooker = WorkloadWatcher {
                replicas: Arc::clone(replicas),
                replica,
                told: Vec::new(),
                token: String::new(),
            };
            watching.spawn(onlooker.watch(until.subscribe(), begun.clone()));
        }
        for _ in 0..replicas.len() {
            time::timeout(TEST_TIMEOUT, all_begun.recv()).await.expect("a watch begins");
        }
        Self { until, watching }
    }

    /// What they were told that is not what happened: each change once, in order, and
    /// in the end the users that there are.
    pub async fn disagree(self, log: &[Logged], users: &BTreeMap<String, (u64, Row)>) -> Vec<String> {
        self.until.send_replace(log.len());
        let watched = time::timeout(TEST_TIMEOUT, self.watching.join_all()).await;
        let mut wrong = Vec::new();
        for told in watched.expect("each is told everything") {
            if let Some(n) = (0..log.len()).find(|n| told.get(*n) != Some(&log[*n])) {
                wrong.push(format!("told: {:?} for {:?}", told.get(n), log[n]));
            }
            let mut folded = BTreeMap::new();
            for Logged { revision, id, row } in told {
                match row {
                    Some(row) => drop(folded.insert(id, (revision, row))),
                    None => drop(folded.remove(&id)),
                }
            }
            if folded != *users {
                wrong.push("told: what an onlooker was told does not add up to the table".into());
            }
        }
        wrong
    }
}

struct WorkloadWatcher {
    replicas: Arc<Replicas>,
    replica: usize,
    told: Vec<Logged>,
    token: String,
}

impl WorkloadWatcher {
    async fn watch(mut self, mut until: watch::Receiver<usize>, begun: mpsc::Sender<()>) -> Vec<Logged> {
        loop {
            let request = WatchUsersRequest { initial_state: false, resume_token: self.token.clone() };
            let mut client = self.replicas.client(self.replica);
            if let Ok(stream) = client.watch_users(request).await {
                let mut stream = stream.into_inner();
                loop {
                    let enough = until.wait_for(|until| self.told.len() >= *until);
                    let message = tokio::select! {
                        _ = enough => return self.told,
                        message = stream.message() => message,
                    };
                    let Ok(Some(message)) = message else { break };
                    if self.take(message) {
                        let _ = begun.send(()).await;
                    }
                }
            }
            // As a client does; what was told last is where it goes on.
            time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Whether the watch has just begun.
    fn take(&mut self, message: WatchUsersResponse) -> bool {
        let first = self.token.is_empty();
        self.token = message.resume_token;
        match message.event {
            Some(Event::Created(user) | Event::Updated(user)) => self.left(user),
            Some(Event::Deleted(gone)) => {
                let revision = self.told.len() as u64 + 1;
                self.told.push(Logged { revision, id: gone.id, row: None });
            }
            _ => {}
        }
        first
    }

    fn left(&mut self, user: User) {
        let id = user.id.clone();
        let (revision, row) = row(user);
        self.told.push(Logged { revision, id, row: Some(row) });
    }
}
