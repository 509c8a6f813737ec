//! Requests: one function a command. The order of checks is the kernel's, so that a request with
//! two faults is refused for the same one (`tests/oracle/recorded/netlink.jsonl`).

use rvs_core::control::{Change, Datapath, Rates, Stats};
use rvs_core::types::{DestConfig, ServiceKey, Timeouts};
use rvs_netlink::attr::{Attrs, Writer};
use rvs_netlink::errno::{EEXIST, EINVAL, ENOENT, EOPNOTSUPP, ERANGE, ESRCH};
use rvs_netlink::ipvs::{self, cmd_attr, command, policy, svc_attr};

use crate::estimator::EVERYTHING;
use crate::reply::Answers;
use crate::table::Service;
use crate::{Director, Refusal, check};

/// Longest timeout that can be asked for, in seconds: as many as fit an int in the kernel's jiffies
/// at 250 Hz.
const MAX_TIMEOUT: u32 = i32::MAX as u32 / 250;

/// Most connections of a page: their rows take about half a megabyte.
const PAGE: u32 = 4096;

/// Bytes of a connection, and some to spare.
const CONN: usize = 192;

impl<D: Datapath> Director<D> {
    /// Carries out one command.
    pub(crate) fn execute(
        &mut self,
        command: u8,
        attrs: &Attrs<'_>,
        dump: bool,
    ) -> Result<Answers, Refusal> {
        if let Some(kind) = policy::misfit(attrs, policy::COMMAND) {
            return Err(Refusal::new(ERANGE, format!("attribute {kind} has a wrong length")));
        }
        if dump {
            return match command {
                command::GET_SERVICE => Ok(self.dump_services()),
                command::GET_DEST => Ok(self.dump_dests(attrs)),
                command::GET_DAEMON => Ok(self.dump_daemons()),
                command::GET_CONNS => Ok(self.dump_conns(attrs)),
                command::GET_SYSCTL => self.dump_sysctls(attrs),
                command::GET_MARK => Ok(self.dump_marks()),
                _ => Err(Refusal::new(EOPNOTSUPP, format!("command {command} is no dump"))),
            };
        }
        let nothing = |()| Vec::new();
        match command {
            command::NEW_SERVICE => self.new_service(attrs).map(nothing),
            command::SET_SERVICE => self.set_service(attrs).map(nothing),
            command::DEL_SERVICE => self.del_service(attrs).map(nothing),
            command::GET_SERVICE => self.get_service(attrs),
            command::NEW_DEST => self.new_dest(attrs).map(nothing),
            command::SET_DEST => self.set_dest(attrs).map(nothing),
            command::DEL_DEST => self.del_dest(attrs).map(nothing),
            command::NEW_DAEMON => self.new_daemon(&nested(attrs, cmd_attr::DAEMON)?).map(nothing),
            command::DEL_DAEMON => self.del_daemon(&nested(attrs, cmd_attr::DAEMON)?).map(nothing),
            command::SET_CONFIG => self.set_config(attrs).map(nothing),
            command::GET_CONFIG => Ok(self.get_config()),
            command::GET_INFO => Ok(self.get_info()),
            command::ZERO => self.zero(attrs).map(nothing),
            command::FLUSH => self.flush().map(nothing),
            command::GET_STATS => Ok(self.get_stats()),
            command::SET_SYSCTL => self.set_sysctl(attrs).map(nothing),
            // Who serves the socket adds the descriptor.
            command::GET_PROC => Ok(Vec::new()),
            command::NEW_MARK => self.new_mark(attrs).map(nothing),
            command::DEL_MARK => self.del_mark(attrs).map(nothing),
            command::FLUSH_MARKS => self.flush_marks().map(nothing),
            command::GET_DEST
            | command::GET_DAEMON
            | command::GET_CONNS
            | command::GET_SYSCTL
            | command::GET_MARK => {
                Err(Refusal::new(EOPNOTSUPP, format!("command {command} is only a dump")))
            }
            _ => Err(Refusal::new(EOPNOTSUPP, format!("no command {command}"))),
        }
    }

    /// The service that a request names.
    fn named(&self, attrs: &Attrs<'_>) -> Result<&Service, Refusal> {
        let key = ipvs::service_key(&nested(attrs, cmd_attr::SERVICE)?)?;
        self.known(&key)
    }

    fn known(&self, key: &ServiceKey) -> Result<&Service, Refusal> {
        self.services.get(key).ok_or_else(|| Refusal::new(ESRCH, format!("no service {key:?}")))
    }

    fn new_service(&mut self, attrs: &Attrs<'_>) -> Result<(), Refusal> {
        let asked = ipvs::service(&nested(attrs, cmd_attr::SERVICE)?)?;
        let key = asked.key;
        if self.services.get(&key).is_some() {
            return Err(Refusal::new(EEXIST, format!("service {key:?} exists")));
        }
        let config = check::service_config(&asked)?;
        let service = Service { key, config, dests: Vec::new() };
        self.commit(service, Change::Service)?;
        self.estimators.start((key, None), &Stats::default());
        Ok(())
    }

