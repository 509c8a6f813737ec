//! The event loop: clients, news of the host, signals and the clock.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rvs_datapath::BpfDatapath;
use rvs_director::Director;
use rvs_host::{Host, Monitor, icmp_settings};
use rvs_tables::Memory as _;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::control::{Connection, Listener};
use crate::folder::{self, Folder};
use crate::interfaces::Interfaces;
use crate::local::Local;
use crate::marked;
use crate::neighbours::Neighbours;
use crate::sync::Sync;

/// Clients served at a time; more wait.
const MAX_CLIENTS: usize = 64;
/// Time between two looks at what can be freed.
const TICK: Duration = Duration::from_secs(1);
/// Every how many ticks rates are estimated: the kernel does it every two seconds.
const ESTIMATE: u64 = 2;
/// Every how many ticks routes are looked up whatever the news.
const ROUTES: u64 = 30;

/// Everything that rvsd serves with.
pub struct Server {
    /// Control state.
    pub director: Director<BpfDatapath>,
    /// Sync daemons.
    pub sync: Sync,
    /// To ask the host by.
    pub host: Host,
    /// News of the host.
    pub monitor: Monitor,
    /// Attached interfaces.
    pub interfaces: Interfaces,
    /// Where clients come from.
    pub listener: Listener,
    /// The files of `/proc`, for clients that ask for them.
    pub folder: Option<Folder>,
}

impl Server {
    /// Serves until SIGTERM or SIGINT.
    pub fn run(mut self) -> Result<()> {
        let (mut signals, sender) = UnixStream::pair()?;
        for signal in [SIGTERM, SIGINT] {
            signal_hook::low_level::pipe::register(signal, sender.try_clone()?)
                .context("cannot handle signals")?;
        }
        let (mut neighbours, mut local) = (Neighbours::default(), Local::default());
        neighbours.refresh(&mut self.host, self.director.datapath())?;
        let need = local.refresh(&mut self.host, self.director.datapath());
        self.interfaces.need_first(need);
        marked::update(&mut self.host, self.director.datapath_mut(), &mut self.interfaces);
        let (mut clients, mut buffer) = (Vec::new(), Vec::new());
        let (mut next, mut ticks) = (Instant::now() + TICK, 0u64);
        self.director.datapath().maps().limits().set(&icmp_settings());
        eprintln!("rvsd: ready");
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        loop {
            let events = self.wait(&signals, &clients, next)?;
            if events.signal {
                let _ = signals.read(&mut [0; 16]);
                tracing::info!("stopping; the data path goes on");
                crate::slow::close(self.director.datapath().maps());
                return Ok(());
            }
            if events.backup {
                let datapath = self.director.datapath();
                self.sync.with_backup(|backup| backup.receive(datapath));
            }
            let ready = (&*events.clients, &mut buffer);
            self.serve(&mut clients, ready, (&mut neighbours, &mut local));
            let mut changed = false;
            if events.listener && clients.len() < MAX_CLIENTS {
                clients.extend(self.listener.accept());
            }
            if events.monitor {
                let news = self.monitor.drain()?;
                if news.links {
                    self.interfaces.refresh(&mut self.host, self.director.datapath().maps())?;
                }
                changed |= news.routes || news.links;
            }
            if Instant::now() >= next {
                next = Instant::now() + TICK;
                ticks += 1;
                let tracking = self.director.datapath().is_tracking();
                self.director.datapath_mut().tick();
                changed |= tracking != self.director.datapath().is_tracking();
                self.director.datapath_mut().defend(memory_left());
                self.director.datapath().maps().limits().set(&icmp_settings());
                if ticks.is_multiple_of(ESTIMATE) {
                    self.director.tick();
                }
                if ticks.is_multiple_of(ROUTES) || neighbours.is_incomplete() {
                    changed = true;
                }
            }
            if !changed {
                continue;
            }
            if let Err(error) = neighbours.refresh(&mut self.host, self.director.datapath()) {
                tracing::warn!("{error}");
            }
            let need = local.refresh(&mut self.host, self.director.datapath());
            self.interfaces.need(need);
            marked::update(&mut self.host, self.director.datapath_mut(), &mut self.interfaces);
            marked::offer(self.director.datapath(), &self.interfaces);
        }
    }

    /// Waits for something to do.
    fn wait(&self, signals: &UnixStream, clients: &[Connection], until: Instant) -> Result<Events> {
        let readable = PollFlags::IN;
        let messages = self.sync.backup_sockets();
        let mut fds = vec![
            PollFd::new(signals, readable),
            PollFd::from_borrowed_fd(self.monitor.as_fd(), readable),
            PollFd::new(
                &self.listener.socket,
                if clients.len() < MAX_CLIENTS { readable } else { PollFlags::empty() },
            ),
        ];
        let first_client = fds.len() + messages.len();
        fds.extend(messages.iter().map(|socket| PollFd::new(socket, readable)));
        for client in clients {
            let flags = if client.is_blocked() { PollFlags::OUT } else { readable };
            fds.push(PollFd::new(&client.socket, flags));
        }
        let timeout = until.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for events"),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let (own, clients) = ready.split_at(first_client.min(ready.len()));
        let [signal, monitor, listener, messages @ ..] = own else {
            return Ok(Events::default());
        };
        let (signal, monitor, listener) = (*signal, *monitor, *listener);
        let backup = messages.contains(&true);
        Ok(Events { signal, monitor, listener, backup, clients: clients.to_vec() })
    }

    /// Answers the clients that have something to say; `buffer` takes each request.
    fn serve(
        &mut self,
        clients: &mut Vec<Connection>,
        (ready, buffer): (&[bool], &mut Vec<u8>),
        (neighbours, local): (&mut Neighbours, &mut Local),
    ) {
        let mut ready = ready.iter();
        clients.retain_mut(|client| {
            if !ready.next().is_some_and(|ready| *ready) {
                return true;
            }
            let result = if client.is_blocked() {
                client.flush()
            } else {
                client.receive(buffer).and_then(|len| {
                    let Some(request) = len.and_then(|len| buffer.get(..len)) else {
                        return Ok(());
                    };
                    let answers = self.director.handle(request);
                    // Before the answer, so that a destination works once its command returned.
                    let entered = neighbours.enter(&mut self.host, self.director.datapath_mut());
                    if let Err(error) = entered {
                        tracing::warn!("{error}");
                    }
                    let need = local.enter(&mut self.host, self.director.datapath_mut());
                    self.interfaces.need(need);
                    let datapath = self.director.datapath_mut();
                    marked::update(&mut self.host, datapath, &mut self.interfaces);
                    let maps = self.director.datapath().maps();
                    if self.interfaces.is_outdated(maps)
                        && let Err(error) = self.interfaces.refresh(&mut self.host, maps)
                    {
                        tracing::warn!("{error}");
                    }
                    match self.folder.as_ref().filter(|_| folder::is_asked_for(request)) {
                        Some(folder) => client.answer_with(answers, folder.root()),
                        None => client.answer(answers),
                    }
                })
            };
            result.is_ok()
        });
        for refusal in self.director.take_refusals() {
            tracing::debug!(errno = refusal.errno, "refused: {}", refusal.message);
        }
    }
}

/// Pages of memory that are free or hold buffers.
fn memory_left() -> u64 {
    let info = rustix::system::sysinfo();
    let bytes = (info.freeram + info.bufferram).saturating_mul(info.mem_unit.into());
    bytes / rustix::param::page_size() as u64
}

/// What is ready.
#[derive(Default)]
struct Events {
    signal: bool,
    monitor: bool,
    listener: bool,
    backup: bool,
    clients: Vec<bool>,
}
