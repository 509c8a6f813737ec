//! The verifier takes the programs.
use std::path::Path;

use rvs_datapath::{Object, Sizes};

#[test]
fn the_verifier_accepts_both_programs() {
    let pin = Path::new("/sys/fs/bpf/rvs-test-load");
    let _ = std::fs::remove_dir_all(pin);
    let sizes = Sizes { connections: 1024, services: 64, destinations: 1024 };
    let loaded = Object::load(pin, &sizes);
    let _ = std::fs::remove_dir_all(pin);
    if let Err(e) = loaded {
        let s = format!("{e:?}");
        let s = s.replace("\\n", "\n");
        let l: Vec<&str> = s.lines().collect();
        std::fs::write("/tmp/w/verifier.log", l.join("\n")).unwrap();
        println!("{}", l[l.len().saturating_sub(12)..].join("\n"));
        panic!("refused");
    }
}
