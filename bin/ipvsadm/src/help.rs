//! `--help` and `--version`.

use std::io::{self, Write};

use crate::flags::{FLAGS, Flag, Kind};

/// What `--version` prints.
pub const VERSION: &str =
    concat!("ipvsadm v1.31 (RVS ", env!("CARGO_PKG_VERSION"), ", compiled in Rust)");

/// What command lines look like.
pub const FORMS: [&str; 13] = [
    "ipvsadm -A|E service [-s scheduler] [-p [timeout]] [-M netmask] [--pe engine] [-b flags] [-o]",
    "ipvsadm -D service",
    "ipvsadm -C",
    "ipvsadm -R",
    "ipvsadm -S [-n]",
    "ipvsadm -a|e service -r server [-g|i|m] [-w weight] [-x upper] [-y lower] [tunnel options]",
    "ipvsadm -d service -r server",
    "ipvsadm -L|l [service] [options]",
    "ipvsadm -Z [service]",
    "ipvsadm --set tcp tcpfin udp",
    "ipvsadm --start-daemon {master|backup} --mcast-interface interface [daemon options]",
    "ipvsadm --stop-daemon {master|backup}",
    "ipvsadm -h",
];

/// Prints the help, from the table of flags.
pub fn help(out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{VERSION}\nUsage:")?;
    for form in FORMS {
        writeln!(out, "  {form}")?;
    }
    writeln!(out)?;
    writeln!(out, "Commands:")?;
    list(out, |flag| matches!(flag.kind, Kind::Command(_)))?;
    writeln!(out, "\nOptions:")?;
    list(out, |flag| matches!(flag.kind, Kind::Option(_)))
}

fn list(out: &mut dyn Write, which: impl Fn(&Flag) -> bool) -> io::Result<()> {
    for flag in FLAGS.iter().filter(|flag| which(flag)) {
        let short = flag.short.map_or("    ".to_owned(), |short| format!("-{short}, "));
        let name = format!("{short}--{}{}", flag.long, flag.usage());
        writeln!(out, "  {name:<36} {}", flag.text())?;
    }
    Ok(())
}
