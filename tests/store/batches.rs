//! Reading many users at once.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use user_service::domain::{Age, Change, Deadline, Patch, Store, UserId};

use crate::stores::{create, id, stored};

pub async fn a_batch_is_answered_position_by_position(store: Arc<dyn Store>) {
    let (ada, bob) = (stored(&store, create("ada")).await, stored(&store, create("bob")).await);
    let ids = ["bob", "nobody", "ada", "bob"].map(id);
    let answer = store.batch_get(&ids, Deadline::NONE).await.unwrap();
    assert_eq!(answer, [Some(bob.clone()), None, Some(ada), Some(bob)]);
    assert!(store.batch_get(&[], Deadline::NONE).await.unwrap().is_empty());
    let many = vec![id("ada"); 1_000];
    assert_eq!(store.batch_get(&many, Deadline::NONE).await.unwrap().len(), 1_000);
}

/// One user is written at a time, in turn: whoever reads them all at one moment
/// sees ages that fall by one at most once.
pub async fn a_batch_is_one_snapshot(store: Arc<dyn Store>) {
    const USERS: usize = 8;
    let ids: Vec<UserId> = (0..USERS).map(|n| id(&format!("user-{n}"))).collect();
    for id in &ids {
        stored(&store, create(id.as_str())).await;
    }
    let done = Arc::new(AtomicBool::new(false));
    let writer = {
        let (store, ids, done) = (store.clone(), ids.clone(), done.clone());
        tokio::spawn(async move {
            for age in 37..57 {
                for id in &ids {
                    let patch = Patch { age: Some(Age::parse(age).unwrap()), ..Patch::default() };
                    stored(&store, Change::Update { id: id.clone(), patch, etag: None }).await;
                }
            }
            done.store(true, Ordering::Relaxed);
        })
    };
    while !done.load(Ordering::Relaxed) {
        let users = store.batch_get(&ids, Deadline::NONE).await.unwrap();
        let ages: Vec<_> = users.into_iter().map(|user| user.unwrap().age.years()).collect();
        let falls: Vec<_> = ages.windows(2).filter(|pair| pair[0] != pair[1]).collect();
        assert!(falls.len() <= 1 && falls.iter().all(|pair| pair[0] == pair[1] + 1), "{ages:?}");
    }
    writer.await.unwrap();
}
