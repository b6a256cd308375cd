//! What a policy makes of claims and of certificates. Tokens and files are asked from
//! outside (`tests/access`).

use serde_json::{Value, json};

use super::{policy::Policy, rules::Rights};
use crate::rpc::peer::PeerIdentity;

/// A policy with one role that may list, and this grant of it.
fn policy(grant: &str) -> Result<Policy, String> {
    Policy::parse(&format!(
        "[roles.lister]\nmethods = [\"user.v1.UserService/ListUsers\"]\n[[grants]]\nroles = [\"lister\"]\n{grant}"
    ))
}

fn has_role(grant: &str, subject: &str, claims: &Value) -> bool {
    policy(grant).unwrap().rights_of_token(subject, claims.as_object().unwrap()) != Rights::default()
}

#[test]
fn claims_are_texts_lists_of_texts_and_scopes() {
    let groups = r#"claims = { groups = ["a", "b"] }"#;
    for (claims, expected) in [
        (json!({ "groups": "a" }), true),
        (json!({ "groups": ["x", "b"] }), true),
        (json!({ "groups": ["x"] }), false),
        (json!({ "groups": "a b" }), false),
        (json!({ "groups": ["aa"] }), false),
        (json!({ "groups": [["a"]] }), false),
        (json!({ "groups": { "a": true } }), false),
        (json!({ "groups": null }), false),
        (json!({ "groups": true }), false),
        (json!({}), false),
    ] {
        assert_eq!(has_role(groups, "ada", &claims), expected, "{claims}");
    }
    for name in ["scope", "scp"] {
        let scope = format!(r#"claims = {{ {name} = ["users:list"] }}"#);
        assert!(has_role(&scope, "ada", &json!({ name: "openid users:list" })));
        assert!(!has_role(&scope, "ada", &json!({ name: "users:list-all" })));
        assert!(!has_role(&scope, "ada", &json!({ name: "" })));
    }
}

#[test]
fn a_claim_within_a_claim_is_found_and_one_with_a_dot_in_its_name_too() {
    let nested = r#"claims = { "realm_access.roles" = ["a"] }"#;
    assert!(has_role(nested, "ada", &json!({ "realm_access": { "roles": ["a"] } })));
    assert!(has_role(nested, "ada", &json!({ "realm_access.roles": "a" })));
    assert!(!has_role(nested, "ada", &json!({ "realm_access": ["roles"] })));
    let url = r#"claims = { "https://example.test/roles" = ["a"] }"#;
    assert!(has_role(url, "ada", &json!({ "https://example.test/roles": ["a"] })));
}

#[test]
fn every_condition_of_a_grant_must_hold() {
    let both = "subjects = [\"ada\"]\nclaims = { groups = [\"a\"], team = [\"t\"] }";
    let claims = json!({ "groups": ["a"], "team": "t" });
    assert!(has_role(both, "ada", &claims));
    assert!(!has_role(both, "bob", &claims));
    assert!(!has_role(both, "ada", &json!({ "groups": ["a"] })));
}

#[test]
fn a_grant_is_for_each_of_its_subjects() {
    let two = "subjects = [\"ada\", \"bob\"]";
    for (subject, expected) in [("ada", true), ("bob", true), ("eve", false)] {
        assert_eq!(has_role(two, subject, &json!({})), expected, "{subject}");
    }
}

#[test]
fn a_certificate_has_the_roles_of_each_of_its_names_and_never_those_of_a_subject() {
    let policy = policy("certificates = [\"spiffe://example.test/shop\", \"billing.example.test\"]").unwrap();
    let rights = |uri: Option<&'static str>, dns: Option<&'static str>| {
        policy.rights_of_peer(&PeerIdentity::new(uri, dns).unwrap()) != Rights::default()
    };
    assert!(rights(Some("spiffe://example.test/shop"), None));
    assert!(rights(Some("spiffe://example.test/other"), Some("billing.example.test")));
    assert!(rights(None, Some("BILLING.example.test")));
    assert!(!rights(Some("spiffe://example.test/shop/more"), Some("other.example.test")));
    let subject = self::policy("subjects = [\"billing\"]").unwrap();
    let peer = PeerIdentity::new(None, Some("billing")).unwrap();
    assert_eq!(subject.rights_of_peer(&peer), Rights::default());
}

#[test]
fn a_grant_is_for_tokens_or_for_certificates() {
    for (grant, says) in [
        ("subjects = [\"a\"]\ncertificates = [\"b\"]", "make two grants of it"),
        ("any_token = true\nsubjects = [\"a\"]", "meaningless"),
        ("claims = { groups = [] }", "no value"),
        ("any_token = false", "whom it is for"),
    ] {
        let refused = policy(grant).unwrap_err();
        assert!(refused.contains("grant 1") && refused.contains(says), "{grant}: {refused}");
    }
}
