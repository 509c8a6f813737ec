//! Settings: what the kernel has in `/proc/sys/net/ipv4/vs`, as text both ways.

use rvs_core::control::Datapath;
use rvs_core::sysctl::{Kind, SETTINGS, SysctlError};
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

/// The setting with this name.
fn known(name: &str) -> Result<(&'static str, Kind), Refusal> {
    let mut settings = SETTINGS.into_iter();
    let found = settings.find(|(known, _)| *known == name);
    found.ok_or_else(|| Refusal::new(ENOENT, format!("no setting {name}")))
}

impl<D: Datapath> Director<D> {
    /// All settings, or the one that is named.
    pub(crate) fn dump_sysctls(&self, attrs: &Attrs<'_>) -> Result<Answers, Refusal> {
        let row = |(name, kind): (&str, Kind)| {
            let mut row = Writer::new();
            row.text(cmd_attr::SYSCTL_NAME, name);
            match kind {
                Kind::Changes(sysctl) => {
                    row.text(cmd_attr::SYSCTL_VALUE, &self.datapath.sysctl(sysctl).to_string())
                }
                Kind::Second(first, sysctl, _) => {
                    let second = self.datapath.sysctl(sysctl);
                    row.text(cmd_attr::SYSCTL_VALUE, &format!("{first}\t{second}"))
                }
                Kind::Fixed(value, _) => row.text(cmd_attr::SYSCTL_VALUE, value),
            };
            (command::GET_SYSCTL, row)
        };
        match attrs.text(cmd_attr::SYSCTL_NAME) {
            Some(name) => Ok(vec![row(known(name)?)]),
            None => Ok(SETTINGS.into_iter().map(row).collect()),
        }
    }

    pub(crate) fn set_sysctl(&mut self, attrs: &Attrs<'_>) -> Result<(), Refusal> {
        let (name, kind) = known(attrs.text(cmd_attr::SYSCTL_NAME).ok_or(EINVAL)?)?;
        let text = attrs.text(cmd_attr::SYSCTL_VALUE).ok_or(EINVAL)?;
        if let Some((sysctl, value)) = kind.parse(name, text)? {
            self.datapath.set_sysctl(sysctl, value)?;
        }
        Ok(())
    }
}
