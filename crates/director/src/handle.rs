//! Requests: one function a command, and the framing around them.

use rvs_core::control::{Change, Datapath, Rates};
use rvs_core::types::{DestConfig, ServiceKey, Timeouts};
use rvs_netlink::attr::{Attrs, Writer};
use rvs_netlink::client::{CTRL_FAMILY_ID, CTRL_FAMILY_NAME, CTRL_GETFAMILY, CTRL_NEWFAMILY};
use rvs_netlink::errno::{EEXIST, EINVAL, ENOENT, EOPNOTSUPP, ESRCH};
use rvs_netlink::ipvs::{self, cmd_attr, command, svc_attr};
use rvs_netlink::message::{
    self, CTRL, F_ACK, F_DUMP, F_MULTI, F_REQUEST, Message, Messages, acknowledge, generic,
};

use crate::totals::EVERYTHING;
use crate::{Director, Refusal, Service, check, dest_position};

/// Number of the family on our socket; the kernel draws one when ip_vs is loaded.
pub const FAMILY_ID: u16 = 0x23;

/// Messages of a dump share datagrams up to this size.
const DATAGRAM: usize = 32 * 1024;

/// Longest timeout that `ipvsadm --set` can ask for, in seconds: what fits jiffies in an int.
const MAX_TIMEOUT: u32 = (1 << 31) / 1000;

/// Attributes of the answers to a dump or a get, in order.
type Answers = Vec<(u8, Writer)>;

impl<D: Datapath> Director<D> {
    /// Handles a datagram with any number of requests; the datagrams to answer with.
    pub fn handle(&mut self, datagram: &[u8]) -> Vec<Vec<u8>> {
        let mut replies = Vec::new();
        for request in Messages(datagram) {
            self.answer(&request, &mut replies);
        }
        replies
    }

    fn answer(&mut self, request: &Message<'_>, replies: &mut Vec<Vec<u8>>) {
        if request.flags & F_REQUEST == 0 {
            return;
        }
        let dump = request.flags & F_DUMP == F_DUMP;
        let result = match (request.kind, request.command()) {
            (CTRL, Some(CTRL_GETFAMILY)) => family(request),
            (FAMILY_ID, Some(command)) => self.execute(command, &request.attrs(), dump),
            _ => Err(Refusal::new(EOPNOTSUPP, "not a command of family IPVS")),
        };
        match result {
            Ok(answers) => {
                frame(request, dump, answers, replies);
                if dump {
                    append(replies, message::done(request));
                } else if request.flags & F_ACK != 0 {
                    replies.push(acknowledge(request, 0));
                }
            }
            Err(refusal) => {
                replies.push(acknowledge(request, refusal.errno));
                self.refusals.push(refusal);
            }
        }
    }

    fn execute(&mut self, command: u8, attrs: &Attrs<'_>, dump: bool) -> Result<Answers, Refusal> {
        let nothing = |()| Vec::new();
        match command {
            command::NEW_SERVICE => self.new_service(attrs).map(nothing),
            command::SET_SERVICE => self.set_service(attrs).map(nothing),
            command::DEL_SERVICE => self.del_service(attrs).map(nothing),
            command::GET_SERVICE if dump => Ok(self.dump_services()),
            command::GET_SERVICE => self.get_service(attrs),
            command::NEW_DEST => self.new_dest(attrs).map(nothing),
            command::SET_DEST => self.set_dest(attrs).map(nothing),
            command::DEL_DEST => self.del_dest(attrs).map(nothing),
            command::GET_DEST => self.dump_dests(attrs),
            command::GET_DAEMON => Ok(Vec::new()),
            command::NEW_DAEMON | command::DEL_DAEMON => {
                Err(Refusal::new(EOPNOTSUPP, "there is no sync daemon yet"))
            }
            command::SET_CONFIG => self.set_config(attrs).map(nothing),
            command::GET_CONFIG => Ok(self.get_config()),
            command::GET_INFO => Ok(self.get_info()),
            command::ZERO => self.zero(attrs).map(nothing),
            command::FLUSH => self.flush().map(nothing),
            command::GET_CONNS => Ok(self.dump_conns()),
            command::GET_STATS => Ok(self.get_stats()),
            _ => Err(Refusal::new(EOPNOTSUPP, format!("no command {command}"))),
        }
    }

