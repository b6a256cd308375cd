//! Keeps one connection open, also while it is idle.

use std::{
    fs::File,
    future,
    path::PathBuf,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::{task::AbortHandle, time};
use tokio_postgres::{AsyncMessage, Connection, NoTls, error::Severity, tls::TlsStream};

use super::{
    connect_error::ConnectError,
    session::{Lasting, Session},
    tls,
};
use crate::{
    config::{Config, PostgresUrl},
    domain::Error,
    store::metrics::ConnectionMetrics,
    util::{backoff::Backoff, bounded_file},
};

/// How long after a failure a connection is tried again: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(1);

pub(super) const DISCONNECTED: Error = Error::Unavailable("the database cannot be reached");

/// Where connections go, and how.
#[derive(Clone)]
pub(super) struct Connector {
    server: tokio_postgres::Config,
    tls: tls::TlsSource,
    password_file: Option<PathBuf>,
    lasting: Arc<Lasting>,
    /// How long opening one, or one statement, may take.
    pub limit: Duration,
}

impl Connector {
    pub fn new(url: &PostgresUrl, config: &Config) -> Result<Self, String> {
        let mut server = url.server.clone();
        let limit = config.store_timeout;
        server.connect_timeout(url.server.get_connect_timeout().map_or(limit, |given| limit.min(*given)));
        server.tcp_user_timeout(url.server.get_tcp_user_timeout().map_or(limit, |given| limit.min(*given)));
        let tls = tls::TlsSource::new(url, config);
        // A mistake is told before the database is asked for anything.
        tls.connector()?;
        Ok(Self {
            server,
            tls,
            password_file: config.store_password_file.path().map(Into::into),
            lasting: Lasting::new(config.store_prepared_statements),
            limit,
        })
    }

    /// The same for a database that may not have the tables yet.
    pub fn without_statements(&self) -> Self {
        Self { lasting: Lasting::new(false), ..self.clone() }
    }

    /// Opens a connection, gives it to `use_it`, and keeps it going until that or
    /// the connection ends: `None` in the latter case.
    pub async fn with<T, F: Future<Output = T>>(
        &self,
        use_it: impl FnOnce(Arc<Session>) -> F,
    ) -> Result<Option<T>, ConnectError> {
        let mut server = self.server.clone();
        if let Some(path) = &self.password_file {
            // Read for each connection, because passwords change.
            let password = File::open(path)
                .and_then(bounded_file::text)
                .map_err(|source| ConnectError::Password { path: path.clone(), source })?;
            // Editors add a line end.
            server.password(password.trim_end_matches(['\r', '\n']));
        }
        let tls = self.tls.connector().map_err(ConnectError::Certificates)?;
        let connecting = async {
            Ok::<_, ConnectError>(if let Some(tls) = tls {
                let (client, connection) = server.connect(tls).await?;
                (client, Either::Tls(connection))
            } else {
                let (client, connection) = server.connect(NoTls).await?;
                (client, Either::Plain(connection))
            })
        };
        let (client, connection) =
            time::timeout(self.limit, connecting).await.map_err(|_| ConnectError::Timeout)??;
        let warned = Arc::<AtomicBool>::default();
        let began = AtomicBool::new(false);
        let work = async {
            let session = Session::new(client, Arc::clone(&self.lasting), self.limit, Arc::clone(&warned));
            let session = time::timeout(self.limit, session).await.map_err(|_| ConnectError::Timeout)??;
            began.store(true, Ordering::Relaxed);
            Ok(use_it(Arc::new(session)).await)
        };
        let drive = async {
            match connection {
                Either::Tls(connection) => drive(connection, &warned).await,
                Either::Plain(connection) => drive(connection, &warned).await,
            }
        };
        tokio::select! {
            worked = work => worked.map(Some),
            () = drive => if began.load(Ordering::Relaxed) { Ok(None) } else { Err(ConnectError::Closed) },
        }
    }
}

enum Either<A, B> {
    Tls(A),
    Plain(B),
}

/// Drives a connection's I/O until it ends.
pub(super) async fn drive<S, T>(mut connection: Connection<S, T>, warned: &AtomicBool)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: TlsStream + Unpin,
{
    while let Some(Ok(message)) = future::poll_fn(|cx| connection.poll_message(cx)).await {
        // Seen before the answer that comes behind it.
        if let AsyncMessage::Notice(notice) = message
            && notice.parsed_severity() == Some(Severity::Warning)
        {
            tracing::warn!(code = notice.code().code(), "the database warns");
            warned.store(true, Ordering::Release);
        }
    }
}

/// A place where a connection is, most of the time.
pub(super) struct ReconnectingSession {
    session: Arc<RwLock<Option<Arc<Session>>>>,
    keeper: AbortHandle,
}

impl ReconnectingSession {
    /// Begins to keep a connection open. Belongs on the runtime that is to drive it.
    pub fn keep(connector: Arc<Connector>, purpose: &'static str) -> Self {
        let session = Arc::default();
        let keeper = tokio::spawn(keep(connector, Arc::clone(&session), ConnectionMetrics::new(purpose)))
            .abort_handle();
        Self { session, keeper }
    }

    /// A place that a simulation keeps a connection in.
    #[cfg(test)]
    pub fn simulated(session: Arc<RwLock<Option<Arc<Session>>>>) -> Self {
        Self { session, keeper: tokio::spawn(async {}).abort_handle() }
    }

    /// The connection, if there is one right now.
    pub fn session(&self) -> Option<Arc<Session>> {
        let session = self.session.read().unwrap_or_else(PoisonError::into_inner).clone();
        session.filter(|session| session.is_usable())
    }

    pub fn close(&self) {
        self.keeper.abort();
        set(&self.session, None);
    }
}

impl Drop for ReconnectingSession {
    fn drop(&mut self) {
        self.close();
    }
}

fn set(slot: &RwLock<Option<Arc<Session>>>, session: Option<Arc<Session>>) {
    *slot.write().unwrap_or_else(PoisonError::into_inner) = session;
}

async fn keep(
    connector: Arc<Connector>,
    slot: Arc<RwLock<Option<Arc<Session>>>>,
    metrics: ConnectionMetrics,
) {
    let mut backoff = Backoff::new(FIRST_PAUSE, MAX_PAUSE);
    let mut said = false;
    loop {
        let mut connected = false;
        let ended = connector
            .with(|session| {
                connected = true;
                metrics.connected.increment(1);
                let open = metrics.opened();
                set(&slot, Some(Arc::clone(&session)));
                let limit = connector.limit;
                async move {
                    let _open = open;
                    session.wait_until_broken(limit).await;
                }
            })
            .await;
        set(&slot, None);
        if connected {
            backoff.reset();
            said = false;
        } else {
            metrics.failed.increment(1);
        }
        if let Err(fault) = ended
            && !said
        {
            said = true;
            tracing::warn!(error = %fault, "the database cannot be reached; trying on");
        }
        time::sleep(backoff.next_pause()).await;
    }
}
