//! Keys and policy that change while the service runs.

use std::{fs, path::Path, time::Duration};

use serde_json::json;
use tokio::time::{Instant, sleep};
use tonic::Code;

use crate::{
    caller::{Caller, bearer},
    support::{
        Server, TEST_TIMEOUT,
        http::{ask, value},
    },
    tokens::{Files, Key, claims, jwks},
    verification::{ANY_TOKEN, list},
};

/// Waits until a call with this token ends with a code.
pub async fn until(caller: &Caller, token: &str, code: Code) {
    let until = Instant::now() + TEST_TIMEOUT;
    loop {
        let told = list(caller, &[token]).await;
        if told.code == code {
            return;
        }
        assert!(Instant::now() < until, "still {told:?} instead of {code:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

pub fn metric(server: &Server, series: &str) -> u64 {
    let page = ask(server.admin_addr, "GET /metrics").body;
    value(&page, series).unwrap_or_else(|| panic!("no {series}"))
}

/// Replaces a file as a mounted volume does: in one step.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

#[tokio::test]
async fn keys_rotate_and_the_old_one_is_no_longer_taken() {
    let (old, new) = (Key::ec("old"), Key::ed("new"));
    let files = Files::new(&jwks(&[&old]), ANY_TOKEN);
    let mut server = files.serve(&[]);
    let caller = Caller::connect(server.grpc_addr).await;
    let [with_old, with_new] = [&old, &new].map(|key| bearer(&key.sign(&claims("ada", &json!({})))));
    assert_eq!(list(&caller, &[&with_old]).await.code, Code::Ok);
    assert_eq!(list(&caller, &[&with_new]).await.code, Code::Unauthenticated);
    replace(&files.keys(), &jwks(&[&old, &new]));
    until(&caller, &with_new, Code::Ok).await;
    assert_eq!(list(&caller, &[&with_old]).await.code, Code::Ok, "both, while tokens of the old one live");
    replace(&files.keys(), &jwks(&[&new]));
    until(&caller, &with_old, Code::Unauthenticated).await;
    assert_eq!(list(&caller, &[&with_new]).await.code, Code::Ok);
    server.wait_for_line("is in force");
}

#[tokio::test]
async fn a_set_of_keys_that_cannot_be_used_never_goes_live() {
    let key = Key::ec("ec");
    let files = Files::new(&jwks(&[&key]), ANY_TOKEN);
    let mut server = files.serve(&[]);
    let caller = Caller::connect(server.grpc_addr).await;
    let token = bearer(&key.sign(&claims("ada", &json!({}))));
    let mut private = key.public();
    private["d"] = json!("AAAA");
    let mut short = key.public();
    short["x"] = json!("AAAA");
    let mut no_curve_point = Key::rsa("rsa").public();
    no_curve_point.as_object_mut().unwrap().remove("n");
    let mut few_bits = Key::rsa("rsa").public();
    few_bits["n"] = json!("x".repeat(172));
    for (what, set) in [
        ("is not JSON", "{".to_owned()),
        ("has no list of keys", "{}".into()),
        ("has no key that can be used", json!({ "keys": [] }).to_string()),
        ("symmetric", json!({ "keys": [{ "kty": "oct", "k": "c2VjcmV0", "kid": "ec" }] }).to_string()),
        ("private", json!({ "keys": [private] }).to_string()),
        ("coordinate of 3 bytes", json!({ "keys": [key.public(), short] }).to_string()),
        ("lacks a member", json!({ "keys": [key.public(), no_curve_point] }).to_string()),
        ("less than 2048", json!({ "keys": [key.public(), few_bits] }).to_string()),
        ("another key has the same kid", jwks(&[&key, &Key::ed("ec")])),
        ("has more than 64 keys", json!({ "keys": vec![key.public(); 65] }).to_string()),
    ] {
        replace(&files.keys(), &set);
        let line = server.wait_for_line("cannot be used");
        assert!(line.contains(what) && line.contains("auth_jwks_file"), "{what}: {line}");
        assert_eq!(list(&caller, &[&token]).await.code, Code::Ok, "{what}: the old keys are in force");
        assert_eq!(metric(&server, "user_service_auth_file_stale{file=\"jwks\"}"), 1);
    }
    fs::remove_file(files.keys()).unwrap();
    let line = server.wait_for_line("cannot be used");
    assert!(line.contains("cannot be opened"), "{line}");
    assert_eq!(list(&caller, &[&token]).await.code, Code::Ok);
    replace(&files.keys(), &jwks(&[&key]));
    server.wait_for_line("is in force");
    assert_eq!(metric(&server, "user_service_auth_file_stale{file=\"jwks\"}"), 0);
    let refused = metric(&server, "user_service_auth_reloads_total{file=\"jwks\",outcome=\"refused\"}");
    assert_eq!(refused, 11);
}

#[tokio::test]
async fn keys_of_other_kinds_are_passed_over() {
    let key = Key::ec("ec");
    let (for_encryption, for_rs512) = (Key::rsa("enc"), Key::rsa("rs512"));
    let (mut encryption, mut rs512) = (for_encryption.public(), for_rs512.public());
    encryption["use"] = json!("enc");
    rs512["alg"] = json!("RS512");
    let set = json!({ "keys": [
        key.public(),
        encryption,
        rs512,
        { "kty": "EC", "crv": "secp256k1", "x": "AAAA", "y": "AAAA", "kid": "k1" },
        { "kty": "AKP", "alg": "ML-DSA-65", "pub": "AAAA", "kid": "pq" },
    ] });
    let files = Files::new(&set.to_string(), ANY_TOKEN);
    let server = files.serve(&[]);
    let caller = Caller::connect(server.grpc_addr).await;
    let of = |key: &Key| bearer(&key.sign(&claims("ada", &json!({}))));
    assert_eq!(list(&caller, &[&of(&key)]).await.code, Code::Ok);
    for other in [for_encryption, for_rs512] {
        assert_eq!(list(&caller, &[&of(&other)]).await.code, Code::Unauthenticated, "{}", other.id);
    }
}

#[tokio::test]
async fn a_policy_is_in_force_soon_after_it_changes_also_for_tokens_that_were_taken() {
    let key = Key::ec("ec");
    let files = Files::new(&jwks(&[&key]), ANY_TOKEN);
    let mut server = files.serve(&[]);
    let caller = Caller::connect(server.grpc_addr).await;
    let token = bearer(&key.sign(&claims("ada", &json!({}))));
    assert_eq!(list(&caller, &[&token]).await.code, Code::Ok);
    replace(&files.policy(), &ANY_TOKEN.replace("any_token = true", "subjects = [\"bob\"]"));
    until(&caller, &token, Code::PermissionDenied).await;
    replace(&files.policy(), ANY_TOKEN);
    until(&caller, &token, Code::Ok).await;
    for (what, policy) in [
        ("there is no method", ANY_TOKEN.replace("ListUsers", "ListEverybody")),
        ("there is no method", ANY_TOKEN.replace("user.v1.UserService/ListUsers", "UserService/GetUser")),
        ("there is no role", ANY_TOKEN.replace("roles = [\"lister\"]", "roles = [\"writer\"]")),
        ("whom it is for", ANY_TOKEN.replace("any_token = true", "")),
        ("self is no condition", ANY_TOKEN.replace("methods =", "self =")),
        (
            "there is no method",
            ANY_TOKEN.replace(
                "methods = [\"user.v1.UserService/ListUsers\"]",
                "self = [\"user.v1.UserService/*\"]",
            ),
        ),
        ("unknown field", ANY_TOKEN.replace("any_token", "anyone")),
        ("grants nothing", "grants = []\n[roles]\n".into()),
        ("is not a policy", String::new()),
        ("is not a policy", "roles = ".into()),
        ("names no role", ANY_TOKEN.replace("roles = [\"lister\"]", "roles = []")),
        ("has no method", ANY_TOKEN.replace("[\"user.v1.UserService/ListUsers\"]", "[]")),
    ] {
        replace(&files.policy(), &policy);
        let line = server.wait_for_line("cannot be used");
        assert!(line.contains(what) && line.contains("auth_policy_file"), "{what}: {line}");
        assert_eq!(list(&caller, &[&token]).await.code, Code::Ok, "{what}: the old policy is in force");
    }
}
