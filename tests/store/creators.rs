//! Clients that create users at the same time. A create that the server turned away is
//! repeated, as clients do: after a pause it takes its disk for a slow one.

use std::{
    collections::BTreeSet,
    mem,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, task::JoinSet, time};
use tonic::Code;
use user_service::proto::user::v1::{CreateUserRequest, User};
use uuid::Uuid;

use crate::{imports::Client, support::TEST_TIMEOUT};

const CLIENTS: usize = 8;

const RETRY_DELAY: Duration = Duration::from_millis(10);

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
        let enough = async {
            while self.shared.acknowledged.lock().unwrap().len() < enough {
                self.shared.one_more.notified().await;
            }
        };
        time::timeout(TEST_TIMEOUT, enough).await.expect("users are created");
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
        match client.create_user(request).await {
            Ok(created) => {
                let id = created.into_inner().user.unwrap().id;
                shared.acknowledged.lock().unwrap().insert(id);
            }
            Err(status) if status.code() == Code::Unavailable => time::sleep(RETRY_DELAY).await,
            Err(status) => panic!("a create fails: {status:?}"),
        }
        shared.one_more.notify_one();
    }
}
