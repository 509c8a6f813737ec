//! Random services, changes and packets, given to the kernel's IPVS and to RVS side by side in the
//! oracle VM (`tests/parity`). `cargo xtask parity` runs more of them, or others.

use rvs_testkit::vm;

const FILES: [&str; 3] = ["tests/parity/parity.py", "tests/parity/side.py", "tests/oracle/lib.py"];

/// First seed, number of scenarios and seconds, from `$RVS_PARITY` if it is set.
fn budget() -> (u32, u32, u32) {
    let given = std::env::var("RVS_PARITY").unwrap_or_else(|_| "1 8 150".to_owned());
    let numbers: Vec<u32> =
        given.split(' ').map(|word| word.parse().expect("three numbers")).collect();
    let [seed, scenarios, seconds] = numbers[..] else { panic!("three numbers: {given}") };
    (seed, scenarios, seconds)
}

fn the_same_as_the_kernel(mode: &str) {
    let (seed, scenarios, seconds) = budget();
    let command = format!("python3 parity.py {seed} {scenarios} {seconds} {mode}");
    let binaries = ["rvsd", "ipvsadm", "rvs"];
    // A scenario that is under way is played to its end.
    let Some(stdout) = vm::run_files(&command, &FILES, &binaries, seconds + 240) else {
        rvs_testkit::skip!("../shared/oracle is not there");
    };
    print!("{stdout}");
    assert!(stdout.contains("no difference"), "{stdout}");
}

#[test]
fn tc_does_what_the_kernel_does() {
    the_same_as_the_kernel("tc");
}

#[test]
fn xdp_does_what_the_kernel_does() {
    the_same_as_the_kernel("xdp");
}
