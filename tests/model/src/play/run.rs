//! Plays a case.

use std::net::SocketAddr;

use rvs_core::control::{Change, ConnRow, Stats};
use rvs_core::sysctl::Sysctl;
use rvs_core::types::{ForwardMethod, ServiceFlags, Timeouts};

use super::Target;
use super::case::{Case, Flow, SERVICES, Step};
use super::frame::{self, TTL, build};
use crate::listing::Row;
use crate::{Fate, Jiffies, Model, Packet, Tie};

/// What was played.
#[derive(Clone, Copy, Debug, Default)]
pub struct Played {
    /// Steps.
    pub steps: usize,
    /// Packets that were sent on.
    pub sent_on: u64,
    /// Whether a tie ended the case: nobody can say how it would go on.
    pub tie: bool,
}

/// Why a case ends early.
enum End {
    Tie,
    Wrong(String),
}

impl From<Tie> for End {
    fn from(_: Tie) -> Self {
        Self::Tie
    }
}

impl From<String> for End {
    fn from(why: String) -> Self {
        Self::Wrong(why)
    }
}

struct Play<'c, T> {
    case: &'c Case,
    model: Model,
    target: &'c mut T,
    now: Jiffies,
    /// Packets that went on, from clients and from servers, and connections.
    tally: Stats,
}

/// Plays a case on the model and on `target`: an error says where they differ.
pub fn play(case: &Case, target: &mut impl Target) -> Result<Played, String> {
    target.reset();
    let mut play =
        Play { case, model: Model::new(case.settings), target, now: 0, tally: Stats::default() };
    play.begin();
    let mut played = Played::default();
    let ended = play.steps(&mut played);
    played.sent_on = play.tally.in_pkts + play.tally.out_pkts;
    match ended {
        Ok(()) => Ok(played),
        Err(End::Tie) => Ok(Played { tie: true, ..played }),
        Err(End::Wrong(why)) => Err(why),
    }
}

/// What two sides have, if it differs.
fn equal<V: PartialEq + std::fmt::Debug>(what: &str, found: V, model: V) -> Result<(), String> {
    if found == model {
        return Ok(());
    }
    Err(format!("{what}\n RVS       {found:?}\n the model {model:?}"))
}

