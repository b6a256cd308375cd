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
    pub id: MethodId,
    /// `/package.Service/Method`
    pub path: &'static str,
    pub api: Api,
    pub kind: MethodKind,
    /// Whether it may change users.
    pub writes: bool,
}

impl Method {
    /// Where it is in [`METHODS`].
    pub fn index(&self) -> usize {
        self.id as usize
    }

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
    ($($id:ident, $path:literal, $api:ident, $kind:ident, $writes:literal;)*) => {
        /// Which method: the router matches it, so a method that nothing serves does not
        /// compile.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum MethodId { $($id,)* }

        /// Every method, in the order of [`MethodId`].
        pub static METHODS: [Method; [$($path),*].len()] = [$(Method {
            id: MethodId::$id,
            path: $path,
            api: Api::$api,
            kind: MethodKind::$kind,
            writes: $writes,
        }),*];

        /// The method with exactly this path.
        pub fn find(path: &str) -> Option<&'static Method> {
            METHODS.iter().find(|method| method.path == path)
        }
    };
}

// id, path, api, kind, whether it writes
methods! {
    GetUser, "/user.v1.UserService/GetUser", UserV1, Unary, false;
    CreateUser, "/user.v1.UserService/CreateUser", UserV1, Unary, true;
    BatchGetUsers, "/user.v1.UserService/BatchGetUsers", UserV1, Unary, false;
    ListUsers, "/user.v1.UserService/ListUsers", UserV1, Unary, false;
    UpdateUser, "/user.v1.UserService/UpdateUser", UserV1, Unary, true;
    DeleteUser, "/user.v1.UserService/DeleteUser", UserV1, Unary, true;
    ImportUsers, "/user.v1.UserService/ImportUsers", UserV1, BidiStreaming, true;
    WatchUsers, "/user.v1.UserService/WatchUsers", UserV1, ServerStreaming, false;
    ArticleGetUser, "/UserService/GetUser", Article, Unary, false;
    ArticleCreateUser, "/UserService/CreateUser", Article, Unary, true;
    HealthCheck, "/grpc.health.v1.Health/Check", Health, Unary, false;
    HealthList, "/grpc.health.v1.Health/List", Health, Unary, false;
    HealthWatch, "/grpc.health.v1.Health/Watch", Health, ServerStreaming, false;
    ReflectionV1, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", ReflectionV1, BidiStreaming, false;
    ReflectionV1Alpha, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", ReflectionV1Alpha, BidiStreaming, false;
}