    fn set_service(&mut self, attrs: &Attrs<'_>) -> Result<(), Refusal> {
        let nested = nested(attrs, cmd_attr::SERVICE)?;
        let mut asked = ipvs::service(&nested)?;
        let Service { key, config: now, dests, .. } = self.known(&asked.key)?.clone();
        let kept = now.flags.bits() & !ipvs::flags_mask(&nested)?;
        asked.flags |= rvs_core::types::ServiceFlags::from_bits_retain(kept);
        let config = check::service_config(&asked)?;
        self.commit(Service { key, config, dests }, Change::Service)
    }

    fn del_service(&mut self, attrs: &Attrs<'_>) -> Result<(), Refusal> {
        let key = self.named(attrs)?.key;
        self.services.remove(&key);
        self.datapath.remove_service(&key);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Refusal> {
        for service in std::mem::take(&mut self.services).iter() {
            self.datapath.remove_service(&service.key);
        }
        Ok(())
    }

    fn put_service(&self, service: &Service) -> Writer {
        let entity = ipvs::Service {
            key: service.key,
            scheduler: service.config.scheduler.name().to_owned(),
            flags: service.config.flags | rvs_core::types::ServiceFlags::HASHED,
            timeout: service.config.timeout,
            netmask: service.config.netmask,
            pe: service.config.engine.map(|engine| engine.name().to_owned()),
        };
        let mut inner = Writer::new();
        ipvs::put_service(&mut inner, &entity);
        let stats = self.datapath.service_stats(&service.key);
        let rates = self.rates(&service.key, None);
        ipvs::put_stats(&mut inner, svc_attr::STATS, svc_attr::STATS64, &stats, &rates);
        let mut attrs = Writer::new();
        attrs.nest(cmd_attr::SERVICE, &inner);
        attrs
    }

    fn rates(&self, key: &ServiceKey, dest: Option<&DestConfig>) -> Rates {
        self.estimators.rates(&(*key, dest.map(|dest| dest.key)))
    }

    fn dump_services(&self) -> Answers {
        let services = self.services.iter();
        services.map(|s| (command::NEW_SERVICE, self.put_service(s))).collect()
    }

    fn get_service(&self, attrs: &Attrs<'_>) -> Result<Answers, Refusal> {
        Ok(vec![(command::NEW_SERVICE, self.put_service(self.named(attrs)?))])
    }

    /// Nothing, as in the kernel, if the service is not there.
    fn dump_dests(&self, attrs: &Attrs<'_>) -> Answers {
        let Ok(service) = self.named(attrs) else { return Vec::new() };
        let row = |dest: &DestConfig| {
            let status = self.datapath.dest_status(&service.key, &dest.key);
            let rates = self.rates(&service.key, Some(dest));
            let mut inner = Writer::new();
            ipvs::put_dest_status(&mut inner, dest, &status, &rates);
            let mut attrs = Writer::new();
            attrs.nest(cmd_attr::DEST, &inner);
            (command::NEW_DEST, attrs)
        };
        service.dests.iter().map(row).collect()
    }

    fn new_dest(&mut self, attrs: &Attrs<'_>) -> Result<(), Refusal> {
        let mut service = self.named(attrs)?.clone();
        let asked = nested(attrs, cmd_attr::DEST)?;
        let (dest, weight) = ipvs::dest(&asked, service.key.family())?;
        self.check_synchronised(&service.key, &dest)?;
        check::dest_numbers(&service.key, &dest, weight)?;
        if service.position(&dest.key).is_some() {
            return Err(Refusal::new(EEXIST, format!("destination {} exists", dest.key.addr)));
        }
        check::dest_addr(&dest)?;
        service.dests.insert(0, dest);
        let key = service.key;
        self.commit(service, Change::Dests)?;
        // One that comes back has counted before.
        let stats = self.datapath.dest_status(&key, &dest.key).stats;
        self.estimators.start((key, Some(dest.key)), &stats);
        Ok(())
    }

    fn set_dest(&mut self, attrs: &Attrs<'_>) -> Result<(), Refusal> {
        let mut service = self.named(attrs)?.clone();
        let asked = nested(attrs, cmd_attr::DEST)?;
        let (dest, weight) = ipvs::dest(&asked, service.key.family())?;
        self.check_synchronised(&service.key, &dest)?;
        check::dest_numbers(&service.key, &dest, weight)?;
        let place = service.position(&dest.key).and_then(|at| service.dests.get_mut(at));
        let missing = || Refusal::new(ENOENT, format!("no destination {}", dest.key.addr));
        *place.ok_or_else(missing)? = dest;
        check::dest_addr(&dest)?;
        self.commit(service, Change::Dests)
    }

    fn del_dest(&mut self, attrs: &Attrs<'_>) -> Result<(), Refusal> {
        let mut service = self.named(attrs)?.clone();
        let asked = nested(attrs, cmd_attr::DEST)?;
        let dest = ipvs::dest_key(&asked, service.key.family())?;
        let missing = || Refusal::new(ENOENT, format!("no destination {}", dest.addr));
        service.dests.remove(service.position(&dest).ok_or_else(missing)?);
        self.commit(service, Change::Dests)
    }

    fn set_config(&mut self, attrs: &Attrs<'_>) -> Result<(), Refusal> {
        let asked = |kind| attrs.u32(kind).unwrap_or_default();
        let [tcp, tcp_fin, udp] =
            [cmd_attr::TIMEOUT_TCP, cmd_attr::TIMEOUT_TCP_FIN, cmd_attr::TIMEOUT_UDP].map(asked);
        if let Some(timeout) = [tcp, tcp_fin, udp].into_iter().find(|t| *t > MAX_TIMEOUT) {
            return Err(Refusal::new(EINVAL, format!("a timeout of {timeout} s is too long")));
        }
        let now = self.datapath.timeouts();
        // 0 leaves a timeout as it is.
        let or = |asked: u32, now: u32| if asked == 0 { now } else { asked };
        let timeouts = Timeouts {
            tcp: or(tcp, now.tcp),
            tcp_fin: or(tcp_fin, now.tcp_fin),
            udp: or(udp, now.udp),
        };
        Ok(self.datapath.set_timeouts(timeouts)?)
    }

    fn get_config(&self) -> Answers {
        let timeouts = self.datapath.timeouts();
        let mut attrs = Writer::new();
        attrs
            .u32(cmd_attr::TIMEOUT_TCP, timeouts.tcp)
            .u32(cmd_attr::TIMEOUT_TCP_FIN, timeouts.tcp_fin)
            .u32(cmd_attr::TIMEOUT_UDP, timeouts.udp);
        vec![(command::SET_CONFIG, attrs)]
    }

    fn get_info(&self) -> Answers {
        let mut attrs = Writer::new();
        attrs
            .u32(ipvs::INFO_VERSION, ipvs::VERSION_CODE)
            .u32(ipvs::INFO_CONN_TAB_SIZE, self.datapath.conn_capacity());
        vec![(command::SET_INFO, attrs)]
    }

    fn get_stats(&self) -> Answers {
        let mut attrs = Writer::new();
        let stats = self.datapath.everything(&mut |stats| {
            ipvs::put_counters(&mut attrs, cmd_attr::CPU_STATS, stats);
        });
        let rates = self.estimators.rates(&EVERYTHING);
        ipvs::put_stats(&mut attrs, cmd_attr::STATS, cmd_attr::STATS64, &stats, &rates);
        vec![(command::GET_STATS, attrs)]
    }

    fn zero(&mut self, attrs: &Attrs<'_>) -> Result<(), Refusal> {
        let keys: Vec<ServiceKey> = if attrs.find(cmd_attr::SERVICE).is_some() {
            vec![self.named(attrs)?.key]
        } else {
            self.datapath.zero_everything();
            self.estimators.start(EVERYTHING, &Stats::default());
            self.services.iter().map(|service| service.key).collect()
        };
        for key in keys {
            self.datapath.zero(&key);
            self.estimators.start((key, None), &Stats::default());
            for dest in self.services.get(&key).into_iter().flat_map(|s| &s.dests) {
                self.estimators.start((key, Some(dest.key)), &Stats::default());
            }
        }
        Ok(())
    }

    /// The page of the connection table that begins at the cursor, with where the next begins.
    fn dump_conns(&self, attrs: &Attrs<'_>) -> Answers {
        let mut answers = Vec::new();
        let limit = attrs.u32(cmd_attr::LIMIT).unwrap_or(PAGE).clamp(1, PAGE) as usize;
        let start = attrs.u64(cmd_attr::CURSOR).unwrap_or_default();
        let next = self.datapath.conns_from(start, &mut |row| {
            let mut inner = Writer::with_capacity(CONN);
            ipvs::put_conn(&mut inner, row);
            let mut attrs = Writer::with_capacity(CONN);
            attrs.nest(cmd_attr::CONN, &inner);
            answers.push((command::GET_CONNS, attrs));
            answers.len() < limit
        });
        if let Some(next) = next {
            let mut attrs = Writer::new();
            attrs.u64(cmd_attr::CURSOR, next);
            answers.push((command::GET_CONNS, attrs));
        }
        answers
    }
}

/// A nest that a request must have.
fn nested<'b>(attrs: &Attrs<'b>, kind: u16) -> Result<Attrs<'b>, Refusal> {
    Ok(attrs.nested(kind).ok_or(EINVAL)?)
}
