//! Keeps one connection open, also while it is idle.

use std::{
    fs::File,
    future,
    path::PathBuf,
    pin::pin,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
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
        let mut work = pin!(work);
        tokio::select! {
            worked = &mut work => return worked.map(Some),
            () = drive => {}
        }
        // The server may have said why, to a statement, before it ended the connection.
        match work.now_or_never() {
            Some(worked) => worked.map(Some),
            None if began.load(Ordering::Relaxed) => Ok(None),
            None => Err(ConnectError::Closed),
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

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// A message of the server's, of this type.
    fn message(kind: u8, contents: &[u8]) -> Vec<u8> {
        let length = u32::try_from(4 + contents.len()).unwrap().to_be_bytes();
        [&[kind], &length[..], contents].concat()
    }

    #[tokio::test]
    async fn what_a_server_says_before_it_ends_the_connection_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url =
            PostgresUrl::parse(&format!("postgres://me@127.0.0.1:{port}/users?sslmode=disable")).unwrap();
        let connector = Connector::new(&url, &Config::default()).unwrap().without_statements();
        let server = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut asked = [0; 1_024];
            assert!(socket.read(&mut asked).await.unwrap() > 0);
            let ready = [message(b'R', &[0; 4]), message(b'Z', b"I")].concat();
            socket.write_all(&ready).await.unwrap();
            assert!(socket.read(&mut asked).await.unwrap() > 0);
            let writes = [
                message(b'T', b"\0\x01read_only\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0"),
                message(b'D', b"\0\x01\0\0\0\x03off"),
                message(b'C', b"SHOW\0"),
                message(b'Z', b"I"),
            ];
            socket.write_all(&writes.concat()).await.unwrap();
            assert!(socket.read(&mut asked).await.unwrap() > 0);
            // And ends it, before the client has read this.
            let fault = message(b'E', b"SFATAL\0VFATAL\0C08P01\0Mnot here\0\0");
            socket.write_all(&fault).await.unwrap();
        };
        let (told, ()) = tokio::join!(connector.with(|_| future::ready(())), server);
        let told = told.unwrap_err().to_string();
        assert!(told.contains("not here (08P01)"), "{told}");
    }
}
