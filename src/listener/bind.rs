//! Opening a port to listen on.

use std::{
    io::{self, ErrorKind},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
};

use socket2::{Domain, Socket, Type};

/// Room for the connections that arrive while the acceptor is busy; the kernel
/// lowers it to its own `net.core.somaxconn`.
const ACCEPT_BACKLOG: i32 = 4_096;

/// A port that could not be opened. Its text says what to do.
#[derive(Debug, thiserror::Error)]
#[error("{key}: cannot listen on {addr}: {source}; {}", remedy(key, *addr, source))]
pub struct BindError {
    key: &'static str,
    addr: SocketAddr,
    source: io::Error,
}

/// Listens on `addr`, which the configuration calls `key`. `[::]` takes IPv4 too,
/// and is `0.0.0.0` on a machine that has no IPv6.
pub fn bind(key: &'static str, addr: SocketAddr) -> Result<TcpListener, BindError> {
    bind_with(addr, listen).map_err(|source| BindError { key, addr, source })
}

fn bind_with<T>(addr: SocketAddr, listen: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    match listen(addr) {
        Err(error) if addr.ip() == Ipv6Addr::UNSPECIFIED && says_no_ipv6(&error) => {
            listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, addr.port())))
        }
        other => other,
    }
}

/// A kernel without IPv6 refuses the socket; one where it is switched off has no
/// address for it.
fn says_no_ipv6(error: &io::Error) -> bool {
    error.kind() == ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    if addr.is_ipv6() {
        // The system's default may be either.
        socket.set_only_v6(false)?;
    }
    // Connections of an earlier run in TIME_WAIT must not hold up a restart.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(ACCEPT_BACKLOG)?;
    Ok(socket.into())
}

fn remedy(key: &str, addr: SocketAddr, error: &io::Error) -> String {
    let port = addr.port();
    match error.kind() {
        ErrorKind::AddrInUse => format!(
            "stop what listens there (`ss -ltnp 'sport = :{port}'` names it) or set {key} to another port"
        ),
        ErrorKind::PermissionDenied => {
            format!("set {key} to a port of 1024 or above, or grant CAP_NET_BIND_SERVICE")
        }
        ErrorKind::AddrNotAvailable => format!("set {key} to an address that this machine has"),
        _ => format!("set {key} to an address and port that can be listened on"),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    const ANY_V6: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::UNSPECIFIED), 50_051);

    fn tried(addr: SocketAddr, error: impl Fn() -> io::Error) -> Vec<String> {
        let tried = RefCell::new(Vec::new());
        let _ = bind_with::<()>(addr, |addr| {
            tried.borrow_mut().push(addr.to_string());
            Err(error())
        });
        tried.into_inner()
    }

    #[test]
    fn without_ipv6_the_wildcard_is_that_of_ipv4() {
        let no_family = || io::Error::from(rustix::io::Errno::AFNOSUPPORT);
        let switched_off = || io::Error::from(ErrorKind::AddrNotAvailable);
        assert_eq!(tried(ANY_V6, no_family), ["[::]:50051", "0.0.0.0:50051"]);
        assert_eq!(tried(ANY_V6, switched_off), ["[::]:50051", "0.0.0.0:50051"]);
    }

    #[test]
    fn an_address_that_was_asked_for_by_name_is_not_replaced() {
        let no_family = || io::Error::from(rustix::io::Errno::AFNOSUPPORT);
        let in_use = || io::Error::from(ErrorKind::AddrInUse);
        assert_eq!(tried("[::1]:7".parse().unwrap(), no_family), ["[::1]:7"]);
        assert_eq!(tried(ANY_V6, in_use), ["[::]:50051"]);
    }

    #[test]
    fn a_port_in_use_is_named_with_its_remedy() {
        let holder = bind("grpc_addr", "127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = holder.local_addr().unwrap();
        let (text, port) = (bind("grpc_addr", addr).unwrap_err().to_string(), addr.port());
        assert!(text.starts_with(&format!("grpc_addr: cannot listen on 127.0.0.1:{port}: ")), "{text}");
        assert!(text.contains(&format!("sport = :{port}")), "{text}");
        assert!(text.ends_with("or set grpc_addr to another port"), "{text}");
    }

    #[test]
    fn the_wildcard_answers_on_ipv4_too() {
        let port = bind("grpc_addr", SocketAddr::from(([0u16; 8], 0))).unwrap();
        let port_number = port.local_addr().unwrap().port();
        std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port_number)).unwrap();
    }
}
