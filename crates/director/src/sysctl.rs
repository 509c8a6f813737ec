//! Settings: what the kernel has in `/proc/sys/net/ipv4/vs`, as text both ways.

use rvs_core::control::Datapath;
use rvs_core::sysctl::{Kind, SETTINGS, Sysctl, SysctlError};
use rvs_core::timeout::{self, Timeout};
use rvs_netlink::attr::{Attrs, Writer};
use rvs_netlink::errno::{EINVAL, ENOENT, EOPNOTSUPP};
use rvs_netlink::ipvs::{cmd_attr, command};

use crate::reply::Answers;
use crate::{Director, Refusal};

impl From<SysctlError> for Refusal {
    fn from(error: SysctlError) -> Self {
        let errno = match error {
            SysctlError::Invalid(..) => EINVAL,
            SysctlError::Fixed(..) => EOPNOTSUPP,
        };
        Self::new(errno, error.to_string())
    }
}

/// A setting.
#[derive(Clone, Copy)]
enum Setting {
    Sysctl(Kind),
    Timeout(Timeout),
}

/// The setting with this name.
fn known(name: &str) -> Result<(&'static str, Setting), Refusal> {
    let listed = SETTINGS.into_iter().find(|(known, _)| *known == name);
    let listed = listed.map(|(name, kind)| (name, Setting::Sysctl(kind)));
    let timeout = || timeout::find(name).map(|(name, timeout)| (name, Setting::Timeout(timeout)));
    listed.or_else(timeout).ok_or_else(|| Refusal::new(ENOENT, format!("no setting {name}")))
}

/// What changes by a text that is written to a setting.
enum Change {
    Sysctl(Sysctl, i32),
    Timeout(Timeout, u32),
}

fn change(name: &str, text: &str) -> Result<Change, Refusal> {
    Ok(match known(name)? {
        (name, Setting::Sysctl(kind)) => {
            let (sysctl, value) = kind.parse(name, text)?;
            Change::Sysctl(sysctl, value)
        }
        (name, Setting::Timeout(timeout)) => Change::Timeout(timeout, timeout.parse(name, text)?),
    })
}

/// Whether a text may be written to a setting.
pub fn check_setting(name: &str, text: &str) -> Result<(), Refusal> {
    change(name, text).map(drop)
}

impl<D: Datapath> Director<D> {
    /// All settings that Linux 6.1 has, or the one that is named.
    pub(crate) fn dump_sysctls(&self, attrs: &Attrs<'_>) -> Result<Answers, Refusal> {
        let row = |name: &str, setting: Setting| {
            let value = match setting {
                Setting::Sysctl(Kind::Changes(sysctl)) => self.datapath.sysctl(sysctl).to_string(),
                Setting::Sysctl(Kind::Second(first, sysctl, _)) => {
                    format!("{first}\t{}", self.datapath.sysctl(sysctl))
                }
                Setting::Timeout(timeout) => self.datapath.timeout(timeout).to_string(),
            };
            let mut row = Writer::new();
            row.text(cmd_attr::SYSCTL_NAME, name).text(cmd_attr::SYSCTL_VALUE, &value);
            (command::GET_SYSCTL, row)
        };
        match attrs.text(cmd_attr::SYSCTL_NAME) {
            Some(name) => known(name).map(|(name, setting)| vec![row(name, setting)]),
            None => Ok(SETTINGS
                .into_iter()
                .map(|(name, kind)| row(name, Setting::Sysctl(kind)))
                .collect()),
        }
    }

    pub(crate) fn set_sysctl(&mut self, attrs: &Attrs<'_>) -> Result<(), Refusal> {
        let name = attrs.text(cmd_attr::SYSCTL_NAME).ok_or(EINVAL)?;
        self.set(name, attrs.text(cmd_attr::SYSCTL_VALUE).ok_or(EINVAL)?)
    }

    /// Writes a text to a setting.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), Refusal> {
        match change(name, text)? {
            Change::Sysctl(sysctl, value) => self.datapath.set_sysctl(sysctl, value)?,
            Change::Timeout(timeout, seconds) => self.datapath.set_timeout(timeout, seconds)?,
        }
        Ok(())
    }
}
