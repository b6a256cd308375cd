//! What pages of other origins may do in a browser.

use bytes::Bytes;
use http::{Request, StatusCode};

use crate::support::{
    Server,
    grpc_client::framed,
    http::{ask, sum},
    web_client::{WebClient, Whole, post},
};

const GET_USER: &str = "/user.v1.UserService/GetUser";
const HERE: &str = "https://app.example.com";
const ELSEWHERE: &str = "https://evil.example.com";

fn started(origins: &str) -> (Server, WebClient) {
    let server = Server::start(&["--cors-allowed-origins", origins]);
    let client = WebClient::connect(server.grpc_addr);
    (server, client)
}

/// What a browser asks before a call of a page of this origin.
fn preflight(client: &WebClient, origin: &str) -> Whole {
    let request = Request::options(format!("http://test{GET_USER}"))
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,connect-protocol-version,content-type");
    client.ask(request.body(Bytes::new()).unwrap())
}

/// A call of a page of this origin.
fn call(client: &WebClient, origin: &str) -> Whole {
    client.ask(
        post(GET_USER, "application/json").header("origin", origin).body("{\"id\":\"a\"}".into()).unwrap(),
    )
}

#[test]
fn a_page_of_an_allowed_origin_may_call_and_read_the_answer() {
    let (server, client) = started("https://other.example.com, https://app.example.com");
    let asked = preflight(&client, HERE).with_status(StatusCode::NO_CONTENT);
    assert_eq!(asked.header("access-control-allow-origin"), Some(HERE));
    assert_eq!(asked.header("access-control-allow-methods"), Some("GET, POST"));
    assert_eq!(
        (asked.header("access-control-max-age"), asked.header("vary")),
        (Some("7200"), Some("origin"))
    );
    let allowed = asked.header("access-control-allow-headers").unwrap();
    for header in
        ["authorization", "content-type", "connect-protocol-version", "connect-timeout-ms", "x-grpc-web"]
    {
        assert!(allowed.split(", ").any(|allowed| allowed == header), "{header} in {allowed}");
    }
    let answer = call(&client, HERE).with_status(StatusCode::NOT_FOUND);
    assert_eq!(
        (answer.header("access-control-allow-origin"), answer.header("vary")),
        (Some(HERE), Some("origin"))
    );
    let web = post(GET_USER, "application/grpc-web").header("origin", HERE).body(framed(&[])).unwrap();
    let web = client.ask(web);
    let exposed = web.header("access-control-expose-headers").unwrap();
    for header in ["grpc-status", "grpc-message", "grpc-status-details-bin"] {
        assert!(web.headers.contains_key(header) && exposed.contains(header), "{header} in {exposed}");
    }
    for answer in [asked, answer, web] {
        assert!(answer.header("access-control-allow-credentials").is_none(), "{answer:?}");
    }
    // A question is no call.
    let page = ask(server.admin_addr, "GET /metrics").body;
    assert!((sum(&page, "user_service_protocol_calls_total", &[]) - 2.0).abs() < 0.5, "{page}");
}

#[test]
fn a_page_of_another_origin_is_kept_out() {
    let (_server, client) = started(HERE);
    for origin in [ELSEWHERE, "null", "https://app.example.com.evil.example", "http://app.example.com"] {
        let asked = preflight(&client, origin).with_status(StatusCode::FORBIDDEN);
        let answer = call(&client, origin);
        for answer in [asked, answer] {
            assert!(answer.header("access-control-allow-origin").is_none(), "{origin}: {answer:?}");
            assert_eq!(answer.header("vary"), Some("origin"));
        }
    }
}

#[test]
fn a_star_allows_every_origin_and_no_credentials() {
    let (_server, client) = started("*");
    for answer in [preflight(&client, ELSEWHERE), call(&client, ELSEWHERE)] {
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        assert!(answer.header("access-control-allow-credentials").is_none(), "{answer:?}");
    }
}

#[test]
fn without_the_setting_no_page_of_another_origin_may_call() {
    let (_server, client) = started("");
    let asked = preflight(&client, HERE).with_status(StatusCode::METHOD_NOT_ALLOWED);
    for answer in [asked, call(&client, HERE)] {
        assert!(answer.header("access-control-allow-origin").is_none(), "{answer:?}");
    }
}
