//! The manual pages and completions of the repository are what the table of flags gives.

use std::path::Path;
use std::process::Command;

use ipvsadm::docs::files;

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// `RVS_BLESS=1 cargo test -p ipvsadm --test docs` writes the files instead.
#[test]
fn manual_pages_and_completions_are_up_to_date() {
    for file in files() {
        let path = root().join(file.path);
        if std::env::var_os("RVS_BLESS").is_some() {
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            std::fs::write(&path, &file.text).expect("a file");
        }
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            there == file.text,
            "{} is not what the flags give: RVS_BLESS=1 cargo test -p ipvsadm --test docs",
            file.path
        );
    }
}

#[test]
fn every_flag_is_in_the_manual_page_the_help_and_the_completions() {
    let mut help = Vec::new();
    ipvsadm::help::help(&mut help).expect("memory takes everything");
    let help = String::from_utf8(help).expect("text");
    for flag in ipvsadm::flags::FLAGS {
        let long = flag.long;
        assert!(help.contains(&format!("--{long}")), "--help lacks --{long}");
        for file in files().iter().filter(|file| !file.path.contains('-')) {
            let named = file.text.contains(long) || file.text.contains(&long.replace('-', "\\-"));
            // An option without effect is not offered.
            assert!(named || long == "sort", "{} lacks --{long}", file.path);
        }
    }
}

/// What bash offers after the words, the last of which is being typed.
fn bash(words: &[&str]) -> Vec<String> {
    let file = root().join("completions/ipvsadm.bash");
    let script = format!(
        "source {}; COMP_WORDS=({}); COMP_CWORD={}; _ipvsadm; echo \"${{COMPREPLY[@]}}\"",
        file.display(),
        words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "),
        words.len() - 1,
    );
    let output = Command::new("bash").args(["-c", &script]).output().expect("bash");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    text.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn bash_offers_commands_then_their_options_then_values() {
    assert_eq!(bash(&["ipvsadm", "--add-se"]), ["--add-service", "--add-server"]);
    let options = bash(&["ipvsadm", "-A", "-"]);
    assert!(options.contains(&"-t".into()) && !options.contains(&"-w".into()), "{options:?}");
    assert_eq!(bash(&["ipvsadm", "-A", "-s", "wr"]), ["wrr"]);
    assert_eq!(bash(&["ipvsadm", "--start-daemon", "m"]), ["master"]);
    assert_eq!(bash(&["ipvsadm", "-A", "-t", ""]), Vec::<String>::new());
}
