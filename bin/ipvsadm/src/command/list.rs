//! `-L`: what is listed, and how.

use super::options::Options;
use super::{Command, Format};
use crate::Failure;
use crate::flags::Opt;

/// Forms of the table of services, the one that wins first.
const FORMS: [Opt; 5] = [Opt::Stats, Opt::Rate, Opt::Thresholds, Opt::PersistentConn, Opt::TunInfo];

impl Options {
    /// How listings are to look.
    pub(super) fn format(&self) -> Format {
        Format {
            numeric: self.has(Opt::Numeric),
            exact: self.has(Opt::Exact),
            nosort: self.has(Opt::NoSort),
            stats: self.has(Opt::Stats),
            rate: self.has(Opt::Rate),
            thresholds: self.has(Opt::Thresholds),
            persistent: self.has(Opt::PersistentConn),
            tun_info: self.has(Opt::TunInfo),
            json: self.has(Opt::Json),
        }
    }

    /// The listing that the options ask for.
    pub(super) fn list(&mut self) -> Result<Command, Failure> {
        // Of two that exclude each other the later one in this order is said to be in the way.
        let tables = [Opt::Daemon, Opt::Timeout, Opt::Service, Opt::Connection];
        let chosen: Vec<Opt> = tables.into_iter().filter(|opt| self.has(*opt)).collect();
        if let [first, second, ..] = chosen.as_slice() {
            return Err(Failure::usage(format!(
                "The option '{}' conflicts with the '{}' option in the 'list' command",
                first.name(),
                second.name()
            )));
        }
        let format = self.format();
        let mut is_other_form = format.stats || format.rate || format.thresholds;
        is_other_form |= format.persistent && !self.has(Opt::Connection);
        if is_other_form && chosen.first().is_some_and(|opt| *opt != Opt::Service) {
            return Err(Failure::usage("options conflicts in the list command"));
        }
        let mut forms = FORMS.into_iter().filter(|opt| self.has(*opt));
        if let (Some(used), Some(ignored)) = (forms.next(), forms.next())
            && !format.json
        {
            self.warn(format!("--{} is ignored beside --{}", ignored.name(), used.name()));
        }
        if self.has(Opt::SyncId) {
            self.warn("--syncid has no effect on listings");
        }
        Ok(match chosen.first() {
            Some(Opt::Connection) => Command::ListConns(format),
            Some(Opt::Daemon) => Command::ListDaemons(format),
            Some(Opt::Timeout) => Command::ListTimeouts(format),
            _ => Command::List(self.service, format),
        })
    }
}
