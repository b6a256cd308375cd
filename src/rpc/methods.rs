//! Every method that is served, by its exact path.
//!
//! **Invariant:** calls are routed, limited and labelled by the method found here, never
//! by the path. So no other spelling of a path makes a label or evades a rule.

/// What a method does on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MethodKind {
    Unary,
    ServerStreaming,
    BidiStreaming,
}

/// Which service a method belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// `user.v1.UserService`
    UserV1,
    /// The article's `UserService`
    Article,
    Health,
    ReflectionV1,
    ReflectionV1Alpha,
}

impl Api {
    /// Whether it serves operators instead of callers. Probes and tools must get through
    /// while calls are rejected.
    pub fn is_infrastructure(self) -> bool {
        matches!(self, Self::Health | Self::ReflectionV1 | Self::ReflectionV1Alpha)
    }
}

/// A method.
#[derive(Debug, PartialEq, Eq)]
pub struct Method {
    /// `/package.Service/Method`
    pub path: &'static str,
    pub api: Api,
    pub kind: MethodKind,
    /// Whether it may change users.
    pub writes: bool,
    /// Where it stands in [`METHODS`].
    pub index: usize,
}

impl Method {
    /// `package.Service`
    pub fn service(&self) -> &'static str {
        self.split().0
    }

    /// `Method`
    pub fn name(&self) -> &'static str {
        self.split().1
    }

    /// `package.Service/Method`, as OpenTelemetry spells it.
    pub fn full_name(&self) -> &'static str {
        &self.path[1..]
    }

    fn split(&self) -> (&'static str, &'static str) {
        self.full_name().split_once('/').unwrap_or((self.path, ""))
    }
}

macro_rules! methods {
    ($($path:literal, $api:ident, $kind:ident, $writes:literal;)*) => {
        /// Every method, in the order of their indices.
        pub static METHODS: [Method; [$($path),*].len()] = {
            let mut index = 0;
            [$({
                index += 1;
                Method { path: $path, api: Api::$api, kind: MethodKind::$kind, writes: $writes, index: index - 1 }
            }),*]
        };

        /// The method with exactly this path.
        pub fn find(path: &str) -> Option<&'static Method> {
            METHODS.iter().find(|method| method.path == path)
        }
    };
}

// path, api, kind, whether it writes
methods! {
    "/user.v1.UserService/GetUser", UserV1, Unary, false;
    "/user.v1.UserService/CreateUser", UserV1, Unary, true;
    "/user.v1.UserService/BatchGetUsers", UserV1, Unary, false;
    "/user.v1.UserService/ListUsers", UserV1, Unary, false;
    "/user.v1.UserService/UpdateUser", UserV1, Unary, true;
    "/user.v1.UserService/DeleteUser", UserV1, Unary, true;
    "/user.v1.UserService/ImportUsers", UserV1, BidiStreaming, true;
    "/user.v1.UserService/WatchUsers", UserV1, ServerStreaming, false;
    "/UserService/GetUser", Article, Unary, false;
    "/UserService/CreateUser", Article, Unary, true;
    "/grpc.health.v1.Health/Check", Health, Unary, false;
    "/grpc.health.v1.Health/List", Health, Unary, false;
    "/grpc.health.v1.Health/Watch", Health, ServerStreaming, false;
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", ReflectionV1, BidiStreaming, false;
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", ReflectionV1Alpha, BidiStreaming, false;
}
