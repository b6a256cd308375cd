//! Reading many users at once.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::fixtures::{create, id, stored};
use user_service::domain::{Change, Deadline, Patch, Store};

pub async fn a_batch_is_answered_position_by_position(store: Arc<dyn Store>) {
    let (ada, bob) = (stored(&store, create("ada")).await, stored(&store, create("bob")).await);
    let ids = ["bob", "nobody", "ada", "bob"].map(id);
    let answer = store.batch_get(&ids, Deadline::NONE).await.unwrap();
    assert_eq!(answer, [Some(bob.clone()), None, Some(ada), Some(bob)]);
    assert!(store.batch_get(&[], Deadline::NONE).await.unwrap().is_empty());
    let many = vec![id("ada"); 1_000];
    assert_eq!(store.batch_get(&many, Deadline::NONE).await.unwrap().len(), 1_000);
}

/// Two users are written in turn, so at any one moment their revisions are
/// neighbours. There is time for many writes between reading the one and the other.
pub async fn a_batch_is_one_snapshot(store: Arc<dyn Store>) {
    let pair = ["first", "last"].map(id);
    for name in ["between", "first", "last"] {
        stored(&store, create(name)).await;
    }
    let done = Arc::new(AtomicBool::new(false));
    let writer = {
        let (store, pair, done) = (store.clone(), pair.clone(), done.clone());
        tokio::spawn(async move {
            while !done.load(Ordering::Relaxed) {
                for id in pair.clone() {
                    stored(&store, Change::Update { id, patch: Patch::default(), etag: None }).await;
                }
            }
        })
    };
    let mut ids = vec![id("between"); 1_000];
    [ids[0], ids[999]] = pair;
    for _ in 0..30 {
        let users = store.batch_get(&ids, Deadline::NONE).await.unwrap();
        let [first, last] = [&users[0], &users[999]].map(|user| user.as_ref().unwrap().revision);
        assert_eq!(first.abs_diff(last), 1, "{first} and {last} are of two moments");
    }
    done.store(true, Ordering::Relaxed);
    writer.await.unwrap();
}