impl<T: Target> Play<'_, T> {
    fn begin(&mut self) {
        let settings = self.case.settings;
        let datapath = self.target.datapath();
        for (sysctl, value) in [
            (Sysctl::ExpireNodestConn, settings.expire_nodest_conn.into()),
            (Sysctl::ExpireQuiescentTemplate, settings.expire_quiescent_template.into()),
            (Sysctl::ConnReuseMode, settings.conn_reuse_mode.into()),
            (Sysctl::SloppyTcp, settings.sloppy_tcp.into()),
        ] {
            datapath.set_sysctl(sysctl, value).expect("it can be set");
        }
        self.set(Timeouts::default());
        for service in 0..SERVICES {
            let config = self.case.config(service, &self.case.services[service]);
            self.model.add_service(self.case.key(service), config);
            self.put(service, Change::Service);
        }
    }

    fn steps(&mut self, played: &mut Played) -> Result<(), End> {
        for (number, step) in self.case.steps.iter().enumerate() {
            let wrong = |why| End::Wrong(format!("step {number}, {step:?}: {why}"));
            match self.step(step) {
                Err(End::Wrong(why)) => return Err(wrong(why)),
                other => other?,
            }
            self.compare().map_err(wrong)?;
            played.steps += 1;
        }
        self.finish()
    }

    fn knows(&self, service: usize) -> bool {
        let key = self.case.key(service);
        self.model.services().any(|(known, ..)| known == key)
    }

    fn step(&mut self, step: &Step) -> Result<(), End> {
        match *step {
            Step::Client(flow, flags, payload) => {
                let opens = flags.contains('S');
                let (client, virt) = if opens { self.ends(&flow) } else { self.known(&flow) };
                self.packet(flow.service, client, virt, flags, payload)?;
            }
            Step::Server(flow, flags, payload) => {
                let (client, virt) = self.known(&flow);
                let rows = self.model.rows();
                let row = rows.iter().find(|row| (row.client, row.virt) == (client, virt));
                // Of a connection that is not known.
                let stray = SocketAddr::new(self.case.dest_key(flow.service, 0).addr, virt.port());
                match row {
                    // Its answers go another way.
                    Some(row) if row.forward != ForwardMethod::Masquerade => {}
                    Some(row) => self.packet(flow.service, row.dest, client, flags, payload)?,
                    None => self.packet(flow.service, stray, client, flags, payload)?,
                }
            }
            Step::Wait(time) => self.wait(time)?,
            _ => {
                self.command(step);
                self.tidy();
            }
        }
        Ok(())
    }

    /// Client and virtual address of a flow.
    fn ends(&self, flow: &Flow) -> (SocketAddr, SocketAddr) {
        (self.case.client_at(flow), self.case.virt(flow))
    }

    /// The same of a flow to that service which has a connection, if any has; of the flow itself if
    /// it is from the client's second port.
    fn known(&self, flow: &Flow) -> (SocketAddr, SocketAddr) {
        let ends = self.ends(flow);
        let rows = self.model.rows();
        let here = |row: &&Row| !row.template && row.virt.ip() == ends.1.ip();
        let mut known: Vec<_> =
            rows.iter().filter(here).map(|row| (row.client, row.virt)).collect();
        known.sort();
        if flow.port == 1 || known.contains(&ends) {
            return ends;
        }
        known.get(usize::from(flow.client) % known.len().max(1)).copied().unwrap_or(ends)
    }

    fn packet(
        &mut self,
        service: usize,
        src: SocketAddr,
        dst: SocketAddr,
        flags: &'static str,
        payload: usize,
    ) -> Result<(), String> {
        let protocol = self.case.services[service].protocol;
        // What a server sends has no mark, nor has what goes past the service's port.
        let marked = dst.ip() == self.case.vip(service);
        let mark = if marked { self.case.mark(service) } else { 0 };
        let mut packet = Packet { protocol, src, dst, flags, len: 0, mark };
        let bytes = build(&packet, payload, TTL);
        packet.len = frame::len(&bytes);
        let before = self.quiesced();
        let sent = self.target.send(&bytes, mark);
        let fate = self.model.packet(&packet);
        frame::check(&packet, payload, fate, &sent)?;
        match fate {
            Fate::Masqueraded(_) | Fate::Routed | Fate::Tunneled(_) => {
                self.tally.in_pkts += 1;
                self.tally.in_bytes += packet.len;
            }
            Fate::Answered(_) => self.tally.out_pkts += 1,
            Fate::Left | Fate::Refused | Fate::Lost => {}
        }
        equal("connections of quiesced destinations", self.quiesced(), before)
    }

    /// Connections that destinations of weight 0 ever got, without those that persistence gives
    /// them.
    fn quiesced(&mut self) -> u64 {
        let mut conns = 0;
        for (key, config, dests) in self.model.services().collect::<Vec<_>>() {
            if config.flags.contains(ServiceFlags::PERSISTENT) {
                continue;
            }
            let datapath = self.target.datapath();
            let quiesced = dests.iter().filter(|dest| dest.weight == 0);
            conns +=
                quiesced.map(|dest| datapath.dest_status(&key, &dest.key).stats.conns).sum::<u64>();
        }
        conns
    }

    fn wait(&mut self, time: Jiffies) -> Result<(), Tie> {
        let end = self.now + time;
        while let Some(due) = self.model.due().filter(|due| *due <= end) {
            self.go_to(due);
            self.sweep();
            self.model.expire()?;
        }
        self.go_to(end);
        self.tidy();
        Ok(())
    }

    fn go_to(&mut self, now: Jiffies) {
        self.now = now;
        self.target.go_to(now);
        self.model.go_to(now);
    }

    /// Twice, as templates end after their connections.
    fn sweep(&mut self) {
        self.target.sweep();
        self.target.sweep();
    }

    fn tidy(&mut self) {
        self.target.tidy();
        if T::FORGETS {
            self.model.tidy();
        }
    }

    fn set(&mut self, timeouts: Timeouts) {
        self.model.set_timeouts(timeouts);
        self.target.datapath().set_timeouts(timeouts).expect("they can be set");
    }

    fn command(&mut self, step: &Step) {
        match *step {
            Step::Service(service, spec) => {
                let (key, config) = (self.case.key(service), self.case.config(service, &spec));
                if self.knows(service) {
                    self.model.edit_service(&key, config);
                } else {
                    self.model.add_service(key, config);
                }
                self.put(service, Change::Service);
            }
            Step::Set(timeouts) => self.set(timeouts),
            Step::Dest(service, server) if self.knows(service) => {
                let (key, config) = (self.case.key(service), self.case.dest(service, &server));
                if self.model.has_dest(&key, &config.key) {
                    self.model.edit_dest(&key, config);
                } else {
                    self.model.add_dest(&key, config);
                }
                self.put(service, Change::Dests);
            }
            Step::DeleteDest(service, server) if self.knows(service) => {
                let (key, dest) = (self.case.key(service), self.case.dest_key(service, server));
                if self.model.has_dest(&key, &dest) {
                    self.model.remove_dest(&key, &dest);
                    self.put(service, Change::Dests);
                    self.sweep();
                }
            }
            Step::DeleteService(service) if self.knows(service) => {
                let key = self.case.key(service);
                self.model.remove_service(&key);
                assert!(self.target.datapath().remove_service(&key), "it was there");
                self.sweep();
            }
            Step::Zero(service) if self.knows(service) => {
                let key = self.case.key(service);
                self.model.zero(&key);
                self.target.datapath().zero(&key);
            }
            _ => {}
        }
    }

    /// Gives the target a service as the model has it.
    fn put(&mut self, service: usize, change: Change) {
        let key = self.case.key(service);
        let found = self.model.services().find(|(known, ..)| *known == key);
        let (_, config, dests) = found.expect("it is in force");
        self.target.put(&key, &config, &dests, change);
    }

    /// Everything that can be listed.
    fn compare(&mut self) -> Result<(), String> {
        let model: Vec<_> = self.model.services().collect();
        let datapath = self.target.datapath();
        let mut listed = Vec::new();
        datapath.for_each_service(&mut |key, config, dests| {
            listed.push((*key, *config, dests.to_vec()));
        });
        equal("services", &listed, &model)?;
        let mut rows = Vec::new();
        datapath.for_each_conn(&mut |conn| {
            rows.push(row(conn));
            true
        });
        equal("connections", sorted(rows), sorted(self.model.rows()))?;
        for (key, _, dests) in model {
            for dest in dests {
                let found = datapath.dest_status(&key, &dest.key);
                equal(&format!("{dest:?}"), found, self.model.dest_status(&key, &dest.key))?;
            }
            let stats = datapath.service_stats(&key);
            equal(&format!("{key:?}"), stats, self.model.service_stats(&key))?;
        }
        equal("everything", datapath.everything(&mut |_| ()), self.model.total_stats())?;
        let total = datapath.everything(&mut |_| ());
        // Clients' packets go to destinations in force only; answers of deleted ones are not
        // counted.
        equal(
            "packets",
            (total.in_pkts, total.in_bytes),
            (self.tally.in_pkts, self.tally.in_bytes),
        )?;
        equal("answers", total.out_pkts <= self.tally.out_pkts, true)
    }

    /// Everything ends, and nothing is left, in the tables and in any count.
    fn finish(&mut self) -> Result<(), End> {
        while let Some(due) = self.model.due() {
            self.wait(due - self.now)?;
        }
        self.sweep();
        self.compare().map_err(|why| format!("in the end: {why}"))?;
        for (key, _, dests) in self.model.services().collect::<Vec<_>>() {
            for dest in dests {
                let status = self.target.datapath().dest_status(&key, &dest.key);
                let counts = [status.active_conns, status.inactive_conns, status.persist_conns];
                equal(&format!("in the end: {dest:?}"), counts, [0; 3])?;
            }
        }
        Ok(equal("in the end: entries in use", self.target.entries(), 0)?)
    }
}

fn row(conn: &ConnRow) -> Row {
    Row {
        protocol: conn.protocol,
        client: SocketAddr::new(conn.client, conn.client_port),
        virt: SocketAddr::new(conn.virtual_addr, conn.virtual_port),
        dest: SocketAddr::new(conn.dest, conn.dest_port),
        forward: conn.forward,
        state: conn.state,
        expires: conn.expires,
        template: conn.template,
    }
}

fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort_by_key(|row| (row.template, row.protocol, row.client, row.virt, row.dest));
    rows
}
