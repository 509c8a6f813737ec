//! ipvsadm-restore: replaces the IPVS table by the rules on standard input.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    ipvsadm::ipvsadm_restore()
}
