//! Refusing a call before it passes the layers.
//!
//! Under overload most calls are refused, and what a refusal costs is taken from the calls
//! that are served. So the listener asks for one before it makes anything of a call.

use std::fmt::Debug;

use http::{HeaderMap, Response, Uri};

use super::{goaway::ConnectionHandle, methods::Method};

/// Refuses calls that admission would turn away.
pub trait EarlyRefusal: Debug + Send + Sync {
    /// The method of a call that would be turned away now. Any other call passes the layers.
    fn due(
        &self,
        method: &http::Method,
        uri: &Uri,
        headers: &HeaderMap,
        connection: &ConnectionHandle,
    ) -> Option<&'static Method>;

    /// The answer to such a call, which is counted and logged from now on.
    fn refuse(
        &self,
        method: &'static Method,
        headers: &HeaderMap,
        connection: &ConnectionHandle,
    ) -> Response<()>;
}
