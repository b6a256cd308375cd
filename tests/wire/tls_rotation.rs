//! Certificates, keys and authorities that change while calls go on.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::symlink,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use rustls::ClientConfig;

use crate::{
    support::grpc_client::{GrpcClient, framed},
    support::{
        Server, TEST_TIMEOUT,
        certificates::{Authority, Pair, SERVER_NAME, client_config, dns, expired, named},
    },
    tls::{check, metric, shake, wait_for_metric},
};

const ROTATIONS: usize = 100;
const CLIENTS: usize = 4;
const BROKEN_SETS: usize = 20;
const LIVE: &str = "user_service_tls_reloads_total{outcome=\"live\"}";
const REFUSED: &str = "user_service_tls_reloads_total{outcome=\"refused\"}";

/// A volume as Kubernetes mounts a Secret: links to `..data`, which links to a folder.
struct Volume {
    folder: tempfile::TempDir,
    version: usize,
}

impl Volume {
    fn new(files: &[(&str, &str)]) -> Self {
        let mut volume = Self { folder: tempfile::tempdir().unwrap(), version: 0 };
        volume.swap(files);
        for (name, _) in files {
            symlink(Path::new("..data").join(name), volume.folder.path().join(name)).unwrap();
        }
        volume
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// Replaces every file by one rename.
    fn swap(&mut self, files: &[(&str, &str)]) {
        let folder = self.folder.path();
        self.version += 1;
        let version = format!("..{}", self.version);
        fs::create_dir(folder.join(&version)).unwrap();
        for (name, content) in files {
            fs::write(folder.join(&version).join(name), content).unwrap();
        }
        symlink(&version, folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
        if self.version > 1 {
            let _ = fs::remove_dir_all(folder.join(format!("..{}", self.version - 1)));
        }
    }
}

fn set<'a>(pair: &'a Pair, clients: &'a str) -> [(&'static str, &'a str); 3] {
    [("tls.crt", &pair.cert), ("tls.key", &pair.key), ("ca.crt", clients)]
}

fn server(volume: &Volume) -> Server {
    server_with(volume, &[])
}

fn server_with(volume: &Volume, more: &[&str]) -> Server {
    let (cert, key, ca) = (volume.path("tls.crt"), volume.path("tls.key"), volume.path("ca.crt"));
    let flags = [
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-client-ca-file",
        &ca,
        "--tls-reload-interval-ms",
        "100",
        "--call-log",
        "false",
    ];
    Server::start(&[&flags, more].concat())
}

/// Clients that connect anew for every few calls.
struct Load {
    /// The configuration of new connections, and its number.
    current: Mutex<(usize, ClientConfig)>,
    /// The number that each client has used last.
    used: Vec<AtomicUsize>,
    calls: AtomicUsize,
    failed: Mutex<Vec<String>>,
    over: AtomicBool,
}

impl Load {
    async fn run(self: Arc<Self>, server: SocketAddr, client: usize) {
        while !self.over.load(Relaxed) {
            let (number, config) = self.current.lock().unwrap().clone();
            self.used[client].store(number, Relaxed);
            if let Err(why) = self.connection(server, &config).await {
                self.failed.lock().unwrap().push(why);
            }
        }
    }

    async fn connection(&self, server: SocketAddr, config: &ClientConfig) -> Result<(), String> {
        let stream = shake(server, config).await.map_err(|error| error.to_string())?;
        let client = GrpcClient::over(stream).await.ok_or("the connection ended before SETTINGS")?;
        for _ in 0..3 {
            let answer = client.call(check(), framed(&[])).await.map_err(|lost| format!("{lost:?}"))?;
            if answer.code() != 0 {
                return Err(format!("{answer:?}"));
            }
            self.calls.fetch_add(1, Relaxed);
        }
        Ok(())
    }

