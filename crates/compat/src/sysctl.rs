//! The settings below `/proc/sys/net/ipv4/vs`: every file that Linux 6.1 has there but
//! `sync_qlen_max`, whose default comes from the machine's memory, and which would limit the queue of
//! a sync daemon.

use rvs_core::sysctl::SETTINGS;
use rvs_netlink::attr::Writer;
use rvs_netlink::ipvs::{cmd_attr, command};
use rvs_netlink::{Client, ClientError};

/// The names of all settings.
pub fn names() -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().map(|(name, _)| *name)
}

/// Calls `f` with the name and value of each setting, or of the one with this name.
pub fn each(
    client: &mut Client,
    name: Option<&str>,
    mut f: impl FnMut(&str, &str),
) -> Result<(), ClientError> {
    let mut attrs = Writer::new();
    if let Some(name) = name {
        attrs.text(cmd_attr::SYSCTL_NAME, name);
    }
    client.dump(command::GET_SYSCTL, &attrs, |_, attrs| {
        let text = |kind| attrs.text(kind).unwrap_or_default();
        f(text(cmd_attr::SYSCTL_NAME), text(cmd_attr::SYSCTL_VALUE));
    })
}

/// What the file of a setting says.
pub fn text(client: &mut Client, name: &str) -> Result<String, ClientError> {
    let mut file = String::new();
    each(client, Some(name), |_, value| file = format!("{value}\n"))?;
    Ok(file)
}

/// Writes `text` to the file of a setting.
pub fn set(client: &mut Client, name: &str, text: &str) -> Result<(), ClientError> {
    let mut attrs = Writer::new();
    attrs.text(cmd_attr::SYSCTL_NAME, name).text(cmd_attr::SYSCTL_VALUE, text);
    client.call(command::SET_SYSCTL, &attrs, |_, _| {})
}
