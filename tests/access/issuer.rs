//! Keys that an issuer serves by a URL.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use rustls::{ServerConfig, ServerConnection, StreamOwned, pki_types::CertificateDer};
use serde_json::json;
use tonic::Code;
use user_service::tls;

use crate::{
    caller::{Caller, bearer},
    reloads::{metric, until},
    settings::refused,
    support::{Server, TEST_TIMEOUT, certificates::Files as TlsFiles, free_port},
    tokens::{AUDIENCE, Files, ISSUER, Key, claims, jwks},
    verification::{ANY_TOKEN, list},
};

/// The interval with which tokens of unknown keys make one request each second.
const QUICK_MS: &str = "30000";

/// A web server with one page.
struct Issuer {
    addr: SocketAddr,
    page: Arc<Mutex<Page>>,
}

/// What is answered; and how often it was.
struct Page {
    answer: String,
    asked: usize,
}

impl Issuer {
    fn serve(answer: String, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let page = Arc::new(Mutex::new(Page { answer, asked: 0 }));
        let shared = Arc::clone(&page);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // A client may leave early, or refuse the certificate.
                let _ = match &tls {
                    None => Self::answer(stream, &shared),
                    Some(config) => {
                        let connection = ServerConnection::new(Arc::clone(config)).unwrap();
                        Self::answer(StreamOwned::new(connection, stream), &shared)
                    }
                };
            }
        });
        Self { addr, page }
    }

    fn answer(mut stream: impl Read + Write, page: &Mutex<Page>) -> std::io::Result<()> {
        read_head(&mut stream)?;
        let answer = {
            let mut page = page.lock().unwrap();
            page.asked += 1;
            page.answer.clone()
        };
        stream.write_all(answer.as_bytes())?;
        stream.flush()
    }

    fn answers(&self, answer: String) {
        self.page.lock().unwrap().answer = answer;
    }

    fn asked(&self) -> usize {
        self.page.lock().unwrap().asked
    }

    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://localhost:{}/jwks", self.addr.port())
    }
}

/// Reads a request, which has no body.
fn read_head(stream: &mut impl Read) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(())
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// The flags of a server that takes the keys of this URL.
fn flags(files: &Files, url: &str) -> Vec<String> {
    let policy = files.policy().display().to_string();
    [
        "--auth-jwks-url",
        url,
        "--auth-policy-file",
        &policy,
        "--auth-issuer",
        ISSUER,
        "--auth-audience",
        AUDIENCE,
    ]
    .map(str::to_owned)
    .to_vec()
}

/// An issuer with this key, a server that asks it so often, and a caller of that server.
async fn served(files: &Files, key: &Key, refresh_ms: &str) -> (Issuer, Server, Caller) {
    let issuer = Issuer::serve(ok(&jwks(&[key])), None);
    let mut flags = flags(files, &issuer.url("http"));
    flags.extend(["--auth-jwks-refresh-ms", refresh_ms].map(String::from));
    let server = Server::start_with(&flags);
    let caller = Caller::connect(server.grpc_addr).await;
    (issuer, server, caller)
}

fn token(key: &Key) -> String {
    bearer(&key.sign(&claims("ada", &json!({}))))
}

#[tokio::test]
async fn keys_of_a_url_rotate_when_a_token_names_a_new_one() {
    let (old, new) = (Key::ec("old"), Key::ed("new"));
    let files = Files::new("", ANY_TOKEN);
    let (issuer, _server, caller) = served(&files, &old, QUICK_MS).await;
    assert_eq!(issuer.asked(), 1, "at the start");
    assert_eq!(list(&caller, &[&token(&old)]).await.code, Code::Ok);
    issuer.answers(ok(&jwks(&[&new])));
    until(&caller, &token(&new), Code::Ok).await;
    assert_eq!(list(&caller, &[&token(&old)]).await.code, Code::Unauthenticated, "its key is gone");
}

#[tokio::test]
async fn tokens_of_unknown_keys_have_the_issuer_asked_at_a_limited_rate() {
    let (known, unknown) = (Key::ec("known"), Key::ec("unknown"));
    let files = Files::new("", ANY_TOKEN);
    let (issuer, _server, caller) = served(&files, &known, QUICK_MS).await;
    let (began, with_unknown) = (Instant::now(), token(&unknown));
    let mut calls = 0;
    while issuer.asked() < 4 {
        assert!(began.elapsed() < TEST_TIMEOUT, "asked {} times only", issuer.asked());
        assert_eq!(list(&caller, &[&with_unknown]).await.code, Code::Unauthenticated);
        calls += 1;
    }
    // Three times after the start, a second or more apart.
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?} for {calls} calls", began.elapsed());
    assert!(calls > 20, "{calls} calls");
    assert_eq!(list(&caller, &[&token(&known)]).await.code, Code::Ok);
}

