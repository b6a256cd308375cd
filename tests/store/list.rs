//! Listings.

use std::sync::Arc;

use crate::fixtures::{create, delete, id, stored, write};
use user_service::domain::{Deadline, Page, PageSize, Store, UserId};

async fn page(store: &Arc<dyn Store>, after: Option<&UserId>, size: i32) -> Page {
    store.list(after, PageSize::parse(size).unwrap(), Deadline::NONE).await.unwrap()
}

fn names(page: &Page) -> Vec<&str> {
    page.users.iter().map(|user| user.id.as_str()).collect()
}

pub async fn pages_are_ordered_and_say_whether_there_is_more(store: Arc<dyn Store>) {
    let none = page(&store, None, 2).await;
    assert_eq!((names(&none), none.more), (vec![], false));
    for name in ["c", "a", "-", "b", "0", "a-"] {
        stored(&store, create(name)).await;
    }
    for size in [6, 7, 1_000] {
        let all = page(&store, None, size).await;
        assert_eq!((names(&all), all.more), (vec!["-", "0", "a", "a-", "b", "c"], false));
    }
    let first = page(&store, None, 4).await;
    assert_eq!((names(&first), first.more), (vec!["-", "0", "a", "a-"], true));
    let second = page(&store, Some(&id("a-")), 2).await;
    assert_eq!((names(&second), second.more), (vec!["b", "c"], false));
    assert!(page(&store, Some(&id("c")), 2).await.users.is_empty());
}

pub async fn pages_neither_repeat_nor_hide_users_when_others_come_and_go(store: Arc<dyn Store>) {
    for n in (0..40).step_by(2) {
        stored(&store, create(&format!("user-{n:02}"))).await;
    }
    let mut seen: Vec<String> = Vec::new();
    let mut after = None;
    loop {
        let page = page(&store, after.as_ref(), 3).await;
        seen.extend(page.users.iter().map(|user| user.id.as_str().to_owned()));
        let Some(last) = page.users.last().filter(|_| page.more) else { break };
        // The very user that the next page begins after goes, and one comes before it.
        write(&store, delete(last.id.as_str())).await.unwrap();
        stored(&store, create(&format!("aaa-{}", last.id.as_str()))).await;
        after = Some(last.id.clone());
    }
    let expected: Vec<_> = (0..40).step_by(2).map(|n| format!("user-{n:02}")).collect();
    assert_eq!(seen, expected);
}
