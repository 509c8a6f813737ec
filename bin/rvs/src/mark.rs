//! `rvs mark`: rules that give packets marks, for fwmark services.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rvs_netlink::attr::Writer;
use rvs_netlink::ipvs::{cmd_attr, command};
use rvs_netlink::{Client, ClientError};

/// Appends, removes or lists rules.
pub fn mark(socket: &Path, verb: &str, rule: &[OsString]) -> Result<()> {
    let rule: Vec<_> = rule.iter().map(|word| word.to_string_lossy()).collect();
    let rule = rule.join(" ");
    let (command, takes_rule) = match verb {
        "list" => (command::GET_MARK, false),
        "flush" => (command::FLUSH_MARKS, false),
        "add" => (command::NEW_MARK, true),
        "del" => (command::DEL_MARK, true),
        other => bail!("marks are for list, add, del or flush, not for {other}"),
    };
    if !takes_rule && !rule.is_empty() {
        bail!("{verb} takes no rule");
    }
    let mut client = crate::connect(socket)?;
    if verb == "list" {
        return list(&mut client);
    }
    let mut attrs = Writer::new();
    if takes_rule {
        attrs.text(cmd_attr::MARK, &rule);
    }
    client.call(command, &attrs, |_, _| {}).map_err(in_words)
}

fn list(client: &mut Client) -> Result<()> {
    let mut text = String::new();
    let line = |_: u8, attrs: &rvs_netlink::attr::Attrs<'_>| {
        text += attrs.text(cmd_attr::MARK).unwrap_or_default();
        text.push('\n');
    };
    client.dump(command::GET_MARK, &Writer::new(), line).map_err(in_words)?;
    std::io::stdout().write_all(text.as_bytes()).context("cannot write")
}

/// A refusal is the whole message: it names what is wrong.
fn in_words(error: ClientError) -> anyhow::Error {
    match error {
        ClientError::Explained { why, .. } => anyhow::anyhow!(why),
        other => anyhow::Error::new(other).context("cannot ask rvsd"),
    }
}
