//! Manual pages in the man macros (man(7), groff_man(7)).

use crate::flags::{self, Cmd, FLAGS, Flag, Kind, Opt};
use crate::help::FORMS;

/// The first line of a page.
macro_rules! title {
    ($name:literal) => {
        concat!(
            ".\\\" Made from the table of flags (bin/ipvsadm/src/flags.rs); do not edit.\n.TH ",
            $name,
            " 8 \"\" \"RVS ",
            env!("CARGO_PKG_VERSION"),
            "\" \"System Administration\"\n"
        )
    };
}

/// ipvsadm(8)
pub(super) fn ipvsadm() -> String {
    let mut page = String::from(title!("IPVSADM"));
    page += ".SH NAME\nipvsadm \\- administers virtual services and their destinations\n";
    page += ".SH SYNOPSIS\n.nf\n";
    for form in FORMS {
        page += &format!("{}\n", escape(form));
    }
    page += ".fi\n";
    page += INTRODUCTION;
    page += ".SH COMMANDS\nThe first option is the command. Each command takes the options that \
             are named with it.\n";
    for flag in FLAGS {
        if let Kind::Command(cmd) = flag.kind {
            entry(&mut page, flag);
            options_of(&mut page, cmd);
        }
    }
    page += ".SH OPTIONS\n";
    for flag in FLAGS.iter().filter(|flag| matches!(flag.kind, Kind::Option(_))) {
        entry(&mut page, flag);
    }
    page += CONCLUSION;
    page
}

/// Short and long form, and what it is.
fn entry(page: &mut String, flag: &Flag) {
    let short = flag.short.map_or(String::new(), |short| format!("\\fB\\-{short}\\fR, "));
    let long = escape(flag.long);
    let usage = escape(&flag.usage());
    *page += &format!(".TP\n{short}\\fB\\-\\-{long}\\fR\\fI{usage}\\fR\n{}\n", sentence(flag));
}

