//! What a kernel with ip_vs shows a process, made of rvsd's answers: the netlink family "IPVS", the
//! older `IP_VS_SO_*` socket options, and the files of `/proc`. No system call is intercepted here;
//! `librvs_ipvs.so`, `rvs proc` and `rvsd --proc` do that each in their way.
#![forbid(unsafe_code)]

pub mod file;
pub mod netlink;
pub mod path;
pub mod proc;
pub mod socket;
pub mod sockopt;
pub mod sysctl;
pub mod tables;

use std::path::PathBuf;

use rvs_netlink::ClientError;
use rvs_netlink::client::DEFAULT_SOCKET;

/// The control socket: `$RVS_SOCKET`, else the default place.
pub fn rvsd() -> PathBuf {
    std::env::var_os("RVS_SOCKET").unwrap_or_else(|| DEFAULT_SOCKET.into()).into()
}

/// The errno that a kernel would have answered with, `absent` if there is no rvsd as there may be no
/// ip_vs.
pub fn errno(error: &ClientError, absent: i32) -> i32 {
    let io = match error {
        ClientError::Refused(errno) | ClientError::Explained { errno, .. } => return *errno,
        ClientError::Malformed => return rvs_netlink::errno::EINVAL,
        ClientError::Io(io)
        | ClientError::Nobody { reason: io, .. }
        | ClientError::Proc { reason: io } => io,
    };
    match io.kind() {
        std::io::ErrorKind::PermissionDenied => rvs_netlink::errno::EPERM,
        _ => absent,
    }
}
