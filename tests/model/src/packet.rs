//! What becomes of a packet.

use std::net::{IpAddr, SocketAddr};

use rvs_core::control::Stats;
use rvs_core::types::{ForwardMethod, Protocol, ServiceFlags, ServiceKey};

use crate::conn::Conn;
use crate::state::{Sender, State};
use crate::{Id, Model};

/// A packet, as far as IPVS reads it.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Who sent it.
    pub src: SocketAddr,
    /// Whom it is for.
    pub dst: SocketAddr,
    /// Letters of TCP flags.
    pub flags: &'static str,
    /// Bytes from the IP header on.
    pub len: u64,
    /// Its mark, or 0.
    pub mark: u32,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is the host's.
    Left,
    /// No destination takes the connection: the client is told.
    Refused,
    /// Its destination was deleted.
    Lost,
    /// Sent on to this address.
    Masqueraded(SocketAddr),
    /// Sent on as it is, to a destination or its neighbour.
    Routed,
    /// Sent on inside a packet to this address.
    Tunneled(IpAddr),
    /// A destination's answer, which now comes from this virtual address.
    Answered(SocketAddr),
}

impl Packet {
    fn has(&self, flag: char) -> bool {
        self.protocol == Protocol::Tcp && self.flags.contains(flag)
    }
}

impl Model {
    /// A packet arrives.
    pub fn packet(&mut self, packet: &Packet) -> Fate {
        if let Some(id) = self.find(|conn| is_answer(conn, packet)) {
            return self.answer(id, packet);
        }
        if let Some(id) = self.find(|conn| is_request(conn, packet)) {
            let gone = !self.dest(self.conns[&id].dest).available;
            let anew = packet.has('S') && self.starts_over(id);
            if !anew && !gone {
                return self.forward(id, packet);
            }
            if !anew && !self.settings.expire_nodest_conn {
                return Fate::Lost;
            }
            // A timer ends the old one, so it still counts when the new one's destination is chosen.
            let fate = self.open(packet);
            self.end(id);
            return fate;
        }
        self.open(packet)
    }

    fn find(&self, is: impl Fn(&Conn) -> bool) -> Option<Id> {
        self.conns.iter().find(|(_, conn)| is(conn)).map(|(id, _)| *id)
    }

    /// Whether a SYN of a connection that is known opens a new one in its place.
    fn starts_over(&self, id: Id) -> bool {
        let conn = &self.conns[&id];
        if self.settings.expire_nodest_conn && self.dest(conn.dest).config.weight == 0 {
            return true;
        }
        let (mode, one_way) =
            (self.settings.conn_reuse_mode, conn.forward != ForwardMethod::Masquerade);
        mode != 0
            && conn.template.is_none()
            && match conn.state {
                State::TimeWait | State::Close => true,
                State::FinWait => mode & 2 != 0 && one_way,
                _ => false,
            }
    }

    /// A packet that belongs to no connection.
    fn open(&mut self, packet: &Packet) -> Fate {
        let Some(key) = self.service_for(packet) else { return Fate::Left };
        // FTP's servers open data connections from this port, and nothing else should.
        if packet.src.port() == 20 {
            return Fate::Left;
        }
        if packet.protocol == Protocol::Tcp {
            let opens = packet.has('S') || self.settings.sloppy_tcp;
            if !opens || packet.has('R') {
                return Fate::Left;
            }
        }
        let Some((dest, template)) = self.choose(&key, packet) else { return Fate::Refused };
        let config = self.dest(dest).config;
        let flags = self.service(&key).expect("it was found").config.flags;
        let persistent = flags.contains(ServiceFlags::PERSISTENT);
        let port = match config.key.port {
            0 => packet.dst.port(),
            // Templates of any port are about all ports: each keeps its own.
            _ if persistent && is_of_any_port(&key) => packet.dst.port(),
            port => port,
        };
        let target = SocketAddr::new(config.key.addr, port);
        self.count(dest, Stats { conns: 1, ..Stats::default() });
        let conn = Conn {
            protocol: packet.protocol,
            client: packet.src,
            virt: packet.dst,
            dest,
            target,
            forward: config.forward,
            state: if packet.protocol == Protocol::Tcp { State::None } else { State::Udp },
            deadline: self.now,
            template,
        };
        let id = self.new_id();
        self.conns.insert(id, conn);
        self.bound(dest);
        let fate = self.forward(id, packet);
        if flags.contains(ServiceFlags::ONEPACKET) && packet.protocol == Protocol::Udp {
            self.end(id);
        }
        fate
    }

