//! Connections on their way to other directors and from them: the table's entries as the
//! synchronisation protocol has them, and back.

use std::net::{IpAddr, SocketAddr};

use rvs_core::addr::{Addr, V4, V6, from_words, words};
use rvs_core::conn::{ASSURED, CACHE, INACTIVE, NO_OUTPUT, REPLY, SYNCED, TEMPLATE, Word};
use rvs_core::control::EngineData;
use rvs_core::env::Tables;
use rvs_core::layout::{CallId, Config, Conn, ConnSet, Key};
use rvs_core::pe::set_call_id;
use rvs_core::proto::{sctp, tcp, udp};
use rvs_core::schedule::TEMPLATE_KEY;
use rvs_core::sync::{Arrival, Arrived, arrive};
use rvs_core::table::hash;
use rvs_core::time::{seconds, ticks};
use rvs_core::types::{Engine, Family, ForwardMethod, Protocol, ServiceKey};
use rvs_sync::{Entry, Seen, flags};

use crate::Services;
use crate::memory::Memory;
use crate::services::conns;
use crate::sweeper::expiry;

/// Longest timeout that is believed, in seconds.
const MAX_TIMEOUT: u32 = u32::MAX / 1000;
/// Timeout in seconds of a template whose sender named none.
const TEMPLATE_TIMEOUT: u32 = 3 * 60;

/// Why a backup cannot take an entry. What follows it in its message is taken all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A protocol that is not balanced here.
    #[error("protocol {0} is not balanced")]
    Protocol(u8),
    /// A state that the protocol does not have.
    #[error("protocol {0} has no state {1}")]
    State(u8, u16),
    /// A template of a persistence engine that is not here.
    #[error("there is no such persistence engine")]
    Engine,
    /// What the connection table cannot hold: a port or a way of forwarding that is not known.
    #[error("a connection of an unknown kind")]
    Kind,
}

/// What a master does with the place of a connection or template, what it is like, and a function
/// that makes what is told of it.
pub type Visitor<'f> = dyn FnMut(usize, &Seen, &dyn Fn() -> Option<Told>) + 'f;

/// What is told of a connection or template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    entry: Entry<'static>,
    engine: Option<(Engine, EngineData)>,
}

impl Told {
    /// As the protocol has it.
    pub fn entry(&self) -> Entry<'_> {
        let engine = self.engine.as_ref().map(|(engine, data)| rvs_sync::Engine {
            name: engine.name().as_bytes(),
            data: data.bytes(),
        });
        Entry { engine, ..self.entry }
    }
}

/// Shows a master what is live in the tables.
pub fn each<M: Memory>(memory: &M, f: &mut Visitor<'_>) {
    part(memory, memory.conns4(), 0, f);
    part(memory, memory.conns6(), places(memory.conns4()), f);
}

/// Places that [`each`] numbers.
pub fn place_count<M: Memory>(memory: &M) -> usize {
    places(memory.conns4()) + places(memory.conns6())
}

fn places<A: Copy>(sets: &[ConnSet<A>]) -> usize {
    sets.len() * rvs_core::layout::WAYS
}

fn part<A: Addr, M: Memory>(memory: &M, sets: &[ConnSet<A>], first: usize, f: &mut Visitor<'_>) {
    let config = memory.config();
    let entries = sets.iter().flat_map(|set| &set.ways);
    for (place, conn) in (first..).zip(entries) {
        let word = Word(conn.word.get());
        if !word.is_live() || word.has(REPLY | CACHE) {
            continue;
        }
        let key = conn.key.get();
        let seen = Seen {
            id: hash(&key, conn.dest.get().into()) as u32,
            state: word.state() as u8,
            telling: word.has(TEMPLATE) || is_told(&key, word),
            controlled: !word.has(TEMPLATE) && conn.control.get() != 0,
            expires: expiry(sets, conn),
            timeout: timeout(config, conn, &key, word),
        };
        f(place, &seen, &|| entry(memory, conn, &key, &seen));
    }
}

