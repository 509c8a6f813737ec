//! Tests once more on the oldest kernel that RVS is for, in the oracle VM: what its verifier takes for
//! dead is cut out of the programs.

use rvs_testkit::vm;

/// Runs these tests of this process's program there, with the recordings that they read, by their paths
/// in the workspace. Panics if one fails; the calling test is skipped if there is no VM.
pub fn pass(tests: &[&str], recordings: &[&str]) {
    let exe = std::env::current_exe().expect("a test has an executable");
    let name = exe.file_name().and_then(|name| name.to_str()).expect("cargo's name for it");
    let here = env!("CARGO_MANIFEST_DIR");
    // Each recording goes where the program was compiled to look for it.
    let command = format!(
        "sh -c 'mount -t bpf bpf /sys/fs/bpf; mkdir -p {here} && for file in {}; do \
         place={here}/../../$file; mkdir -p ${{place%/*}} && cp ${{file##*/}} $place || exit; done && \
         exec ./{name} --test-threads=1 --exact {}'",
        recordings.join(" "),
        tests.join(" ")
    );
    let exe = exe.to_str().expect("the workspace's path is text");
    let files: Vec<&str> = recordings.iter().copied().chain([exe]).collect();
    let Some(stdout) = vm::run_files(&command, &files, &[], 1200) else {
        rvs_testkit::skip!("../shared/oracle is not there");
    };
    // Each starts itself again in a namespace, which says as much for itself.
    let passed = format!("test result: ok. {} passed; 0 failed", tests.len());
    assert!(stdout.contains(&passed) && !stdout.contains("SKIPPED"), "{stdout}");
}
