//! Tokens that are not good, each refused for its own reason.

use prost::Message;
use serde_json::{Value, json};
use tonic::Code;
use user_service::proto::user::v1::ListUsersRequest;

use crate::{
    caller::{Caller, Told, bearer},
    support::{Server, TEST_TIMEOUT, http as plain},
    tokens::{AUDIENCE, Files, ISSUER, Key, claims, from_now, jwks, raw},
};

pub const LIST: &str = "/user.v1.UserService/ListUsers";

/// Every valid token may list.
pub const ANY_TOKEN: &str = r#"
[roles.lister]
methods = ["user.v1.UserService/ListUsers"]

[[grants]]
any_token = true
roles = ["lister"]
"#;

pub async fn list(caller: &Caller, authorization: &[&str]) -> Told {
    caller.call(LIST, authorization, &ListUsersRequest::default().encode_to_vec()).await
}

/// How many calls were denied for this reason.
fn denied(server: &Server, reason: &str) -> u64 {
    let page = plain::ask(server.admin_addr, "GET /metrics").body;
    let line = format!("user_service_denials_total{{reason=\"{reason}\"}} ");
    let value = page.lines().find_map(|found| found.strip_prefix(&line));
    value.unwrap_or_else(|| panic!("no {line}")).parse().unwrap()
}

struct Bench {
    server: Server,
    caller: Caller,
}

impl Bench {
    /// The token is refused for this reason, and the wire does not say for which.
    async fn refuses(&self, what: &str, reason: &str, authorization: &[&str]) {
        let before = denied(&self.server, reason);
        let told = list(&self.caller, authorization).await;
        assert_eq!(told.code, Code::Unauthenticated, "{what}: {told:?}");
        assert_eq!(told.reason, "CREDENTIALS_REJECTED", "{what}");
        assert_eq!(told.message, "the credentials are not valid", "{what}");
        assert_eq!(denied(&self.server, reason), before + 1, "{what} is denied as {reason}");
    }

    async fn takes(&self, what: &str, authorization: &str) {
        let told = list(&self.caller, &[authorization]).await;
        assert_eq!(told.code, Code::Ok, "{what}: {told:?}");
    }
}

async fn bench(keys: &[&Key], more: &[&str]) -> (Bench, Files) {
    let files = Files::new(&jwks(keys), ANY_TOKEN);
    let server = files.serve(more);
    let caller = Caller::connect(server.grpc_addr).await;
    (Bench { server, caller }, files)
}

#[tokio::test]
async fn tokens_of_each_kind_of_key_are_taken() {
    let keys = [Key::rsa("rsa"), Key::ec("ec"), Key::ed("ed")];
    let (bench, _files) = bench(&[&keys[0], &keys[1], &keys[2]], &[]).await;
    for key in &keys {
        let token = key.sign(&claims("ada", &json!({})));
        bench.takes(key.id, &bearer(&token)).await;
        bench.takes("from the cache", &bearer(&token)).await;
        bench.takes("a scheme in another case", &format!("bearer {token}")).await;
        let audiences = json!({ "aud": ["another-service", AUDIENCE] });
        bench.takes("one of two audiences", &bearer(&key.sign(&claims("ada", &audiences)))).await;
    }
}

#[tokio::test]
async fn a_token_with_any_fault_is_refused() {
    let (key, rsa, other) = (Key::ec("ec"), Key::rsa("rsa"), Key::ec("ec"));
    let (bench, _files) = bench(&[&key, &rsa], &["--auth-leeway-ms", "30000"]).await;
    let with = |changes: Value| bearer(&key.sign(&claims("ada", &changes)));
    bench.takes("a good one", &with(json!({}))).await;
    for (what, reason, changes) in [
        ("an expired one", "expired", json!({ "exp": from_now(-40) })),
        ("one of 1970", "expired", json!({ "exp": 0 })),
        ("an early one", "early", json!({ "nbf": from_now(60) })),
        ("one without an end", "claims", json!({ "exp": null })),
        ("one whose end is a text", "claims", json!({ "exp": from_now(600).to_string() })),
        ("one whose beginning is a text", "claims", json!({ "nbf": "now" })),
        ("one without a subject", "claims", json!({ "sub": null })),
        ("one with an empty subject", "claims", json!({ "sub": "" })),
        ("one with a number for a subject", "claims", json!({ "sub": 7 })),
        ("one with a subject of 256 bytes", "claims", json!({ "sub": "a".repeat(256) })),
        ("one with a line break in its subject", "claims", json!({ "sub": "a\nb" })),
        ("one of another issuer", "issuer", json!({ "iss": "https://other.example.test" })),
        ("one of an issuer with a slash more", "issuer", json!({ "iss": format!("{ISSUER}/") })),
        ("one without an issuer", "claims", json!({ "iss": null })),
        ("one of two issuers", "claims", json!({ "iss": [ISSUER, "https://other.example.test"] })),
        ("one for another service", "audience", json!({ "aud": "another-service" })),
        ("one for nobody", "claims", json!({ "aud": null })),
        ("one for other services", "audience", json!({ "aud": ["a", "b"] })),
    ] {
        bench.refuses(what, reason, &[&with(changes)]).await;
    }
    bench.takes("one that ended within the leeway", &with(json!({ "exp": from_now(-5) }))).await;
    bench.takes("one that begins within the leeway", &with(json!({ "nbf": from_now(10) }))).await;

    let good = claims("ada", &json!({}));
    bench.refuses("one of a key of the same name", "signature", &[&bearer(&other.sign(&good))]).await;
    let stranger = Key { id: "unknown", ..Key::ec("ec") };
    bench.refuses("one of an unknown key", "unknown_key", &[&bearer(&stranger.sign(&good))]).await;
    let nameless = jsonwebtoken::encode(&jsonwebtoken::Header::new(key.algorithm), &good, &key.private);
    bench.refuses("one that names no key of two", "unknown_key", &[&bearer(&nameless.unwrap())]).await;
    let posing = Key { id: "rsa", ..key };
    bench.refuses("one of the wrong key's kind", "algorithm", &[&bearer(&posing.sign(&good))]).await;
}