    /// The service that a request names.
    fn named(&self, attrs: &Attrs<'_>) -> Result<(usize, ServiceKey), Refusal> {
        let nested = attrs.nested(cmd_attr::SERVICE).ok_or(EINVAL)?;
        let key = ipvs::service_key(&nested)?;
        let position = self
            .position(&key)
            .ok_or_else(|| Refusal::new(ESRCH, format!("no service {key:?}")))?;
        Ok((position, key))
    }

    fn new_service(&mut self, attrs: &Attrs<'_>) -> Result<(), Refusal> {
        let nested = attrs.nested(cmd_attr::SERVICE).ok_or(EINVAL)?;
        let key = ipvs::service_key(&nested)?;
        if self.position(&key).is_some() {
            return Err(Refusal::new(EEXIST, format!("service {key:?} exists")));
        }
        let config = check::service_config(&self.datapath, &ipvs::service(&nested)?)?;
        self.commit(Service { key, config, dests: Vec::new() }, Change::Service)
    }

    fn set_service(&mut self, attrs: &Attrs<'_>) -> Result<(), Refusal> {
        let (position, key) = self.named(attrs)?;
        let nested = attrs.nested(cmd_attr::SERVICE).ok_or(EINVAL)?;
        let config = check::service_config(&self.datapath, &ipvs::service(&nested)?)?;
        let dests = self.services[position].dests.clone();
        self.commit(Service { key, config, dests }, Change::Service)
    }

