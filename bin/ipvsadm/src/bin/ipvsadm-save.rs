//! ipvsadm-save: prints the IPVS table as rules that ipvsadm-restore reads.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    ipvsadm::ipvsadm_save()
}
