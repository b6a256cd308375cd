//! Every method by every kind of identity about every kind of record, and what the policy
//! says of each.

mod expected;
mod requests;

use rcgen::SanType;
use tonic::Code;
use user_service::rpc::methods::{METHODS, Method};

use self::{
    expected::{About, POLICY, Who, expected},
    requests::request,
};
use crate::{
    caller::{Caller, Told},
    support::certificates::{self, Authority, Files as TlsFiles, Pair, dns, uri},
    tokens::{Files, Key, jwks},
};

fn named(name: &str) -> &'static Method {
    METHODS.iter().find(|method| method.full_name() == name).unwrap()
}

/// One identity as it calls.
struct Subject<'a> {
    name: &'a str,
    caller: &'a Caller,
    authorization: Option<String>,
    /// The id of the record that would be its own.
    id: String,
    /// Whose rights it has, and whether it has those to its own record.
    as_who: (Who, bool),
}

impl Subject<'_> {
    /// Every method about every record, and what was told otherwise than expected. `admin`
    /// makes the records.
    async fn calls(&self, admin: (&Caller, &str)) -> Vec<String> {
        let put = named("UserService/CreateUser");
        let (who, has_record) = self.as_who;
        let authorization: Vec<_> = self.authorization.iter().map(String::as_str).collect();
        let mut wrong = Vec::new();
        for method in &METHODS {
            for about in [About::Own, About::Other, About::OwnByEmail] {
                let id = if about == About::Other { "another-user" } else { &self.id };
                // It is there, so that what is permitted has something to do.
                let made = admin.0.call(put.path, &[admin.1], &request(put, id, false)).await;
                assert_eq!(made.code, Code::Ok, "{made:?}");
                let by_email = about == About::OwnByEmail;
                // Some requests have no address to name a record by.
                let about = match method.full_name() {
                    "user.v1.UserService/UpdateUser" | "user.v1.UserService/DeleteUser" if by_email => {
                        About::Own
                    }
                    _ => about,
                };
                let told =
                    self.caller.call(method.path, &authorization, &request(method, id, by_email)).await;
                let said = if told.code == Code::Ok { Ok(()) } else { Err(told.reason.as_str()) };
                if said != expected(method, who, has_record, about) {
                    wrong.push(format!("{} {} {about:?}: {told:?}", method.path, self.name));
                }
            }
        }
        wrong
    }
}

