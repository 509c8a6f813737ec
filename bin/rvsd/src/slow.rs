//! The slow path's device and thread: frames that the data path hands over are read from a TAP
//! device, and written to it to go back. The device ends with rvsd; the data path notices.

use std::io;
use std::path::Path as FilePath;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rvs_core::fragment::{NoteKey, Slow as Element};
use rvs_core::reason::Reason;
use rvs_core::time::ticks;
use rvs_datapath::env::Shared as Tables;
use rvs_datapath::{Maps, Object, attach, env};
use rvs_slow::{Path, Slow};
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

/// What the names of the devices begin with.
pub const PREFIX: &str = "rvsslow";
/// The longest frame.
const LONGEST: usize = 1 << 16;
/// The data path takes rvsd for dead when it has heard nothing for so long.
const SILENCE: u32 = 2;
/// How often rvsd says that it is there.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// Frames read between two looks at the clock.
const BATCH: usize = 64;

/// Makes the device. Without it, which is said, fragments that come before their first and packets
/// to be cut are treated as if rvsd was not there.
pub fn open(object: &mut Object) -> Option<SyncDevice> {
    match make(object) {
        Ok(device) => Some(device),
        Err(error) => {
            tracing::warn!("no slow path, so fragments are not put in order: {error:#}");
            None
        }
    }
}

fn make(object: &mut Object) -> Result<SyncDevice> {
    let builder = DeviceBuilder::new().name(format!("{PREFIX}%d")).layer(Layer::L2).enable(false);
    let device = builder.build_sync().context("cannot make a TAP device")?;
    let name = device.name()?;
    // It has no addresses and says nothing of its own.
    let ipv6 = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
    if let Err(error) = std::fs::write(&ipv6, "1") {
        tracing::debug!("{ipv6}: {error}");
    }
    device.enabled(true).with_context(|| format!("cannot set {name} up"))?;
    device.set_nonblocking(true)?;
    attach::attach_back(object, &name)?;
    Ok(device)
}

/// The data path as this thread sees it.
struct Behind<'d> {
    device: &'d SyncDevice,
    maps: Maps,
}

impl Behind<'_> {
    fn shared(&self) -> &Element {
        self.maps.slow.first().expect("SLOW has one element, checked when it was mapped")
    }
}

impl Path for Behind<'_> {
    fn has_passed(&mut self, key: &NoteKey) -> bool {
        self.maps.note(key).is_some_and(|note| note.is_fresh(env::now()))
    }

    fn put_back(&mut self, frame: &[u8]) {
        if let Err(error) = self.device.send(frame) {
            tracing::debug!("cannot put a frame back: {error}");
            self.count(Reason::FragmentLimit, 1);
        }
    }

    fn inspect(&mut self, frame: &mut [u8]) {
        rvs_slow::inspect(&Tables(&self.maps), self.shared(), frame);
    }

    fn count(&mut self, reason: Reason, frames: u64) {
        // Nobody else writes it.
        if let Some(counter) = self.maps.slow_reasons.get(reason as usize) {
            counter.set(counter.get().wrapping_add(frames));
        }
    }
}

/// Starts the thread. It has its own view of the maps.
pub fn start(device: SyncDevice, pin: &FilePath) -> Result<()> {
    let pin = pin.to_owned();
    let (ready, opened) = std::sync::mpsc::channel();
    std::thread::Builder::new().name("slow path".into()).spawn(move || {
        let opened = Maps::open(&pin).map_err(anyhow::Error::from).and_then(|maps| {
            let ifindex = device.if_index()?;
            Ok((maps, ifindex))
        });
        match opened {
            Ok((maps, ifindex)) => {
                let behind = Behind { device: &device, maps };
                behind.shared().until.set(env::now().after(ticks(SILENCE)).0);
                behind.shared().ifindex.set(ifindex);
                let _ = ready.send(Ok(()));
                run(behind);
            }
            Err(error) => drop(ready.send(Err(error))),
        }
    })?;
    opened.recv().context("the slow path did not start")?
}

/// Tells the data path that nobody reads any more.
pub fn close(maps: &Maps) {
    if let Some(shared) = maps.slow.first() {
        shared.until.set(env::now().0);
    }
}

fn run(mut behind: Behind<'_>) {
    let (mut slow, mut buffer) = (Slow::new(), vec![0; LONGEST]);
    let mut next = None;
    loop {
        behind.shared().until.set(env::now().after(ticks(SILENCE)).0);
        wait(behind.device, next.unwrap_or(HEARTBEAT));
        for _ in 0..BATCH {
            match behind.device.recv(&mut buffer) {
                Ok(len) => {
                    slow.take(Instant::now(), buffer.get(..len).unwrap_or_default(), &mut behind);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    tracing::warn!("the slow path's device: {error}");
                    // Gone, or down: the data path does without.
                    behind.shared().ifindex.set(0);
                    return;
                }
            }
        }
        next = slow.poll(Instant::now(), &mut behind);
    }
}

/// Waits until there is a frame to read.
fn wait(device: &SyncDevice, most: Duration) {
    let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(most.subsec_nanos()) };
    // Whatever the outcome, reading tells.
    let _ = poll(&mut [PollFd::new(device, PollFlags::IN)], Some(&timeout));
}
