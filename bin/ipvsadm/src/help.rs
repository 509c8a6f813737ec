//! `--help` and `--version`.

use std::io::{self, Write};

use crate::flags::{FLAGS, Flag, Kind, Value};

/// What `--version` prints.
pub const VERSION: &str =
    concat!("ipvsadm v1.31 (RVS ", env!("CARGO_PKG_VERSION"), ", compiled in Rust)");

/// Prints the help, from the table of flags.
pub fn help(out: &mut dyn Write) -> io::Result<()> {
    write!(
        out,
        "{VERSION}\nUsage:\n\
         \x20 ipvsadm -A|E virtual-service [-s scheduler] [-p [timeout]] [-M netmask] [--pe engine] [-b flags] [-o]\n\
         \x20 ipvsadm -D virtual-service\n\
         \x20 ipvsadm -C\n\
         \x20 ipvsadm -R\n\
         \x20 ipvsadm -S [-n]\n\
         \x20 ipvsadm -a|e virtual-service -r server-address [-g|i|m] [-w weight] [-x upper] [-y lower] [tunnel options]\n\
         \x20 ipvsadm -d virtual-service -r server-address\n\
         \x20 ipvsadm -L|l [virtual-service] [options]\n\
         \x20 ipvsadm -Z [virtual-service]\n\
         \x20 ipvsadm --set tcp tcpfin udp\n\
         \x20 ipvsadm -h\n\n"
    )?;
    writeln!(out, "Commands:")?;
    list(out, |flag| matches!(flag.kind, Kind::Command(_)))?;
    writeln!(out, "\nOptions:")?;
    list(out, |flag| matches!(flag.kind, Kind::Option(_)))
}

fn list(out: &mut dyn Write, which: impl Fn(&Flag) -> bool) -> io::Result<()> {
    for flag in FLAGS.iter().filter(|flag| which(flag)) {
        let short = flag.short.map_or("    ".to_owned(), |short| format!("-{short}, "));
        let value = match flag.value {
            Value::No => String::new(),
            Value::Yes(name) => format!(" {name}"),
            Value::Optional(name) => format!(" [{name}]"),
        };
        let name = format!("{short}--{}{value}", flag.long);
        writeln!(out, "  {name:<36} {}", flag.help)?;
    }
    Ok(())
}