fn sentence(flag: &Flag) -> String {
    let text = escape(&flag.text());
    let mut letters = text.chars();
    let first = letters.next().map(|c| c.to_ascii_uppercase()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}

fn options_of(page: &mut String, cmd: Cmd) {
    let (required, allowed) = flags::rules(cmd);
    let named = |opts: &[Opt]| -> String {
        let flags = FLAGS.iter().filter(|flag| match flag.kind {
            Kind::Option(opt) => opts.contains(&opt) && flags::is_useful(cmd, opt),
            Kind::Command(_) => false,
        });
        let names: Vec<String> = flags
            .map(|flag| match flag.short {
                Some(short) => format!("\\fB\\-{short}\\fR"),
                None => format!("\\fB\\-\\-{}\\fR", escape(flag.long)),
            })
            .collect();
        names.join(" ")
    };
    let others: Vec<Opt> = required.iter().copied().filter(|opt| *opt != Opt::Service).collect();
    if required.contains(&Opt::Service) {
        *page += &format!(".br\nNeeds: one of {}", named(&[Opt::Service]));
        *page += &if others.is_empty() { "\n".into() } else { format!("; {}\n", named(&others)) };
    }
    if !allowed.is_empty() {
        *page += &format!(".br\nTakes: {}\n", named(allowed));
    }
}

/// Hyphens that are typed are minus signs; a backslash is none of ours.
fn escape(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

const INTRODUCTION: &str = ".SH DESCRIPTION
\\fBipvsadm\\fR sets up, changes and shows the table of a layer-4 load balancer: virtual services,
each with the destinations (real servers) that its connections are spread over.
.PP
It talks to \\fBrvsd\\fR by the socket \\fB$RVS_SOCKET\\fR, else \\fI/run/rvs/control.sock\\fR. If
nobody listens there and the kernel has ip_vs, it sets up the kernel's table.
.PP
The grammar, the output and the exit codes are those of ipvsadm 1.31. What differs on purpose is in
\\fIdocs/ipvsadm\\-differences.md\\fR.
.PP
Without arguments it lists the table, as \\fB\\-L\\fR does.
";

const CONCLUSION: &str = ".SH VIRTUAL SERVICES
A service is named by a protocol, an address and a port (\\fB\\-t\\fR, \\fB\\-u\\fR,
\\fB\\-\\-sctp\\-service\\fR) or by a firewall mark (\\fB\\-f\\fR). Hosts and ports may be names. Port 0,
or none, stands for all ports and needs \\fB\\-p\\fR.
.SH DESTINATIONS
Without a port a destination has the service's. Only masquerading (\\fB\\-m\\fR) can change the port;
only tunneling (\\fB\\-i\\fR) reaches another address family than the service's.
.SH JSON
With \\fB\\-\\-json\\fR a listing is one JSON object: {\"services\": [...]}, {\"connections\": [...]},
{\"daemons\": [...]} or {\"tcp\": n, \"tcpfin\": n, \"udp\": n}. Services have all counters, rates and
thresholds whatever else was asked for. Lists have one element a line.
.SH RESTORING
\\fB\\-R\\fR carries lines out in order. A line that the director refuses, or with an unknown option, is
told with its number and the rest goes on; a line that makes no sense otherwise ends it, and what came
before stays. On a terminal a bar
shows how far it is.
.SH WARNINGS
Command lines that ipvsadm takes although they cannot be meant work as they always did, and are
warned of on standard error: a mask that is a prefix length or has holes, a port that direct routing
or tunneling ignores, an option without effect, an IPv6 address that swallowed its port.
.SH EXIT STATUS
.TP
0
Done.
.TP
1
The service to list is not there, or the output could not be written.
.TP
2
The command line makes no sense; nothing was changed.
.TP
255
The director refused, or nobody was there to ask, or no command was given.
.SH FILES
.TP
\\fI/run/rvs/control.sock\\fR
The socket of rvsd.
.TP
\\fI/etc/services\\fR
The names of ports.
.SH SEE ALSO
\\fBipvsadm\\-save\\fR(8), \\fBipvsadm\\-restore\\fR(8)
";

/// ipvsadm-save(8)
pub(super) const SAVE: &str = concat!(
    title!("IPVSADM-SAVE"),
    ".SH NAME
ipvsadm\\-save \\- prints the IPVS table as rules
.SH SYNOPSIS
\\fBipvsadm\\-save\\fR [\\fB\\-n\\fR]
.SH DESCRIPTION
Prints the table as \\fBipvsadm \\-S\\fR does: one command a line, such that
\\fBipvsadm\\-restore\\fR(8) makes the same table of it.
.SH OPTIONS
.TP
\\fB\\-n\\fR
Prints addresses and ports as numbers, which no change of a name can spoil.
.SH EXIT STATUS
0 if all was printed, 1 for an option that it does not have, else as \\fBipvsadm\\fR(8).
.SH SEE ALSO
\\fBipvsadm\\fR(8), \\fBipvsadm\\-restore\\fR(8)
"
);

/// ipvsadm-restore(8)
pub(super) const RESTORE: &str = concat!(
    title!("IPVSADM-RESTORE"),
    ".SH NAME
ipvsadm\\-restore \\- replaces the IPVS table by saved rules
.SH SYNOPSIS
\\fBipvsadm\\-restore\\fR < \\fIrules\\fR
.SH DESCRIPTION
Reads rules as \\fBipvsadm\\-save\\fR(8) prints them from standard input to its end, then deletes all
services of the table and carries the rules out as \\fBipvsadm \\-R\\fR does. Lines that begin with #
are comments.
.SH EXIT STATUS
0 if all rules were carried out, else as \\fBipvsadm\\fR(8); 255 if any was refused.
.SH SEE ALSO
\\fBipvsadm\\fR(8), \\fBipvsadm\\-save\\fR(8)
"
);
