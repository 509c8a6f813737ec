//! The director: the sans-IO owner of all control state. Requests come in as datagrams of IPVS's
//! netlink protocol and leave as datagrams; what is to be done goes to a
//! [`Datapath`](rvs_core::control::Datapath). Nothing here opens a socket or reads a clock.
//!
//! Checks and errnos are those of `net/netfilter/ipvs/ip_vs_ctl.c`.
#![forbid(unsafe_code)]

mod check;
mod daemon;
mod estimator;
mod handle;
mod mark;
mod reply;
mod sysctl;
mod table;

use rvs_core::control::{Change, Datapath, DatapathError, Stats};
use rvs_core::sysctl::Sysctl;

use estimator::{EVERYTHING, Estimators, Subject};
use table::{Service, Table};

pub use daemon::{Daemons, SyncDaemon};
pub use reply::FAMILY_ID;
pub use sysctl::check_setting;

/// Why a command was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the kernel would answer.
    pub errno: i32,
    /// Why, for the log and for clients that ask.
    pub message: String,
}

impl Refusal {
    fn new(errno: i32, message: impl Into<String>) -> Self {
        Self { errno, message: message.into() }
    }
}

impl From<i32> for Refusal {
    fn from(errno: i32) -> Self {
        Self::new(errno, "the request is not valid")
    }
}

impl From<DatapathError> for Refusal {
    fn from(error: DatapathError) -> Self {
        use rvs_netlink::errno::{ENOMEM, EOPNOTSUPP};
        let errno = match error {
            DatapathError::Full(_) => ENOMEM,
            DatapathError::Unsupported(_) | DatapathError::Netfilter(_) => EOPNOTSUPP,
            DatapathError::Kernel(errno) => errno,
        };
        Self::new(errno, error.to_string())
    }
}

/// All control state over one data path.
pub struct Director<D> {
    datapath: D,
    services: Table,
    estimators: Estimators,
    refusals: Vec<Refusal>,
    daemons: daemon::Running,
}

impl<D: Datapath> Director<D> {
    /// Takes over whatever `datapath` holds already.
    pub fn new(datapath: D) -> Self {
        let mut services = Table::default();
        datapath.for_each_service(&mut |key, config, dests| {
            let (key, config, dests) = (*key, *config, dests.to_vec());
            services.put(Service { key, config, dests });
        });
        let (estimators, daemons) = (Estimators::default(), daemon::Running::default());
        let mut director = Self { datapath, services, estimators, refusals: Vec::new(), daemons };
        director.each_counter(|estimators, subject, stats| estimators.start(subject, stats));
        director
    }

    /// The data path.
    pub fn datapath(&self) -> &D {
        &self.datapath
    }

    /// The data path, for its periodic work.
    pub fn datapath_mut(&mut self) -> &mut D {
        &mut self.datapath
    }

    /// Brings the rates up to date, unless `run_estimation` is 0: then they stay as they are. To be called every two seconds (`IPVS_EST_TICK` of the
    /// kernel's estimator).
    pub fn tick(&mut self) {
        if self.datapath.sysctl(Sysctl::RunEstimation) == 0 {
            return;
        }
        self.estimators.begin();
        self.each_counter(Estimators::sample);
        self.estimators.end();
    }

    /// Calls `f` with the counters of each service, of each destination, and of everything.
    fn each_counter(&mut self, mut f: impl FnMut(&mut Estimators, Subject, &Stats)) {
        let mut estimators = std::mem::take(&mut self.estimators);
        for service in self.services.iter() {
            let stats = self.datapath.service_stats(&service.key);
            f(&mut estimators, (service.key, None), &stats);
            for dest in &service.dests {
                let status = self.datapath.dest_status(&service.key, &dest.key);
                f(&mut estimators, (service.key, Some(dest.key)), &status.stats);
            }
        }
        f(&mut estimators, EVERYTHING, &self.datapath.everything(&mut |_| {}));
        self.estimators = estimators;
    }

    /// What was refused since the last call, to be logged.
    pub fn take_refusals(&mut self) -> Vec<Refusal> {
        std::mem::take(&mut self.refusals)
    }

    /// Puts `service`, checked, in the place of what there is under its key.
    fn commit(&mut self, service: Service, change: Change) -> Result<(), Refusal> {
        self.datapath.put_service(&service.key, &service.config, &service.dests, change)?;
        self.services.put(service);
        Ok(())
    }
}
