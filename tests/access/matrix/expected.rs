//! Who may call what: the policy, and what it says of each call, written by hand.

use serde_json::json;
use user_service::rpc::methods::{Api, Method};

use crate::{
    caller::bearer,
    tokens::{Key, claims},
};

pub const POLICY: &str = r#"
[roles.owner]
self = [
    "user.v1.UserService/GetUser",
    "user.v1.UserService/UpdateUser",
    "user.v1.UserService/DeleteUser",
]

[roles.reader]
methods = [
    "user.v1.UserService/GetUser",
    "user.v1.UserService/BatchGetUsers",
    "user.v1.UserService/ListUsers",
    "user.v1.UserService/WatchUsers",
]

[roles.creator]
methods = ["user.v1.UserService/CreateUser"]

[roles.updater]
methods = ["user.v1.UserService/UpdateUser"]

[roles.admin]
methods = ["user.v1.UserService/*"]

[roles.explorer]
methods = ["grpc.reflection.v1.ServerReflection/ServerReflectionInfo"]

[[grants]]
any_token = true
roles = ["owner"]

[[grants]]
subjects = ["reader"]
roles = ["reader"]

[[grants]]
claims = { scope = ["users:create"] }
roles = ["creator"]

[[grants]]
claims = { "realm_access.roles" = ["editor"] }
roles = ["creator", "updater"]

[[grants]]
claims = { groups = ["admins"] }
roles = ["admin"]

[[grants]]
claims = { groups = ["developers"] }
roles = ["explorer"]

[[grants]]
certificates = ["spiffe://test/admin"]
roles = ["admin"]

[[grants]]
certificates = ["reader.test"]
roles = ["reader"]
"#;

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Nobody,
    /// With a token of a key that the server does not have.
    Impostor,
    /// With a good token, and no role but that over the own record.
    Stranger,
    Reader,
    Creator,
    Editor,
    Admin,
    Developer,
}

impl Who {
    pub const ALL: [Self; 8] = [
        Self::Nobody,
        Self::Impostor,
        Self::Stranger,
        Self::Reader,
        Self::Creator,
        Self::Editor,
        Self::Admin,
        Self::Developer,
    ];

    /// The subject, which is the id of the caller's own record.
    pub fn subject(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    pub fn authorization(self, key: &Key, other: &Key) -> Option<String> {
        let of = |key: &Key, changes| Some(bearer(&key.sign(&claims(&self.subject(), &changes))));
        match self {
            Self::Nobody => None,
            Self::Impostor => of(other, json!({ "groups": ["admins", "developers"] })),
            Self::Stranger | Self::Reader => of(key, json!({ "groups": ["none"] })),
            Self::Creator => of(key, json!({ "scope": "users:read users:create" })),
            Self::Editor => of(key, json!({ "realm_access": { "roles": ["editor"] } })),
            Self::Admin => of(key, json!({ "groups": ["staff", "admins"] })),
            Self::Developer => of(key, json!({ "groups": "developers" })),
        }
    }
}

/// Which record a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    Own,
    Other,
    /// The own one, by its address: what it is, is known only once it was read.
    OwnByEmail,
}

/// What the policy above says, written down once more and by hand.
pub fn expected(method: &Method, who: Who, has_record: bool, about: About) -> Result<(), &'static str> {
    use Who::{Admin, Creator, Developer, Editor, Impostor, Nobody, Reader};
    if method.api == Api::Health {
        return Ok(());
    }
    match who {
        Nobody => return Err("CREDENTIALS_MISSING"),
        Impostor => return Err("CREDENTIALS_REJECTED"),
        _ => {}
    }
    let own = has_record && about == About::Own;
    let permitted = match method.full_name() {
        "user.v1.UserService/GetUser" | "UserService/GetUser" => own || [Reader, Admin].contains(&who),
        "user.v1.UserService/UpdateUser" => own || [Editor, Admin].contains(&who),
        "user.v1.UserService/DeleteUser" => own || who == Admin,
        "user.v1.UserService/CreateUser" => [Creator, Editor, Admin].contains(&who),
        "UserService/CreateUser" => [Editor, Admin].contains(&who),
        "user.v1.UserService/BatchGetUsers"
        | "user.v1.UserService/ListUsers"
        | "user.v1.UserService/WatchUsers" => [Reader, Admin].contains(&who),
        "user.v1.UserService/ImportUsers" => who == Admin,
        "grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
        | "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo" => who == Developer,
        other => panic!("say here who may call {other}"),
    };
    if permitted { Ok(()) } else { Err("NOT_PERMITTED") }
}
