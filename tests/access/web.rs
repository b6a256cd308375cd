//! Who may call what in Connect and gRPC-Web: the same as in gRPC.

use bytes::Bytes;
use http::Request;
use serde_json::json;

use crate::{
    support::web_client::{WebClient, Whole, post},
    tokens::{Files, Key, claims, jwks},
};

const POLICY: &str = r#"
[roles.reader]
methods = ["user.v1.UserService/GetUser"]
[[grants]]
subjects = ["ada"]
roles = ["reader"]
"#;

#[test]
fn a_call_in_any_protocol_needs_the_rights_of_its_method() {
    let key = Key::ed("ed");
    let files = Files::new(&jwks(&[&key]), POLICY);
    let server = files.serve(&[]);
    let client = WebClient::connect(server.grpc_addr);
    let token = format!("Bearer {}", key.sign(&claims("ada", &json!({}))));
    let call = |method: &str, token: Option<&str>| {
        let request = post(&format!("/user.v1.UserService/{method}"), "application/json");
        let request =
            token.into_iter().fold(request, |request, token| request.header("authorization", token));
        client.ask(request.body("{\"id\":\"nobody\"}".into()).unwrap())
    };
    assert_eq!(call("GetUser", None).error(), (401, "unauthenticated".into(), "CREDENTIALS_MISSING".into()));
    assert_eq!(call("GetUser", Some("Bearer no")).error().2, "CREDENTIALS_REJECTED");
    assert_eq!(call("GetUser", Some(&token)).error().2, "USER_NOT_FOUND");
    assert_eq!(
        call("DeleteUser", Some(&token)).error(),
        (403, "permission_denied".into(), "NOT_PERMITTED".into())
    );
    let read = "http://test/user.v1.UserService/GetUser?encoding=json&message=%7B%7D";
    assert_eq!(client.ask(Request::get(read).body(Bytes::new()).unwrap()).error().0, 401);
    let web: Whole = client.post("/user.v1.UserService/GetUser", "application/grpc-web", &[0; 5][..]);
    assert_eq!((web.status, web.header("grpc-status")), (200, Some("16")));
}
