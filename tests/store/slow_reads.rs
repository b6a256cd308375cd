//! More pages than a store whose reads are slow can read.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    database::{name, shared},
    fixtures::{at, create, stored},
    subprocess,
};
use rusqlite::Connection;
use tokio::{
    task::{JoinSet, block_in_place},
    time,
};
use user_service::{
    domain::{Deadline, Error, PageSize, Store, UserId},
    store,
};

/// What callers give a read.
const DEADLINE: Duration = Duration::from_secs(1);

/// How long the load lasts: long enough that a queue without a bound would have grown longer
/// than a deadline early on.
const LOAD: Duration = Duration::from_secs(6);

const USERS: u32 = 40_000;

/// A statement that reads users takes 100 ms.
const SLOW: &str = "BEGIN;
    ALTER TABLE user_service.users RENAME TO quick;
    CREATE VIEW user_service.users AS SELECT quick.* FROM user_service.quick, pg_sleep(0.1);
    COMMIT";

/// Users with long names, so that their pages do not fit into the cache of a connection.
const MANY: &str = "
    WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < ?1)
    INSERT INTO users (id, name, email, age, revision, create_time, update_time)
    SELECT printf('user-%06d', n), printf('%.*c', 200, 'x'), printf('user-%06d@example.com', n), 36, n + 1, 0, 0
    FROM numbers";

#[tokio::test(flavor = "multi_thread")]
async fn at_three_times_its_capacity_a_slow_database_serves_it() {
    let config = shared().fresh().await;
    let client = shared().client(&name(&config)).await;
    let store = block_in_place(|| store::open(&config).unwrap());
    // Without a user there would be nothing to read slowly.
    stored(&store, create("zoe")).await;
    client.batch_execute(SLOW).await.unwrap();
    offer_three_times_the_capacity(store).await;
}

#[test]
fn at_three_times_its_capacity_a_slow_disk_serves_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.db");
    drop(store::open(&at(&path)).unwrap());
    Connection::open(&path).unwrap().execute(MANY, (USERS,)).unwrap();
    // Each read of a page of the file takes a millisecond more, and stops no other.
    let file = path.to_str().unwrap();
    let slow = ["-P", file, "-e", "trace=pread64", "-e", "inject=pread64:delay_exit=1000"];
    let strace = ["strace", "-D", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null"];
    let wrapper = [strace.as_slice(), &slow].concat();
    let child = subprocess::command("lists_more_than_it_can", &path, &wrapper).output().unwrap();
    let said = String::from_utf8_lossy(&child.stderr);
    println!("{said}");
    assert!(child.status.success(), "{said}");
}

/// What the process does whose reads are slow.
pub async fn list_more_than_can_be_read(path: &Path) {
    offer_three_times_the_capacity(store::open(&at(path)).unwrap()).await;
}

/// How a read ended: what its caller saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    InTime,
    Late,
    Refused,
}

async fn list(store: Arc<dyn Store>, n: u32) -> End {
    let deadline = Instant::now() + DEADLINE;
    // In no order, and each as long as another.
    let after = UserId::parse(&format!("user-{:06}", n * 7_919 % (USERS - 1_000))).unwrap();
    match store.list(Some(&after), PageSize::parse(1_000).unwrap(), Deadline::at(deadline)).await {
        Ok(_) if Instant::now() <= deadline => End::InTime,
        Ok(_) | Err(Error::DeadlineExceeded) => End::Late,
        Err(Error::Overloaded { retry_delay }) if !retry_delay.is_zero() => End::Refused,
        Err(error) => panic!("{error:?}"),
    }
}

async fn offer_three_times_the_capacity(store: Arc<dyn Store>) {
    let before = capacity(&store).await;
    let offered = 3 * before;
    let (mut calls, began) = (JoinSet::new(), Instant::now());
    for n in 0..offered {
        let arrival = began + LOAD.mul_f64(f64::from(n) / f64::from(offered));
        time::sleep_until(arrival.into()).await;
        calls.spawn(list(store.clone(), n));
    }
    let ended = calls.join_all().await;
    // A busy machine reads less at one time than at another.
    let capacity = u32::midpoint(before, capacity(&store).await);
    let [in_time, late, refused] =
        [End::InTime, End::Late, End::Refused].map(|end| ended.iter().filter(|other| **other == end).count());
    let said = format!(
        "{offered} offered, {capacity} could be read: {in_time} in time, {late} late, {refused} refused"
    );
    eprintln!("{said}");
    // Without a bound most are late, and under half of what could be read is in time.
    assert!(in_time * 4 >= capacity as usize * 3, "{said}");
    // A busy machine that holds up the reads of one moment makes those late that wait behind them,
    // one in seven of all, and nobody can foresee it.
    assert!(late * 5 <= in_time, "{said}");
}

/// How many reads a few callers get in the time of the load, each one after the other.
async fn capacity(store: &Arc<dyn Store>) -> u32 {
    const CALLERS: usize = 8;
    let until = Instant::now() + LOAD / 3;
    let mut callers = JoinSet::new();
    for caller in (0..).take(CALLERS) {
        let store = store.clone();
        callers.spawn(async move {
            let mut reads = 0;
            for n in (caller..).step_by(CALLERS) {
                if Instant::now() >= until {
                    break;
                }
                reads += u32::from(list(store.clone(), n).await == End::InTime);
            }
            reads
        });
    }
    let reads: u32 = callers.join_all().await.into_iter().sum();
    3 * reads
}
