//! What calls know of their connection, so that streams end in good order when it is
//! to go away.

use std::{future, sync::Arc};

use tokio::sync::watch;

/// Why a connection is to go away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// It has reached its maximum age.
    Age,
    /// The server shuts down.
    Drain,
}

/// Tells the calls of one connection that it is to go away.
#[derive(Clone, Debug, Default)]
pub struct Farewells {
    /// Whose calls these are; 0 where nobody has numbered connections.
    pub connection: u64,
    said: Arc<watch::Sender<Option<Farewell>>>,
}

impl Farewells {
    /// Of the connection of this number.
    pub fn of(connection: u64) -> Self {
        Self { connection, ..Self::default() }
    }

    pub fn say(&self, farewell: Farewell) {
        self.said.send_replace(Some(farewell));
    }

    /// What a call hears it with.
    pub fn hear(&self) -> Leaving {
        Leaving(self.said.subscribe())
    }
}

/// A call's ear for its connection.
#[derive(Clone, Debug)]
pub struct Leaving(watch::Receiver<Option<Farewell>>);

impl Leaving {
    /// Resolves when the connection is to go away.
    pub async fn asked(&mut self) -> Farewell {
        if let Ok(said) = self.0.wait_for(Option::is_some).await
            && let Some(farewell) = *said
        {
            return farewell;
        }
        future::pending().await
    }
}