#[tokio::test]
async fn the_algorithm_comes_from_the_key_and_never_from_the_token() {
    let key = Key::rsa("rsa");
    let (bench, _files) = bench(&[&key], &[]).await;
    let good = claims("ada", &json!({}));
    for none in ["none", "None", "NONE", "nOnE"] {
        let unsigned = raw(&json!({ "alg": none, "kid": "rsa" }), &good, b"");
        bench.refuses("an unsigned one", "malformed", &[&bearer(&unsigned)]).await;
    }
    // The public key is public: a server that takes it for a secret lets everybody in.
    let public = key.public();
    for secret in [public["n"].as_str().unwrap().to_owned(), public.to_string()] {
        let secret = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes()).unwrap();
        let hmac = Key { id: "rsa", algorithm: jsonwebtoken::Algorithm::HS256, private: secret };
        bench.refuses("one signed with the public key", "algorithm", &[&bearer(&hmac.sign(&good))]).await;
    }
    for algorithm in [jsonwebtoken::Algorithm::RS384, jsonwebtoken::Algorithm::PS256] {
        let same = Key { id: "rsa", algorithm, private: key.private.clone() };
        bench.refuses("another algorithm of the key", "algorithm", &[&bearer(&same.sign(&good))]).await;
    }
    let token = key.sign(&good);
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let header = signed.split('.').next().unwrap();
    let admin = raw(&json!({}), &claims("admin", &json!({})), b"");
    let swapped = format!("{header}.{}.{signature}", admin.split('.').nth(1).unwrap());
    bench.refuses("one with other claims", "signature", &[&bearer(&swapped)]).await;
    bench.refuses("one without its signature", "signature", &[&bearer(&format!("{signed}."))]).await;
    // A key within the token is the sender's own.
    let mine = Key::rsa("mine");
    let header = json!({ "alg": "RS256", "jwk": mine.public() });
    let header: jsonwebtoken::Header = serde_json::from_value(header).unwrap();
    let own = jsonwebtoken::encode(&header, &good, &mine.private).unwrap();
    bench.refuses("one that brings its own key", "signature", &[&bearer(&own)]).await;
}

#[tokio::test]
async fn a_header_that_is_no_bearer_token_is_refused() {
    let key = Key::ed("ed");
    let (bench, _files) = bench(&[&key], &[]).await;
    let good = bearer(&key.sign(&claims("ada", &json!({}))));
    let other = bearer(&key.sign(&claims("bob", &json!({}))));
    bench.refuses("two of them", "malformed", &[&good, &other]).await;
    bench.refuses("the same one twice", "malformed", &[&good, &good]).await;
    bench.refuses("two in one header", "malformed", &[&format!("{good}, {other}")]).await;
    for (what, header) in [
        ("a password", "Basic YWRhOmFkYQ=="),
        ("nothing", ""),
        ("a scheme alone", "Bearer"),
        ("no token", "Bearer "),
        ("no scheme", good.strip_prefix("Bearer ").unwrap()),
        ("no JWT", "Bearer abc"),
        ("an empty JWT", "Bearer .."),
        ("four parts", &format!("{good}.x")),
        ("a good one of another scheme", &good.replace("Bearer", "DPoP")),
        ("two spaces", &good.replace(' ', "  ")),
        ("an encrypted one", "Bearer a.b.c.d.e"),
    ] {
        bench.refuses(what, "malformed", &[header]).await;
    }
    let long = key.sign(&claims("ada", &json!({ "padding": "x".repeat(9_000) })));
    bench.refuses("a long one", "too_large", &[&bearer(&long)]).await;
    bench.takes("a good one after all of these", &good).await;
}

#[tokio::test]
async fn a_token_of_64_kib_is_refused_with_its_headers() {
    let key = Key::ed("ed");
    let (bench, _files) = bench(&[&key], &[]).await;
    let long = bearer(&key.sign(&claims("ada", &json!({ "padding": "x".repeat(48 * 1_024) }))));
    assert!(long.len() > 64 * 1_024);
    let request = http::Request::post(format!("http://test{LIST}"))
        .header("content-type", "application/grpc")
        .header("authorization", &long);
    let told = bench.caller.send(request.body(()).unwrap(), &[]).await;
    assert!(
        told.is_err() || told.as_ref().unwrap().message == "HTTP 431 Request Header Fields Too Large",
        "{told:?}"
    );
    let caller = Caller::connect(bench.server.grpc_addr).await;
    let good = bearer(&key.sign(&claims("ada", &json!({}))));
    assert_eq!(list(&caller, &[&good]).await.code, Code::Ok, "others go on");
}

#[tokio::test]
async fn a_token_that_was_taken_ends_when_it_says() {
    let key = Key::ed("ed");
    let (bench, _files) = bench(&[&key], &["--auth-leeway-ms", "0"]).await;
    let token = bearer(&key.sign(&claims("ada", &json!({ "exp": from_now(6) }))));
    bench.takes("one of six seconds", &token).await;
    let until = tokio::time::Instant::now() + TEST_TIMEOUT;
    loop {
        let told = list(&bench.caller, &[&token]).await;
        if told.code != Code::Ok {
            assert_eq!(told.code, Code::Unauthenticated, "{told:?}");
            break;
        }
        assert!(tokio::time::Instant::now() < until, "the token never ends");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(denied(&bench.server, "expired") >= 1);
}
