//! What a store is meant to do, told once more and much simpler: the reference
//! that histories are checked against.

use std::collections::BTreeMap;

use stateright::semantics::SequentialSpec;

/// A user's number, and the number of an address.
pub type Id = u8;
pub type Address = u8;

/// What a thread asks the store for.
#[derive(Clone, Debug)]
pub enum Op {
    Create(Id, Address),
    Put(Address, Id),
    /// New values, if the user's revision is the given one.
    Update(Id, Option<Address>, Option<u8>, Option<u64>),
    Delete(Id, Option<u64>),
    Get(Id),
    Find(Address),
    GetAll,
}

/// What it gets.
#[derive(Clone, Debug, PartialEq)]
pub enum Ret {
    User(Option<Row>),
    Users(Vec<Option<Row>>),
    Deleted(u64),
    IdTaken,
    AddressTaken,
    Missing,
    Stale,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub id: Id,
    pub address: Address,
    pub age: u8,
    pub revision: u64,
}

pub const IDS: Id = 3;
pub const AGE: u8 = 36;

/// All users at one moment.
#[derive(Clone, Debug, Default)]
pub struct Model {
    users: BTreeMap<Id, Row>,
    revision: u64,
}

impl Model {
    fn owner(&self, address: Address) -> Option<&Row> {
        self.users.values().find(|row| row.address == address)
    }

    fn put(&mut self, id: Id, address: Address, age: u8) -> Ret {
        self.revision += 1;
        let row = Row { id, address, age, revision: self.revision };
        self.users.insert(id, row.clone());
        Ret::User(Some(row))
    }
}

impl SequentialSpec for Model {
    type Op = Op;
    type Ret = Ret;

    fn invoke(&mut self, op: &Op) -> Ret {
        match *op {
            Op::Create(id, _) if self.users.contains_key(&id) => Ret::IdTaken,
            Op::Create(_, address) if self.owner(address).is_some() => Ret::AddressTaken,
            Op::Create(id, address) => self.put(id, address, AGE),
            Op::Put(address, new) => match self.owner(address) {
                Some(row) => self.put(row.id, address, AGE),
                // The harness makes up an id that no user has, as the service does.
                None => self.put(new, address, AGE),
            },
            Op::Update(id, address, age, revision) => {
                let Some(row) = self.users.get(&id).cloned() else { return Ret::Missing };
                if revision.is_some_and(|revision| revision != row.revision) {
                    return Ret::Stale;
                }
                let address = address.unwrap_or(row.address);
                if self.owner(address).is_some_and(|owner| owner.id != id) {
                    return Ret::AddressTaken;
                }
                self.put(id, address, age.unwrap_or(row.age))
            }
            Op::Delete(id, revision) => {
                let Some(row) = self.users.get(&id) else { return Ret::Missing };
                if revision.is_some_and(|revision| revision != row.revision) {
                    return Ret::Stale;
                }
                self.users.remove(&id);
                self.revision += 1;
                Ret::Deleted(self.revision)
            }
            Op::Get(id) => Ret::User(self.users.get(&id).cloned()),
            Op::Find(address) => Ret::User(self.owner(address).cloned()),
            Op::GetAll => Ret::Users((0..IDS).map(|id| self.users.get(&id).cloned()).collect()),
        }
    }
}
