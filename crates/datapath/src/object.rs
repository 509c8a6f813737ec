//! The eBPF object: loaded into the kernel, its maps made or adopted from their pins.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use aya::maps::{MapData, ProgramArray};
use aya::programs::{Program, ProgramError, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};

use crate::clock;
use crate::maps::{MAPS, Maps, Sizes};

/// The object that `build.rs` made.
static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/rvs.bpf.o"));

/// Why the data path cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The pin folder cannot be made or is not on a BPF file system.
    #[error(
        "{path}: {reason}; --pin must name a folder on a bpf file system (mount -t bpf bpf /sys/fs/bpf)"
    )]
    Pin {
        /// The folder.
        path: PathBuf,
        /// What the kernel said.
        reason: io::Error,
    },
    /// The object was refused.
    #[error("cannot load the eBPF programs: {0}")]
    Load(#[from] aya::EbpfError),
    /// The verifier refused a program.
    #[error("the kernel refused the eBPF program {name}: {reason}")]
    Verify {
        /// The program.
        name: &'static str,
        /// What the kernel said.
        reason: ProgramError,
    },
    /// A map could not be opened or mapped.
    #[error("map {name}: {reason}")]
    Map {
        /// The map.
        name: &'static str,
        /// What the kernel said.
        reason: String,
    },
    /// The pinned maps are of another layout.
    #[error(
        "{path} was pinned by an rvsd of layout {found}, this one has layout {expected}; `rvs down` removes it"
    )]
    Layout {
        /// The folder.
        path: PathBuf,
        /// Their version.
        found: u32,
        /// Ours.
        expected: u32,
    },
}

/// The loaded programs; their maps are pinned.
pub struct Object {
    ebpf: Ebpf,
    /// The kernel empties a program array that no process and no pin holds.
    _programs: ProgramArray<MapData>,
    /// Folder of the pins.
    pub pin: PathBuf,
}

impl Object {
    /// Loads and verifies the programs. Maps that are pinned below `pin` are used again; others
    /// are made with `sizes` and pinned.
    pub fn load(pin: &Path, sizes: &Sizes) -> Result<(Self, Maps), OpenError> {
        let refused = |reason| OpenError::Pin { path: pin.to_owned(), reason };
        for folder in ["maps", "links"] {
            std::fs::create_dir_all(pin.join(folder)).map_err(refused)?;
        }
        Maps::check_layout(pin)?;
        let mut loader = EbpfLoader::new();
        for name in MAPS {
            loader.map_pin_path(name, pin.join("maps").join(name));
        }
        for (name, entries) in sizes.entries() {
            loader.map_max_entries(name, entries);
        }
        let mut ebpf = loader.load(OBJECT)?;
        let maps = Maps::open(pin)?;
        maps.initialise();
        // Until the second look, after the verifier's work, programs ask the clock itself.
        maps.config().clock.step.set(0);
        clock::load(&mut ebpf)?;
        let (earlier, start) = (clock::look(&mut ebpf, &maps)?, Instant::now());
        verify(&mut ebpf)?;
        let programs = enter(&mut ebpf)?;
        std::thread::sleep(clock::APART.saturating_sub(start.elapsed()));
        clock::look(&mut ebpf, &maps)?;
        maps.config().clock.compare(earlier);
        Ok((Self { ebpf, pin: pin.to_owned(), _programs: programs }, maps))
    }

    /// The XDP program.
    pub fn xdp(&mut self) -> Result<&mut Xdp, OpenError> {
        xdp(&mut self.ebpf)
    }

    /// The TC program.
    pub fn tc(&mut self) -> Result<&mut SchedClassifier, OpenError> {
        tc(&mut self.ebpf, "rvs_tc")
    }

    /// The program for TC ingress of devices without an Ethernet header.
    pub fn bare(&mut self) -> Result<&mut SchedClassifier, OpenError> {
        tc(&mut self.ebpf, "rvs_bare")
    }

    /// The program for ingress of rvsd's own device.
    pub fn back(&mut self) -> Result<&mut SchedClassifier, OpenError> {
        tc(&mut self.ebpf, "rvs_back")
    }

    /// The program for the egress of the device that marked packets are routed to.
    pub fn marked(&mut self) -> Result<&mut SchedClassifier, OpenError> {
        tc(&mut self.ebpf, "rvs_marked")
    }

    /// The program for TC egress while connections are tracked.
    pub fn replies(&mut self) -> Result<&mut SchedClassifier, OpenError> {
        tc(&mut self.ebpf, "rvs_replies")
    }

    /// The program for TC egress.
    pub fn local(&mut self) -> Result<&mut SchedClassifier, OpenError> {
        tc(&mut self.ebpf, "rvs_local")
    }
}

/// Programs for interfaces.
const ATTACHED: [&str; 5] = ["rvs_xdp", "rvs_bare", "rvs_replies", "rvs_marked", "rvs_back"];

/// Loads all programs into the kernel, side by side: the verifier takes most of a second for some.
fn verify(ebpf: &mut Ebpf) -> Result<(), OpenError> {
    let wanted = || ATTACHED.into_iter().chain(CALLED);
    if let Some(name) = wanted().find(|name| ebpf.program(name).is_none()) {
        return Err(missing(name));
    }
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (name, program) in ebpf.programs_mut() {
            if let Some(name) = wanted().find(|wanted| *wanted == name) {
                threads.push((name, scope.spawn(|| load(program))));
            }
        }
        threads.into_iter().try_for_each(|(name, thread)| {
            let loaded = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            loaded.map_err(|reason| OpenError::Verify { name, reason })
        })
    })
}

fn load(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::Xdp(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

fn missing(name: &'static str) -> OpenError {
    let reason = ProgramError::InvalidName { name: name.to_owned() };
    OpenError::Verify { name, reason }
}

fn xdp(ebpf: &mut Ebpf) -> Result<&mut Xdp, OpenError> {
    let program = ebpf.program_mut("rvs_xdp").ok_or_else(|| missing("rvs_xdp"))?;
    program.try_into().map_err(|reason| OpenError::Verify { name: "rvs_xdp", reason })
}

pub(crate) fn tc<'e>(
    ebpf: &'e mut Ebpf,
    name: &'static str,
) -> Result<&'e mut SchedClassifier, OpenError> {
    let program = ebpf.program_mut(name).ok_or_else(|| missing(name))?;
    program.try_into().map_err(|reason| OpenError::Verify { name, reason })
}

/// TC programs that others call, by their index in `PROGRAMS`.
const CALLED: [&str; 13] = [
    "rvs_icmp",
    "rvs_related",
    "rvs_cover",
    "rvs_extended",
    "rvs_fragment",
    "rvs_local_icmp",
    "rvs_local_extended",
    "rvs_engine",
    "rvs_tc",
    "rvs_once",
    "rvs_bypass",
    "rvs_tracked",
    "rvs_local",
];

/// Enters them into the array that they are called by. The map must stay pinned.
fn enter(ebpf: &mut Ebpf) -> Result<ProgramArray<MapData>, OpenError> {
    let failed = |reason: String| OpenError::Map { name: "PROGRAMS", reason };
    let map = ebpf.take_map("PROGRAMS").ok_or_else(|| failed("not in the object".into()))?;
    let mut programs = ProgramArray::try_from(map).map_err(|e| failed(e.to_string()))?;
    for (index, name) in (0..).zip(CALLED) {
        let fd = tc(ebpf, name)?.fd().map_err(|e| failed(e.to_string()))?;
        programs.set(index, fd, 0).map_err(|e| failed(e.to_string()))?;
    }
    Ok(programs)
}
