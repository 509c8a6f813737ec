//! Counters of everything, as the kernel's `ipvs->tot_stats`: what services counted that are no more
//! stays in them. Until the director ends, that is; a new one starts from the services that it finds.

use rvs_core::control::{Datapath, Stats};
use rvs_core::types::{Family, ServiceKey};

use crate::estimator::Subject;

/// What rates of everything are kept under: no service has the mark 0.
pub(crate) const EVERYTHING: Subject = (ServiceKey::Fwmark { family: Family::V4, mark: 0 }, None);

/// What was counted since all was zeroed and is not in a service's counters any more.
#[derive(Debug, Default)]
pub(crate) struct Totals(Stats);

impl Totals {
    /// To be called before a service is removed or zeroed alone.
    pub fn keep(&mut self, datapath: &impl Datapath, key: &ServiceKey) {
        add(&mut self.0, &datapath.service_stats(key));
    }

    /// To be called when everything is zeroed.
    pub fn zero(&mut self) {
        self.0 = Stats::default();
    }

    /// The sum of this and of the present services.
    pub fn sum<'k>(
        &self,
        datapath: &impl Datapath,
        services: impl Iterator<Item = &'k ServiceKey>,
    ) -> Stats {
        let mut sum = self.0;
        services.for_each(|key| add(&mut sum, &datapath.service_stats(key)));
        sum
    }
}

fn add(sum: &mut Stats, more: &Stats) {
    sum.conns = sum.conns.wrapping_add(more.conns);
    sum.in_pkts = sum.in_pkts.wrapping_add(more.in_pkts);
    sum.out_pkts = sum.out_pkts.wrapping_add(more.out_pkts);
    sum.in_bytes = sum.in_bytes.wrapping_add(more.in_bytes);
    sum.out_bytes = sum.out_bytes.wrapping_add(more.out_bytes);
}