    /// Gives every client another configuration, and waits until none uses an older one.
    async fn renew(&self, number: usize, config: ClientConfig) {
        *self.current.lock().unwrap() = (number, config);
        let until = Instant::now() + TEST_TIMEOUT;
        while self.used.iter().any(|used| used.load(Relaxed) < number) {
            assert!(Instant::now() < until, "a client hangs");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// The certificate that a new connection is shown.
async fn shown(server: &Server, config: &ClientConfig) -> Vec<u8> {
    let stream = shake(server.grpc_addr, config).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

fn wait_for_zero(server: &Server, series: &str) {
    let until = Instant::now() + TEST_TIMEOUT;
    while metric(server, series) > 0.0 {
        assert!(Instant::now() < until, "{series} is not 0");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A set that must not go live.
fn broken(number: usize, good: &Pair, other: &Authority) -> [(&'static str, String); 3] {
    let (cert, key, ca) = (good.cert.clone(), good.key.clone(), other.pem.clone());
    let half = |text: &str| text[..text.len() / 2].to_owned();
    let files = match number % 7 {
        0 => (cert, other.server().key, ca),
        1 => (half(&cert), key, ca),
        2 => (cert, half(&key), ca),
        3 => (cert, key, half(&ca)),
        4 => (String::new(), key, ca),
        5 => {
            let old = other.issue(&expired(&[dns(SERVER_NAME)]));
            (old.cert, old.key, ca)
        }
        _ => (cert, key, "no certificate".into()),
    };
    [("tls.crt", files.0), ("tls.key", files.1), ("ca.crt", files.2)]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_fails_in_rotations_of_all_files_and_no_broken_set_goes_live() {
    let authorities: Vec<_> =
        (0..=ROTATIONS).map(|number| Authority::new(&format!("authority {number}"))).collect();
    let trusted: Vec<_> = authorities.iter().collect();
    let first = authorities[0].server();
    let mut volume = Volume::new(&set(&first, &authorities[0].pem));
    let server = server(&volume);
    let mut config = client_config(&trusted, Some(&authorities[0].client()));
    let load = Arc::new(Load {
        current: Mutex::new((0, config.clone())),
        used: (0..CLIENTS).map(|_| AtomicUsize::new(0)).collect(),
        calls: AtomicUsize::new(0),
        failed: Mutex::default(),
        over: AtomicBool::new(false),
    });
    let clients: Vec<_> =
        (0..CLIENTS).map(|client| tokio::spawn(Arc::clone(&load).run(server.grpc_addr, client))).collect();
    for number in 1..=ROTATIONS {
        let pair = authorities[number].server();
        if number % (ROTATIONS / BROKEN_SETS) == 0 {
            let before = shown(&server, &config).await;
            let refused = metric(&server, REFUSED);
            let set = broken(number / (ROTATIONS / BROKEN_SETS), &pair, &authorities[number]);
            volume.swap(&set.each_ref().map(|(name, content)| (*name, content.as_str())));
            wait_for_metric(&server, REFUSED, refused + 1.0);
            assert!(metric(&server, "user_service_tls_files_refused") > 0.0);
            assert!(shown(&server, &config).await == before, "a broken set went live");
        }
        // The authority before stays until every client has a certificate of the new one.
        let overlap = format!("{}{}", authorities[number - 1].pem, authorities[number].pem);
        volume.swap(&set(&pair, &overlap));
        #[allow(clippy::cast_precision_loss, reason = "it is at most a hundred")]
        wait_for_metric(&server, LIVE, number as f64);
        assert!(metric(&server, "user_service_tls_files_refused") == 0.0);
        config = client_config(&trusted, Some(&authorities[number].client()));
        load.renew(number, config.clone()).await;
        assert!(shown(&server, &config).await == pair.der.to_vec(), "the old certificate is shown");
    }
    load.over.store(true, Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let failed = load.failed.lock().unwrap();
    let calls = load.calls.load(Relaxed);
    println!("{calls} calls over {ROTATIONS} rotations, {} failed", failed.len());
    assert!(failed.is_empty() && calls > ROTATIONS, "{} of {calls} calls failed: {failed:?}", failed.len());
    assert!(server.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_is_taken_away_lets_nobody_in_any_more() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let pair = old.server();
    let mut volume = Volume::new(&set(&pair, &old.pem));
    let server = server(&volume);
    let before = client_config(&[&old], Some(&old.client()));
    let client = GrpcClient::over(shake(server.grpc_addr, &before).await.unwrap()).await.unwrap();
    volume.swap(&set(&pair, &new.pem));
    wait_for_metric(&server, LIVE, 1.0);
    // A connection that is there goes on until its age.
    assert_eq!(client.call(check(), framed(&[])).await.unwrap().code(), 0);
    let refused = match shake(server.grpc_addr, &before).await {
        Ok(stream) => GrpcClient::over(stream).await.is_none(),
        Err(_) => true,
    };
    assert!(refused, "a client of the old authority is let in");
    let after = client_config(&[&old], Some(&new.issue(&named(&[dns("client.test")]))));
    let client = GrpcClient::over(shake(server.grpc_addr, &after).await.unwrap()).await.unwrap();
    assert_eq!(client.call(check(), framed(&[])).await.unwrap().code(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_changes_alone_is_refused_until_its_certificate_is_there() {
    let authority = Authority::new("authority");
    let (first, second) = (authority.server(), authority.server());
    let mut volume = Volume::new(&set(&first, &authority.pem));
    let server = server(&volume);
    let config = client_config(&[&authority], Some(&authority.client()));
    volume.swap(&[("tls.crt", &first.cert), ("tls.key", &second.key), ("ca.crt", &authority.pem)]);
    wait_for_metric(&server, REFUSED, 1.0);
    assert_eq!(shown(&server, &config).await, first.der.to_vec());
    volume.swap(&set(&second, &authority.pem));
    wait_for_metric(&server, LIVE, 1.0);
    assert_eq!(shown(&server, &config).await, second.der.to_vec());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_issuer_is_refused_and_one_of_the_issuer_goes_live() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let (first, second, third, foreign) = (ours.server(), ours.server(), other.server(), other.server());
    let files = |pair, issuer| [&set(pair, &ours.pem)[..], &[("issuer.crt", issuer)]].concat();
    let mut volume = Volume::new(&files(&first, &ours.pem));
    let mut server = server_with(&volume, &["--tls-issuer-ca-file", &volume.path("issuer.crt")]);
    let config = client_config(&[&ours, &other], Some(&ours.client()));
    for (number, pair, issuer) in [(1.0, &foreign, &ours), (2.0, &first, &other)] {
        volume.swap(&files(pair, &issuer.pem));
        wait_for_metric(&server, REFUSED, number);
        assert!(metric(&server, "user_service_tls_files_refused") > 0.0);
        assert_eq!(shown(&server, &config).await, first.der.to_vec());
        let line = server.wait_for_line("the TLS files have changed and are refused");
        assert!(line.contains("does not verify by the authorities") && line.contains("issuer.crt"), "{line}");
        volume.swap(&files(&first, &ours.pem));
        wait_for_zero(&server, "user_service_tls_files_refused");
    }
    // The issuer is read again as well, so both may be replaced together.
    for (number, pair, issuer) in [(1.0, &second, &ours), (2.0, &third, &other)] {
        volume.swap(&files(pair, &issuer.pem));
        wait_for_metric(&server, LIVE, number);
        assert_eq!(shown(&server, &config).await, pair.der.to_vec());
    }
    assert!(metric(&server, REFUSED) < 3.0);
    assert!(server.stop().success());
}