#[tokio::test]
async fn the_last_good_keys_stay_whatever_the_issuer_answers() {
    let key = Key::ec("ec");
    let files = Files::new("", ANY_TOKEN);
    let (issuer, mut server, caller) = served(&files, &key, "1000").await;
    let other = Issuer::serve(ok(&jwks(&[&Key::ec("ec")])), None);
    let token = token(&key);
    let redirect =
        format!("HTTP/1.1 302 Found\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n", other.url("http"));
    for (answer, says) in [
        ("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n".to_owned(), "503"),
        (redirect, "302"),
        (ok(&"a".repeat(2 << 20)), "larger than 1 MiB"),
        (ok("{}"), "has no list of keys"),
        ("no HTTP".into(), "cannot be fetched"),
    ] {
        issuer.answers(answer);
        let line = server.wait_for_line(says);
        assert!(line.contains("auth_jwks_url") && line.contains("cannot be used"), "{line}");
        assert_eq!(metric(&server, "user_service_auth_file_stale{file=\"jwks\"}"), 1, "{says}");
        assert_eq!(list(&caller, &[&token]).await.code, Code::Ok, "{says}");
    }
    assert_eq!(other.asked(), 0, "a redirect was followed");
    issuer.answers(ok(&jwks(&[&key])));
    server.wait_for_line("is in force");
    assert_eq!(metric(&server, "user_service_auth_file_stale{file=\"jwks\"}"), 0);
}

#[tokio::test]
async fn a_url_of_another_machine_needs_https_and_an_authority_that_is_known() {
    let key = Key::ec("ec");
    let (files, tls_files) = (Files::new("", ANY_TOKEN), TlsFiles::new());
    let pair = tls_files.authority.server();
    let config = ServerConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from(pair.der.to_vec())],
            tls::private_key(pair.key.as_bytes()).unwrap(),
        )
        .unwrap();
    let issuer = Issuer::serve(ok(&jwks(&[&key])), Some(Arc::new(config)));
    let unknown_authority = flags(&files, &issuer.url("https"));
    let known =
        [unknown_authority.clone(), vec!["--auth-jwks-ca-file".into(), tls_files.path("ca.pem")]].concat();
    let server = Server::start_with(&known);
    let caller = Caller::connect(server.grpc_addr).await;
    assert_eq!(list(&caller, &[&token(&key)]).await.code, Code::Ok);

    let gone = free_port();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_url = format!("http://{}/jwks", silent.local_addr().unwrap());
    let both = [files.arguments(), vec!["--auth-jwks-url".into(), issuer.url("https")]].concat();
    for (arguments, code, says) in [
        (unknown_authority, 1, "auth_jwks_url"),
        (flags(&files, &format!("http://127.0.0.1:{gone}/jwks")), 1, "cannot be fetched"),
        (flags(&files, &silent_url), 1, "cannot be fetched"),
        (flags(&files, "http://issuer.example.test/jwks"), 64, "an https URL"),
        (both, 64, "exclude each other"),
    ] {
        let (ended, said) = refused(&arguments);
        assert_eq!(ended, Some(code), "{arguments:?}: {said}");
        assert!(said.contains(says), "{arguments:?}: {said}");
    }
    assert!(TcpStream::connect(silent.local_addr().unwrap()).is_ok(), "it has listened all the time");
}

#[test]
fn an_answer_that_crawls_is_not_waited_for() {
    let files = Files::new("", ANY_TOKEN);
    let crawling = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/jwks", crawling.local_addr().unwrap());
    thread::spawn(move || {
        for mut stream in crawling.incoming().map_while(Result::ok) {
            // No client expects an answer ahead of its request.
            let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n";
            let mut sent = read_head(&mut stream).and_then(|()| stream.write_all(head));
            // Each byte comes in time, until the client has had enough.
            while sent.is_ok() {
                thread::sleep(Duration::from_millis(100));
                sent = stream.write_all(b" ");
            }
        }
    });
    let (code, said) = refused(&flags(&files, &url));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("it takes too long"), "{said}");
}

#[test]
fn a_proxy_of_the_environment_is_not_asked_for_the_keys_of_this_machine() {
    let files = Files::new("", ANY_TOKEN);
    let issuer = Issuer::serve(ok(&jwks(&[&Key::ec("ec")])), None);
    let mut command = Command::new(env!("CARGO_BIN_EXE_user-service"));
    command.args(["--store-url", "memory:"]).args(flags(&files, &issuer.url("http")));
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    command.env("HTTP_PROXY", &nowhere).env("http_proxy", &nowhere);
    drop(Server::spawn(command));
    assert_eq!(issuer.asked(), 1);
}

#[tokio::test]
async fn after_a_failure_the_issuer_is_asked_again_soon_and_no_token_is_needed() {
    let (old, new) = (Key::ec("old"), Key::ed("new"));
    let files = Files::new("", ANY_TOKEN);
    // Soon is 1.5 seconds, and otherwise the test would end first.
    let (issuer, mut server, caller) = served(&files, &old, "45000").await;
    issuer.answers("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n".into());
    assert_eq!(list(&caller, &[&token(&new)]).await.code, Code::Unauthenticated);
    server.wait_for_line("503");
    issuer.answers(ok(&jwks(&[&new])));
    server.wait_for_line("is in force");
    assert_eq!(list(&caller, &[&token(&new)]).await.code, Code::Ok);
}