/// Whether a connection in this state is told of: not while it opens, nor the last moments.
fn is_told<A>(key: &Key<A>, word: Word) -> bool {
    use sctp::State as Sctp;
    use tcp::State::{Close, CloseWait, Established, FinWait, TimeWait};
    let state = word.state();
    match Protocol::from_number(key.protocol as u8) {
        Some(Protocol::Tcp) => {
            let told = [Established, FinWait, Close, CloseWait, TimeWait];
            told.iter().any(|told| *told as u32 == state)
        }
        Some(Protocol::Sctp) => {
            let ending = [Sctp::ShutdownSent, Sctp::ShutdownReceived, Sctp::ShutdownAckSent];
            let others = [Sctp::Established, Sctp::Closed];
            ending.iter().chain(&others).any(|told| *told as u32 == state)
        }
        _ => true,
    }
}

/// Ticks without a packet after which an entry expires.
fn timeout<A: Copy>(config: &Config, conn: &Conn<A>, key: &Key<A>, word: Word) -> u32 {
    if word.has(TEMPLATE) {
        return conn.pair.get();
    }
    state_timeout(config, key.protocol, word.state())
}

fn state_timeout(config: &Config, protocol: u32, state: u32) -> u32 {
    let timeouts = match Protocol::from_number(protocol as u8) {
        Some(Protocol::Tcp) => &config.tcp_timeouts[..],
        Some(Protocol::Sctp) => &config.sctp_timeouts[..],
        _ => return config.udp_timeout.get(),
    };
    timeouts.get(state as usize).map_or(0, |timeout| timeout.get())
}

/// An entry as it is told to others; `None` if it changed hands meanwhile.
fn entry<A: Addr, M: Memory>(
    memory: &M,
    conn: &Conn<A>,
    key: &Key<A>,
    seen: &Seen,
) -> Option<Told> {
    let word = Word(conn.word.get());
    let ip = |addr: A| from_words(A::FAMILY, addr.to_words());
    let end = |addr: A, port_be: u16| SocketAddr::new(ip(addr), u16::from_be(port_be));
    let template = word.has(TEMPLATE);
    let mut bits = word.forward();
    let bypass = word.forward() == ForwardMethod::Bypass as u32;
    // What has no destination counts as neither active nor inactive.
    let word = if bypass { Word(word.0 & !INACTIVE) } else { word };
    for (flag, ours) in
        [(flags::NO_OUTPUT, NO_OUTPUT), (flags::INACTIVE, INACTIVE), (flags::SYNC, SYNCED)]
    {
        bits |= if word.has(ours) { flag } else { 0 };
    }
    if template {
        // The kernel's templates carry what their destination's connections begin with.
        let direct = word.forward() != ForwardMethod::Masquerade as u32;
        bits |= flags::TEMPLATE | flags::INACTIVE | if direct { flags::NO_OUTPUT } else { 0 };
    }
    let entry = Entry {
        protocol: key.protocol as u8,
        flags: bits,
        state: seen.state.into(),
        mark: mark(memory, conn.dest.get()),
        timeout: seconds(seen.timeout),
        // In the key of a template it tells Call-IDs apart.
        client: end(key.src, if template { 0 } else { key.sport_be }),
        service: end(key.dst, key.dport_be),
        dest: match bypass {
            true => SocketAddr::new(A::FAMILY.unspecified(), 0),
            false => end(conn.target.get(), conn.target_port_be.get() as u16),
        },
        deltas: None,
        engine: None,
    };
    let engine = conns::engine(memory, conn);
    let now = Word(conn.word.get());
    (now.is_live() && conn.key.get() == *key).then_some(Told { entry, engine })
}

/// The mark of the service that a destination belongs to; 0 if it is none by mark.
fn mark<M: Memory>(memory: &M, dest: u32) -> u32 {
    let dest = memory.dests().get(dest as usize).filter(|_| dest != 0);
    let slot = dest.and_then(|dest| memory.slots().get(dest.slot.get() as usize));
    slot.filter(|slot| slot.protocol.get() == 0).map_or(0, |slot| slot.addr.get()[0])
}

/// Whether a persistence engine of this name is here. The kernel's names end with the first zero.
fn is_known(name: &[u8]) -> bool {
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    str::from_utf8(name).is_ok_and(|name| Engine::from_name(name).is_some())
}