    /// The service of a packet: by its mark, else its address and port, else its address and any
    /// port.
    fn service_for(&self, packet: &Packet) -> Option<ServiceKey> {
        let address =
            |port| ServiceKey::Address { protocol: packet.protocol, addr: packet.dst.ip(), port };
        let by_mark = self.services.iter().map(|service| service.key).find(|key| match key {
            ServiceKey::Fwmark { mark, family } => {
                *mark == packet.mark && *family == address(0).family()
            }
            ServiceKey::Address { .. } => false,
        });
        let known = |key: &ServiceKey| self.service(key).is_some();
        let exact = Some(address(packet.dst.port())).filter(known);
        by_mark.or(exact).or_else(|| Some(address(0)).filter(known))
    }

    /// A client's packet goes to its destination.
    fn forward(&mut self, id: Id, packet: &Packet) -> Fate {
        let conn = &self.conns[&id];
        let (dest, target, forward) = (conn.dest, conn.target, conn.forward);
        let both = forward == ForwardMethod::Masquerade;
        self.count(dest, Stats { in_pkts: 1, in_bytes: packet.len, ..Stats::default() });
        self.follow(id, if both { Sender::Client } else { Sender::ClientOnly }, packet);
        match forward {
            ForwardMethod::Masquerade => Fate::Masqueraded(target),
            ForwardMethod::Tunnel => Fate::Tunneled(target.ip()),
            _ => Fate::Routed,
        }
    }

    /// A destination's packet goes to its client, even if the destination was deleted.
    fn answer(&mut self, id: Id, packet: &Packet) -> Fate {
        let (dest, virt) = (self.conns[&id].dest, self.conns[&id].virt);
        self.count(dest, Stats { out_pkts: 1, out_bytes: packet.len, ..Stats::default() });
        self.follow(id, Sender::Server, packet);
        Fate::Answered(virt)
    }

    /// Counts for a destination, its service and everything. What is not in force is not counted.
    fn count(&mut self, id: Id, more: Stats) {
        let dest = self.dest_mut(id);
        if !dest.available {
            return;
        }
        add(&mut dest.stats, more);
        add(&mut self.total, more);
        let service = self.services.iter_mut().find(|service| service.dests.contains(&id));
        add(&mut service.expect("a destination in force has a service").stats, more);
    }
}

/// Whether a service is for every port of its address, or of whatever has its mark.
pub(crate) fn is_of_any_port(key: &ServiceKey) -> bool {
    matches!(key, ServiceKey::Fwmark { .. } | ServiceKey::Address { port: 0, .. })
}

fn is_request(conn: &Conn, packet: &Packet) -> bool {
    (conn.protocol, conn.client, conn.virt) == (packet.protocol, packet.src, packet.dst)
}

fn is_answer(conn: &Conn, packet: &Packet) -> bool {
    conn.forward == ForwardMethod::Masquerade
        && (conn.protocol, conn.target, conn.client) == (packet.protocol, packet.src, packet.dst)
}

fn add(to: &mut Stats, more: Stats) {
    to.conns += more.conns;
    to.in_pkts += more.in_pkts;
    to.out_pkts += more.out_pkts;
    to.in_bytes += more.in_bytes;
    to.out_bytes += more.out_bytes;
}