#[tokio::test]
async fn every_method_by_every_identity_is_what_the_policy_says() {
    let (key, other) = (Key::ec("now"), Key::ec("now"));
    let (files, tls) = (Files::new(&jwks(&[&key]), POLICY), TlsFiles::new());
    let admin = Who::Admin.authorization(&key, &other).unwrap();
    let mut wrong = Vec::new();
    for transport in ["plain text", "TLS"] {
        let flags = if transport == "TLS" { tls.tls() } else { Vec::new() };
        let server = files.serve(&flags.iter().map(String::as_str).collect::<Vec<_>>());
        let by_tls = async |pair: Option<&Pair>| {
            let config = certificates::client_config(&[&tls.authority], pair);
            Caller::connect_by_tls(server.grpc_addr, config).await.expect("no certificate is asked for")
        };
        let caller =
            if transport == "TLS" { by_tls(None).await } else { Caller::connect(server.grpc_addr).await };
        for who in Who::ALL {
            let name = format!("{who:?} by {transport}");
            let authorization = who.authorization(&key, &other);
            let subject = Subject {
                name: &name,
                caller: &caller,
                authorization,
                id: who.subject(),
                as_who: (who, true),
            };
            wrong.extend(subject.calls((&caller, &admin)).await);
        }
        if transport == "TLS" {
            // Nobody has verified it, so it is no identity.
            let name = "a certificate that is not asked for";
            let pair = tls.authority.issue(&certificates::named(&[uri("spiffe://test/admin")]));
            let unasked = by_tls(Some(&pair)).await;
            let (authorization, id) = (None, Who::Nobody.subject());
            let subject = Subject { name, caller: &unasked, authorization, id, as_who: (Who::Nobody, false) };
            wrong.extend(subject.calls((&caller, &admin)).await);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn every_method_by_every_certificate_is_what_the_policy_says() {
    let (key, other) = (Key::ec("now"), Key::ec("now"));
    let (files, tls) = (Files::new(&jwks(&[&key]), POLICY), TlsFiles::new());
    let token = |who: Who| who.authorization(&key, &other);
    let by_token = token(Who::Admin).unwrap();
    let admin_names = [uri("spiffe://test/admin")];
    let mut wrong = Vec::new();
    for client_auth in ["optional", "required"] {
        let mut flags = tls.mutual_tls();
        flags.extend(["--tls-client-auth", client_auth].map(String::from));
        let server = files.serve(&flags.iter().map(String::as_str).collect::<Vec<_>>());
        let connect = async |pair: Option<&Pair>| {
            let config = certificates::client_config(&[&tls.authority], pair);
            Caller::connect_by_tls(server.grpc_addr, config).await
        };
        let named = async |names: &[SanType]| {
            let pair = tls.authority.issue(&certificates::named(names));
            connect(Some(&pair)).await.expect("an authority vouches for it")
        };
        let admin = named(&admin_names).await;
        let reader = named(&[uri("spiffe://test/other"), dns("Reader.test")]).await;
        let stranger = named(&[dns("stranger")]).await;
        let nameless = named(&[]).await;
        let mut subjects = vec![
            ("a certificate without a name", &nameless, None, (Who::Nobody, false)),
            ("the admin's certificate", &admin, None, (Who::Admin, false)),
            ("the reader's certificate", &reader, None, (Who::Reader, false)),
            // Its name is that of a user, who it is not.
            ("another certificate", &stranger, None, (Who::Stranger, false)),
            ("a token over the admin's certificate", &admin, token(Who::Stranger), (Who::Stranger, true)),
            (
                "a bad token over the admin's certificate",
                &admin,
                token(Who::Impostor),
                (Who::Impostor, false),
            ),
            ("the admin's token over another certificate", &stranger, token(Who::Admin), (Who::Admin, true)),
            ("a reader's token over another certificate", &stranger, token(Who::Reader), (Who::Reader, true)),
        ];
        let bare = connect(None).await;
        assert_eq!(bare.is_some(), client_auth == "optional", "{client_auth}: no certificate");
        if let Some(bare) = &bare {
            subjects.push(("neither", bare, None, (Who::Nobody, false)));
            subjects.push(("a token without a certificate", bare, token(Who::Reader), (Who::Reader, true)));
        }
        for (name, caller, authorization, as_who) in subjects {
            let name = format!("{name}, {client_auth}");
            let subject = Subject { name: &name, caller, authorization, id: as_who.0.subject(), as_who };
            wrong.extend(subject.calls((&admin, &by_token)).await);
        }
        // Each makes no call at all, whatever token it has.
        for (name, pair) in [
            ("expired", tls.authority.issue(&certificates::expired(&admin_names))),
            ("self-signed", certificates::self_signed(&admin_names)),
            ("of another authority", Authority::new("authority").issue(&certificates::named(&admin_names))),
        ] {
            if connect(Some(&pair)).await.is_some() {
                wrong.push(format!("{client_auth}: a certificate {name} gets in"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_denial_does_not_say_whether_a_user_exists() {
    let key = Key::ed("now");
    let files = Files::new(&jwks(&[&key]), POLICY);
    let server = files.serve(&[]);
    let caller = Caller::connect(server.grpc_addr).await;
    let admin = Who::Admin.authorization(&key, &key).unwrap();
    let stranger = Who::Stranger.authorization(&key, &key).unwrap();
    let create = named("UserService/CreateUser");
    let made = caller.call(create.path, &[&admin], &request(create, "there", false)).await;
    assert_eq!(made.code, Code::Ok);
    for name in ["GetUser", "UpdateUser", "DeleteUser"] {
        let method = named(&format!("user.v1.UserService/{name}"));
        for by_email in [false, true] {
            let mut told: Vec<Told> = Vec::new();
            for id in ["there", "not-there"] {
                let message = request(method, id, by_email);
                told.push(caller.call(method.path, &[&stranger], &message).await);
            }
            assert_eq!(told[0].code, Code::PermissionDenied, "{name}");
            assert_eq!(told[0], told[1], "{name}, by address: {by_email}");
        }
    }
}

#[tokio::test]
async fn no_other_spelling_of_a_path_gets_past_the_rules() {
    let key = Key::ed("now");
    let files = Files::new(&jwks(&[&key]), POLICY);
    let server = files.serve(&[]);
    let list = named("user.v1.UserService/ListUsers");
    let message = request(list, "", false);
    let caller = Caller::connect(server.grpc_addr).await;
    for spelling in [
        "/user.v1.UserService/ListUsers/",
        "/user.v1.UserService/ListUsers?",
        "/user.v1.UserService/ListUsers?x=/grpc.health.v1.Health/Check",
        "//user.v1.UserService/ListUsers",
        "/user.v1.UserService//ListUsers",
        "/./user.v1.UserService/ListUsers",
        "/grpc.health.v1.Health/../user.v1.UserService/ListUsers",
        "/grpc.health.v1.Health/Check/../../user.v1.UserService/ListUsers",
        "/user.v1.UserService/%4cistUsers",
        "/user.v1.UserService%2fListUsers",
        "/user.v1.UserService/listusers",
        "/USER.V1.USERSERVICE/ListUsers",
        "/user.v1.UserService/ListUsers;health",
        "/user.v1.UserService/ListUsers%00",
    ] {
        let told = caller.call(spelling, &[], &message).await;
        assert_eq!(told.code, Code::Unimplemented, "{spelling}: {told:?}");
    }
    let told = caller.call(list.path, &[], &message).await;
    assert_eq!((told.code, &*told.reason), (Code::Unauthenticated, "CREDENTIALS_MISSING"));
    for verb in ["GET", "PUT", "OPTIONS"] {
        let request = http::Request::builder()
            .method(verb)
            .uri(format!("http://test{}", list.path))
            .header("content-type", "application/grpc");
        let told = caller.send(request.body(()).unwrap(), &message).await.unwrap();
        assert_ne!(told.code, Code::Ok, "{verb}: {told:?}");
    }
}

#[tokio::test]
async fn a_denied_call_is_answered_before_its_body_is_there() {
    let files = Files::new(&jwks(&[&Key::ed("now")]), POLICY);
    let server = files.serve(&[]);
    let stream = tokio::net::TcpStream::connect(server.grpc_addr).await.unwrap();
    let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
    drop(tokio::spawn(connection));
    let request = http::Request::post("http://test/user.v1.UserService/ImportUsers")
        .header("content-type", "application/grpc")
        .body(())
        .unwrap();
    let (answer, _unsent) = send.send_request(request, false).unwrap();
    let answer = tokio::time::timeout(crate::support::TEST_TIMEOUT, answer).await.unwrap().unwrap();
    assert_eq!(answer.headers()["grpc-status"], "16");
}
