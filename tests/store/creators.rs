//! Clients that create users at the same time, none of which may fail.

use std::{
    collections::BTreeSet,
    mem,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{sync::Notify, task::JoinSet};
use user_service::proto::user::v1::{CreateUserRequest, User};
use uuid::Uuid;

use crate::imports::Client;

const CLIENTS: usize = 8;

pub struct Creators {
    shared: Arc<Shared>,
    running: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    acknowledged: Mutex<BTreeSet<String>>,
    one_more: Notify,
    stopped: AtomicBool,
}

impl Creators {
    pub fn start(client: &Client) -> Self {
        let shared = Arc::<Shared>::default();
        let mut running = JoinSet::new();
        for _ in 0..CLIENTS {
            running.spawn(create(client.clone(), Arc::clone(&shared)));
        }
        Self { shared, running }
    }

    /// The ids of those whose creation was acknowledged so far.
    pub fn acknowledged(&self) -> BTreeSet<String> {
        self.shared.acknowledged.lock().unwrap().clone()
    }

    /// Waits until so many more are acknowledged.
    pub async fn more(&self, count: usize) {
        let enough = self.shared.acknowledged.lock().unwrap().len() + count;
        while self.shared.acknowledged.lock().unwrap().len() < enough {
            self.shared.one_more.notified().await;
        }
    }

    /// Ends them after their last answers; returns the ids of all.
    pub async fn stop(mut self) -> BTreeSet<String> {
        self.shared.stopped.store(true, Ordering::Relaxed);
        while let Some(ended) = self.running.join_next().await {
            ended.unwrap();
        }
        mem::take(&mut self.shared.acknowledged.lock().unwrap())
    }
}

async fn create(mut client: Client, shared: Arc<Shared>) {
    while !shared.stopped.load(Ordering::Relaxed) {
        let email = format!("{}@example.com", Uuid::new_v4().simple());
        let user = User { name: "Ada".into(), email, age: 36, ..User::default() };
        let request = CreateUserRequest { user: Some(user), ..CreateUserRequest::default() };
        let created = client.create_user(request).await.expect("no create fails").into_inner();
        shared.acknowledged.lock().unwrap().insert(created.user.unwrap().id);
        shared.one_more.notify_one();
    }
}
