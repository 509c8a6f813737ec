//! Completions for bash, zsh and fish: the commands first, then the options of the command, and
//! the values that are a choice of words.

use rvs_core::types::Scheduler;

use crate::flags::{self, Cmd, FLAGS, Flag, Kind, Opt, Value};

const HEADER: &str = "# Made from the table of flags (bin/ipvsadm/src/flags.rs); do not edit.\n";

/// The forms of a flag as they are typed.
fn forms(flag: &Flag) -> Vec<String> {
    let short = flag.short.map(|short| format!("-{short}"));
    short.into_iter().chain([format!("--{}", flag.long)]).collect()
}

/// The words that a flag's value is one of; none if it is something else.
fn choices(flag: &Flag) -> Vec<&'static str> {
    match flag.kind {
        Kind::Command(Cmd::StartDaemon | Cmd::StopDaemon) => vec!["master", "backup"],
        Kind::Option(Opt::Scheduler) => Scheduler::ALL.iter().map(|s| s.name()).collect(),
        Kind::Option(Opt::TunType) => vec!["ipip", "gue", "gre"],
        Kind::Option(Opt::Engine) => vec!["sip"],
        Kind::Option(Opt::SchedFlags) => {
            vec!["sh-port", "sh-fallback", "mh-port", "mh-fallback", "flag-1", "flag-2", "flag-3"]
        }
        _ => Vec::new(),
    }
}

/// Every form of the flags that a command takes.
fn options(cmd: Cmd) -> Vec<String> {
    let (required, allowed) = flags::rules(cmd);
    let has =
        |opt| (required.contains(&opt) || allowed.contains(&opt)) && flags::is_useful(cmd, opt);
    let takes = |flag: &&Flag| match flag.kind {
        Kind::Option(Opt::Plain) => flag.long == "ipv6" && has(Opt::Service),
        Kind::Option(opt) => has(opt),
        Kind::Command(_) => false,
    };
    FLAGS.iter().filter(takes).flat_map(forms).collect()
}

fn commands() -> impl Iterator<Item = (&'static Flag, Cmd)> {
    FLAGS.iter().filter_map(|flag| match flag.kind {
        Kind::Command(cmd) => Some((flag, cmd)),
        Kind::Option(_) => None,
    })
}

/// For bash.
pub(super) fn bash() -> String {
    let mut text = String::from(HEADER);
    text += "_ipvsadm() {\n    local cur=${COMP_WORDS[COMP_CWORD]} words=\n    \
             COMPREPLY=()\n    case ${COMP_WORDS[COMP_CWORD-1]} in\n";
    for flag in FLAGS.iter().filter(|flag| !choices(flag).is_empty()) {
        let (forms, choices) = (forms(flag).join("|"), choices(flag).join(" "));
        text += &format!("    {forms}) words='{choices}' ;;\n");
    }
    let interface = "$(command ls /sys/class/net)";
    text += &format!("    --mcast-interface) words={interface} ;;\n");
    let valued = FLAGS.iter().filter(|flag| {
        matches!(flag.value, Value::Yes(_)) && choices(flag).is_empty() && flag.kind != MCAST
    });
    let valued: Vec<String> = valued.flat_map(forms).collect();
    text += &format!("    {}) return ;;\n    *) case ${{COMP_WORDS[1]}} in\n", valued.join("|"));
    for (flag, cmd) in commands() {
        let (forms, options) = (forms(flag).join("|"), options(cmd).join(" "));
        text += &format!("        {forms}) words='{options}' ;;\n");
    }
    let all: Vec<String> = commands().flat_map(|(flag, _)| forms(flag)).collect();
    text += &format!("        esac\n        ((COMP_CWORD == 1)) && words='{}' ;;\n", all.join(" "));
    text += "    esac\n    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\n\
             complete -F _ipvsadm ipvsadm\n";
    text
}

const MCAST: Kind = Kind::Option(Opt::Mcast);

/// For zsh.
pub(super) fn zsh() -> String {
    let mut text = format!("#compdef ipvsadm\n{HEADER}");
    text += "if ((CURRENT == 2)); then\n    local -a commands=(\n";
    for (flag, _) in commands() {
        for form in forms(flag) {
            text += &format!("        '{form}:{}'\n", quoted(&flag.text()).replace(':', "\\:"));
        }
    }
    text += "    )\n    _describe command commands\n    return\nfi\nlocal -a options\n\
             case ${words[2]} in\n";
    for (flag, cmd) in commands() {
        text += &format!("{}) options=(\n", forms(flag).join("|"));
        let options = options(cmd);
        for flag in FLAGS.iter().filter(|flag| matches!(flag.kind, Kind::Option(_))) {
            let forms: Vec<String> =
                forms(flag).into_iter().filter(|form| options.contains(form)).collect();
            for form in &forms {
                text += &format!("    '{}'\n", zsh_spec(flag, form, &forms));
            }
        }
        text += ") ;;\n";
    }
    text += "esac\nshift words\n((CURRENT--))\n_arguments $options\n";
    text
}

fn zsh_spec(flag: &Flag, form: &str, forms: &[String]) -> String {
    let help = quoted(&flag.text()).replace('[', "\\[").replace(']', "\\]").replace(':', "\\:");
    let choices = choices(flag).join(" ");
    let action =
        if flag.kind == MCAST { "_net_interfaces".to_owned() } else { format!("({choices})") };
    let action = if action == "()" { String::new() } else { action };
    let value = match flag.value {
        Value::No => String::new(),
        Value::Yes(name) => format!(":{name}:{action}"),
        Value::Optional(name) => format!("::{name}:{action}"),
    };
    format!("({}){form}[{help}]{value}", forms.join(" "))
}

/// In single quotes.
fn quoted(text: &str) -> String {
    text.replace('\'', "'\\''")
}

/// For fish.
pub(super) fn fish() -> String {
    let mut text = String::from(HEADER);
    text += "complete -c ipvsadm -f\n";
    for (flag, _) in commands() {
        text += &fish_line(flag, "test (count (commandline -opc)) = 1");
    }
    for flag in FLAGS.iter().filter(|flag| matches!(flag.kind, Kind::Option(_))) {
        let form = format!("--{}", flag.long);
        let of: Vec<String> = commands()
            .filter(|(_, cmd)| options(*cmd).contains(&form))
            .flat_map(|(flag, _)| forms(flag))
            .collect();
        if !of.is_empty() {
            text +=
                &fish_line(flag, &format!("contains -- (commandline -opc)[2] {}", of.join(" ")));
        }
    }
    text
}

fn fish_line(flag: &Flag, condition: &str) -> String {
    let mut line = format!("complete -c ipvsadm -n '{condition}'");
    if let Some(short) = flag.short {
        line += &format!(" -s {short}");
    }
    line += &format!(" -l {}", flag.long);
    if matches!(flag.value, Value::Yes(_)) {
        line += " -r";
    }
    let choices = choices(flag);
    if !choices.is_empty() {
        line += &format!(" -a '{}'", choices.join(" "));
    } else if flag.kind == MCAST {
        line += " -a '(command ls /sys/class/net)'";
    }
    line + &format!(" -d '{}'\n", flag.text().replace('\\', "\\\\").replace('\'', "\\'"))
}