    fn del_service(&mut self, attrs: &Attrs<'_>) -> Result<(), Refusal> {
        let (position, key) = self.named(attrs)?;
        self.totals.keep(&self.datapath, &key);
        self.services.remove(position);
        self.datapath.remove_service(&key);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Refusal> {
        for service in std::mem::take(&mut self.services) {
            self.totals.keep(&self.datapath, &service.key);
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
            pe: None,
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
        let (position, _) = self.named(attrs)?;
        Ok(vec![(command::NEW_SERVICE, self.put_service(&self.services[position]))])
    }

    fn dump_dests(&self, attrs: &Attrs<'_>) -> Result<Answers, Refusal> {
        let (position, key) = self.named(attrs)?;
        let mut answers = Vec::new();
        for dest in &self.services[position].dests {
            let mut inner = Writer::new();
            ipvs::put_dest(&mut inner, dest);
            let status = self.datapath.dest_status(&key, &dest.key);
            ipvs::put_dest_status(&mut inner, &status, &self.rates(&key, Some(dest)));
            let mut attrs = Writer::new();
            attrs.nest(cmd_attr::DEST, &inner);
            answers.push((command::NEW_DEST, attrs));
        }
        Ok(answers)
    }

    fn new_dest(&mut self, attrs: &Attrs<'_>) -> Result<(), Refusal> {
        let (position, key) = self.named(attrs)?;
        let nested = attrs.nested(cmd_attr::DEST).ok_or(EINVAL)?;
        let (dest, weight) = ipvs::dest(&nested, key.family())?;
        let mut service = self.services[position].clone();
        check::dest(&key, &service.config, &dest, weight)?;
        if dest_position(&service, &dest.key).is_some() {
            return Err(Refusal::new(EEXIST, format!("destination {} exists", dest.key.addr)));
        }
        service.dests.insert(0, dest);
        self.commit(service, Change::Dests)
    }

    fn set_dest(&mut self, attrs: &Attrs<'_>) -> Result<(), Refusal> {
        let (position, key) = self.named(attrs)?;
        let nested = attrs.nested(cmd_attr::DEST).ok_or(EINVAL)?;
        let (dest, weight) = ipvs::dest(&nested, key.family())?;
        let mut service = self.services[position].clone();
        check::dest(&key, &service.config, &dest, weight)?;
        let index = dest_position(&service, &dest.key)
            .ok_or_else(|| Refusal::new(ENOENT, format!("no destination {}", dest.key.addr)))?;
        service.dests[index] = dest;
        self.commit(service, Change::Dests)
    }

    fn del_dest(&mut self, attrs: &Attrs<'_>) -> Result<(), Refusal> {
        let (position, key) = self.named(attrs)?;
        let nested = attrs.nested(cmd_attr::DEST).ok_or(EINVAL)?;
        let dest = ipvs::dest_key(&nested, key.family())?;
        let mut service = self.services[position].clone();
        let index = dest_position(&service, &dest)
            .ok_or_else(|| Refusal::new(ENOENT, format!("no destination {}", dest.addr)))?;
        service.dests.remove(index);
        self.commit(service, Change::Dests)
    }

    fn set_config(&mut self, attrs: &Attrs<'_>) -> Result<(), Refusal> {
        let get = |kind| attrs.u32(kind).ok_or(EINVAL);
        let asked = [
            get(cmd_attr::TIMEOUT_TCP)?,
            get(cmd_attr::TIMEOUT_TCP_FIN)?,
            get(cmd_attr::TIMEOUT_UDP)?,
        ];
        if asked.iter().any(|timeout| *timeout > MAX_TIMEOUT) {
            return Err(Refusal::new(EINVAL, "a timeout is out of range"));
        }
        let now = self.datapath.timeouts();
        // 0 leaves a timeout as it is.
        let or = |asked: u32, now: u32| if asked == 0 { now } else { asked };
        let timeouts = Timeouts {
            tcp: or(asked[0], now.tcp),
            tcp_fin: or(asked[1], now.tcp_fin),
            udp: or(asked[2], now.udp),
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
        let (stats, rates) = (self.total(), self.estimators.rates(&EVERYTHING));
        let mut attrs = Writer::new();
        ipvs::put_stats(&mut attrs, cmd_attr::STATS, cmd_attr::STATS64, &stats, &rates);
        vec![(command::GET_STATS, attrs)]
    }

    fn zero(&mut self, attrs: &Attrs<'_>) -> Result<(), Refusal> {
        let keys: Vec<ServiceKey> = if attrs.find(cmd_attr::SERVICE).is_some() {
            let key = self.named(attrs)?.1;
            self.totals.keep(&self.datapath, &key);
            vec![key]
        } else {
            self.totals.zero();
            self.estimators.zero(&EVERYTHING);
            self.services.iter().map(|service| service.key).collect()
        };
        for key in keys {
            self.datapath.zero(&key);
            self.estimators.zero(&(key, None));
            let dests = self.position(&key).map(|p| self.services[p].dests.clone());
            for dest in dests.into_iter().flatten() {
                self.estimators.zero(&(key, Some(dest.key)));
            }
        }
        Ok(())
    }

    fn dump_conns(&self) -> Answers {
        let mut answers = Vec::new();
        self.datapath.for_each_conn(&mut |row| {
            let mut inner = Writer::new();
            ipvs::put_conn(&mut inner, row);
            let mut attrs = Writer::new();
            attrs.nest(cmd_attr::CONN, &inner);
            answers.push((command::GET_CONNS, attrs));
            true
        });
        answers
    }
}

/// Answers `CTRL_CMD_GETFAMILY` for "IPVS".
fn family(request: &Message<'_>) -> Result<Answers, Refusal> {
    let attrs = request.attrs();
    let by_name = attrs.text(CTRL_FAMILY_NAME) == Some(ipvs::FAMILY);
    if !by_name && attrs.u16(CTRL_FAMILY_ID) != Some(FAMILY_ID) {
        return Err(Refusal::new(ENOENT, "no such netlink family"));
    }
    let mut attrs = Writer::new();
    attrs
        .text(CTRL_FAMILY_NAME, ipvs::FAMILY)
        .u16(CTRL_FAMILY_ID, FAMILY_ID)
        // CTRL_ATTR_VERSION, CTRL_ATTR_HDRSIZE, CTRL_ATTR_MAXATTR
        .u32(3, u32::from(ipvs::VERSION))
        .u32(4, 0)
        .u32(5, 6);
    Ok(vec![(CTRL_NEWFAMILY, attrs)])
}

/// Turns answers into messages, those of a dump sharing datagrams.
fn frame(request: &Message<'_>, dump: bool, answers: Answers, replies: &mut Vec<Vec<u8>>) {
    let flags = if dump { F_MULTI } else { 0 };
    for (command, attrs) in answers {
        let kind = request.kind;
        let bytes = generic(kind, flags, request.sequence, request.port, command, &attrs);
        if dump { append(replies, bytes) } else { replies.push(bytes) }
    }
}

/// Appends a message to the last datagram while it has room.
fn append(replies: &mut Vec<Vec<u8>>, bytes: Vec<u8>) {
    match replies.last_mut() {
        Some(last) if last.len() + bytes.len() <= DATAGRAM => last.extend_from_slice(&bytes),
        _ => replies.push(bytes),
    }
}
