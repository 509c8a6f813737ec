//! `rvs sysctl`: the kernel's settings below `net.ipv4.vs`.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rvs_compat::sysctl;
use rvs_netlink::{Client, ClientError};

/// What sysctl(8) puts before a name.
const PREFIX: &str = "net.ipv4.vs.";

/// Prints the settings that are named, or all; changes those that have a value first.
pub fn sysctl(socket: &Path, words: &[OsString]) -> Result<()> {
    let mut client = crate::connect(socket)?;
    if words.is_empty() {
        return print(&mut client, None);
    }
    words.iter().try_for_each(|word| one(&mut client, word))
}

fn one(client: &mut Client, word: &OsStr) -> Result<()> {
    let Some(text) = word.to_str() else { bail!("{} is no setting", word.to_string_lossy()) };
    let name = |text: &str| text.trim().strip_prefix(PREFIX).unwrap_or(text.trim()).to_owned();
    let Some((left, value)) = text.split_once('=') else {
        return print(client, Some(&name(text)));
    };
    let name = name(left);
    sysctl::set(client, &name, value).map_err(in_words)?;
    print(client, Some(&name))
}

fn print(client: &mut Client, name: Option<&str>) -> Result<()> {
    let mut text = String::new();
    let line = |name: &str, value: &str| text += &format!("{PREFIX}{name} = {value}\n");
    sysctl::each(client, name, line).map_err(in_words)?;
    std::io::stdout().write_all(text.as_bytes()).context("cannot write")
}

/// A refusal is the whole message: it names the setting.
fn in_words(error: ClientError) -> anyhow::Error {
    match error {
        ClientError::Explained { why, .. } => anyhow::anyhow!(why),
        other => anyhow::Error::new(other).context("cannot ask rvsd"),
    }
}
