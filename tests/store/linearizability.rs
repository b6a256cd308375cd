//! Small random concurrent histories, checked for linearizability; revisions are
//! part of every answer, so their order is checked too.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    thread,
};

use crate::{
    buggy_stores,
    fixtures::{self, fields, plain, write},
    model::{AGE, Address, IDS, Id, Model, Op, Ret, Row},
};
use stateright::semantics::{ConsistencyTester, LinearizabilityTester};
use tokio::runtime::Handle;
use user_service::domain::{
    Age, Change, Deadline, Email, Error, Etag, Fields, Patch, Store, UniqueKey, User, UserId, UserKey,
    WriteResult,
};

const THREADS: u8 = 3;
const OPS: usize = 7;

type Tester = LinearizabilityTester<u8, Model>;

pub async fn concurrent_histories_are_linearizable(store: Arc<dyn Store>) {
    for seed in 1..=60 {
        let tester = run(&store, seed).await;
        assert!(tester.is_consistent(), "history {seed} is not linearizable: {tester:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_before_the_commit_is_caught() {
    for opened in [fixtures::memory(), fixtures::sqlite(), fixtures::postgres()] {
        assert_caught(buggy_stores::early_answers(opened.store.clone())).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_update_is_caught() {
    for opened in [fixtures::memory(), fixtures::sqlite(), fixtures::postgres()] {
        assert_caught(buggy_stores::lost_updates(opened.store.clone())).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_read_is_caught() {
    for opened in [fixtures::memory(), fixtures::sqlite(), fixtures::postgres()] {
        assert_caught(buggy_stores::stale_reads(opened.store.clone())).await;
    }
}

async fn assert_caught(store: Arc<dyn Store>) {
    for seed in 1..=200 {
        if !run(&store, seed).await.is_consistent() {
            return;
        }
    }
    panic!("200 histories of a broken store passed");
}

/// Runs one history on users of its own.
async fn run(store: &Arc<dyn Store>, seed: u64) -> Tester {
    let marker = fixtures::create(&format!("marker-{seed}"));
    let history = History {
        store: store.clone(),
        seed,
        base: write(store, marker).await.unwrap().revision,
        etags: Arc::default(),
        tester: Arc::new(Mutex::new(Tester::new(Model::default()))),
        runtime: Handle::current(),
    };
    // The planted bugs may still be at work on the marker.
    while fixtures::get(store, &format!("marker-{seed}")).await.is_none() {
        tokio::task::yield_now().await;
    }
    let threads: Vec<_> = (0..THREADS)
        .map(|number| {
            let history = history.clone();
            thread::spawn(move || history.thread(number))
        })
        .collect();
    tokio::task::block_in_place(|| threads.into_iter().for_each(|thread| thread.join().unwrap()));
    let tester = history.tester.lock().unwrap();
    tester.clone()
}

#[derive(Clone)]
struct History {
    store: Arc<dyn Store>,
    seed: u64,
    /// The store's revision when the history began.
    base: u64,
    /// Those that were answered, by their revisions since then.
    etags: Arc<Mutex<HashMap<u64, Etag>>>,
    tester: Arc<Mutex<Tester>>,
    runtime: Handle,
}

impl History {
    fn thread(self, number: u8) {
        let mut random = Random(self.seed * 1_000 + u64::from(number) + 1);
        let mut seen = None;
        for n in 0..OPS {
            let made_up = IDS + number * u8::try_from(OPS).unwrap() + u8::try_from(n).unwrap();
            let op = random.op(made_up, seen);
            self.tester.lock().unwrap().on_invoke(number, op.clone()).unwrap();
            let ret = self.runtime.block_on(self.call(&op));
            if let Ret::User(Some(row)) = &ret {
                seen = Some((row.id, row.revision));
            }
            self.tester.lock().unwrap().on_return(number, ret).unwrap();
        }
    }

    async fn call(&self, op: &Op) -> Ret {
        match op {
            Op::Get(id) => self.get(UserKey::Id(self.id(*id))).await,
            Op::Find(address) => self.get(UserKey::Email(self.email(*address))).await,
            Op::GetAll => {
                let ids: Vec<_> = (0..IDS).map(|id| self.id(id)).collect();
                let users = self.store.batch_get(&ids, Deadline::NONE).await.unwrap();
                Ret::Users(users.into_iter().map(|user| user.map(|user| self.row(&user))).collect())
            }
            _ => match self.store.write(plain(self.change(op)), Deadline::NONE).await {
                Ok(WriteResult { user: Some(user), .. }) => Ret::User(Some(self.row(&user))),
                Ok(WriteResult { user: None, revision }) => Ret::Deleted(revision.saturating_sub(self.base)),
                Err(Error::AlreadyExists(UniqueKey::Id)) => Ret::IdTaken,
                Err(Error::AlreadyExists(UniqueKey::Email)) => Ret::AddressTaken,
                Err(Error::NotFound(_)) => Ret::Missing,
                Err(Error::EtagMismatch) => Ret::Stale,
                Err(error) => panic!("{op:?}: {error:?}"),
            },
        }
    }

    async fn get(&self, key: UserKey) -> Ret {
        Ret::User(self.store.get(&key, Deadline::NONE).await.unwrap().map(|user| self.row(&user)))
    }

    fn change(&self, op: &Op) -> Change {
        let etag = |revision: Option<u64>| revision.map(|revision| self.etags.lock().unwrap()[&revision]);
        let of = |address| Fields { email: self.email(address), ..fields("Ada", "ada") };
        match *op {
            Op::Create(id, address) => Change::Create { id: self.id(id), fields: of(address) },
            Op::Put(address, new) => Change::Upsert { id: None, new_id: self.id(new), fields: of(address) },
            Op::Update(id, address, age, revision) => Change::Update {
                id: self.id(id),
                patch: Patch {
                    email: address.map(|address| self.email(address)),
                    age: age.map(|age| Age::parse(age.into()).unwrap()),
                    ..Patch::default()
                },
                etag: etag(revision),
            },
            Op::Delete(id, revision) => {
                Change::Delete { id: self.id(id), etag: etag(revision), allow_missing: false }
            }
            Op::Get(_) | Op::Find(_) | Op::GetAll => unreachable!("these are reads"),
        }
    }

    fn id(&self, id: Id) -> UserId {
        fixtures::id(&format!("h{}-{id}", self.seed))
    }

    fn email(&self, address: Address) -> Email {
        fixtures::email(&format!("h{}-{address}", self.seed))
    }

    fn row(&self, user: &User) -> Row {
        let number =
            |text: &str| text.split('@').next().unwrap().rsplit('-').next().unwrap().parse().unwrap();
        let revision = user.revision.saturating_sub(self.base);
        self.etags.lock().unwrap().insert(revision, user.etag());
        Row {
            id: number(user.id.as_str()),
            address: number(user.fields.email.as_str()),
            age: user.fields.age.years(),
            revision,
        }
    }
}

/// A generator that gives the same for the same seed (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u8) -> u8 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        u8::try_from((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % u64::from(bound)).unwrap()
    }

    /// `made_up` is an id that was never used; `seen` what the thread saw last.
    fn op(&mut self, made_up: Id, seen: Option<(Id, u64)>) -> Op {
        let (id, address) = (self.below(IDS), self.below(2));
        let (guarded, revision) = match seen {
            Some((id, revision)) if self.below(2) == 0 => (id, Some(revision)),
            _ => (id, None),
        };
        match self.below(10) {
            0 | 1 => Op::Create(id, address),
            2 => Op::Put(address, made_up),
            3 => Op::Update(guarded, Some(address), None, revision),
            4 | 5 => Op::Update(guarded, None, Some(AGE + 1 + self.below(50)), revision),
            6 => Op::Delete(guarded, revision),
            7 => Op::Get(id),
            8 => Op::Find(address),
            _ => Op::GetAll,
        }
    }
}