impl<M: Memory> Services<M> {
    /// Takes a connection or template that another director told of into the connection table.
    /// `env` is the maps as the core sees them.
    pub fn take_in<E: Tables<V4> + Tables<V6>>(
        &self,
        env: E,
        entry: &Entry<'_>,
    ) -> Result<Arrived, Refused> {
        let template = entry.is_template();
        let state = u32::from(entry.state);
        if !template {
            let protocol = Protocol::from_number(entry.protocol);
            let states = match protocol {
                Some(Protocol::Tcp) => tcp::State::ALL.len() as u32,
                Some(Protocol::Sctp) => sctp::State::ALL.len() as u32,
                Some(Protocol::Udp) => udp::NORMAL + 1,
                None => return Err(Refused::Protocol(entry.protocol)),
            };
            if state >= states {
                return Err(Refused::State(entry.protocol, entry.state));
            }
        }
        if template && state > ASSURED {
            return Err(Refused::State(entry.protocol, entry.state));
        }
        if entry.engine.is_some_and(|engine| !is_known(engine.name)) {
            return Err(Refused::Engine);
        }
        // What waits for a client to name its port, and what nobody needs to remember.
        let waits = entry.flags & flags::NO_CLIENT_PORT != 0 && entry.client.port() == 0;
        if !template && (waits || entry.flags & flags::ONE_PACKET != 0) {
            return Err(Refused::Kind);
        }
        match entry.client.ip() {
            IpAddr::V4(_) => self.take_family::<V4, E>(env, entry),
            IpAddr::V6(_) => self.take_family::<V6, E>(env, entry),
        }
    }

    fn take_family<A: Addr, E: Tables<A>>(
        &self,
        env: E,
        entry: &Entry<'_>,
    ) -> Result<Arrived, Refused> {
        let template = entry.is_template();
        let addr = |end: SocketAddr| A::from_words(words(end.ip()));
        let told = ForwardMethod::from_number((entry.flags & flags::FORWARD) as u8);
        let (dest, method) = match (self.bound(entry), told) {
            (Some(bound), _) => bound,
            (None, Some(told)) => (0, told),
            (None, None) => return Err(Refused::Kind),
        };
        let protocol = u32::from(entry.protocol) | if template { TEMPLATE_KEY } else { 0 };
        let config = self.maps().config();
        let timeout = match entry.timeout {
            0 if template => ticks(TEMPLATE_TIMEOUT),
            0 => state_timeout(config, protocol, entry.state.into()),
            seconds => ticks(seconds.min(MAX_TIMEOUT)),
        };
        // What has no destination goes to its own address.
        let to = if method == ForwardMethod::Bypass { entry.service } else { entry.dest };
        let arrival = Arrival {
            key: Key {
                src: addr(entry.client),
                dst: addr(entry.service),
                sport_be: entry.client.port().to_be(),
                dport_be: entry.service.port().to_be(),
                protocol,
            },
            target: addr(to),
            target_port_be: to.port().to_be(),
            dest,
            method,
            state: entry.state.into(),
            inactive: entry.flags & flags::INACTIVE != 0,
            template,
            timeout,
        };
        let call_id = entry.engine.map(|engine| {
            let call_id = CallId::default();
            set_call_id(&call_id, engine.data);
            call_id
        });
        Ok(arrive(&env, &arrival, call_id.as_ref()))
    }

    /// Place and forwarding method of the destination that an entry names, if it is here
    /// (`ip_vs_find_dest`).
    fn bound(&self, entry: &Entry<'_>) -> Option<(u32, ForwardMethod)> {
        let service = self.of_packet(entry)?;
        let addr = entry.dest.ip();
        let at = |port: u16| {
            let found = |d: &&crate::services::Placed| {
                d.config.key.addr == addr && d.config.key.port == port
            };
            service.dests.iter().find(found).map(|d| (d.index, d.config.forward))
        };
        let port = entry.dest.port();
        if entry.mark != 0 && entry.flags & flags::FORWARD != 0 {
            return at(0).or_else(|| at(port));
        }
        at(port).or_else(|| at(0))
    }

    /// The service that an entry's packets belong to: by mark, by address and port, by address.
    fn of_packet(&self, entry: &Entry<'_>) -> Option<&crate::services::Service> {
        let family = Family::of(entry.service.ip());
        if entry.mark != 0
            && let Some(found) = self.service(&ServiceKey::Fwmark { family, mark: entry.mark })
        {
            return Some(found);
        }
        let protocol = Protocol::from_number(entry.protocol)?;
        let (addr, port) = (entry.service.ip(), entry.service.port());
        let key = |port| ServiceKey::Address { protocol, addr, port };
        self.service(&key(port)).or_else(|| self.service(&key(0)))
    }
}
