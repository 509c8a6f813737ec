//! ipvsadm: administers the IPVS tables of rvsd or of the kernel.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    ipvsadm::ipvsadm()
}
