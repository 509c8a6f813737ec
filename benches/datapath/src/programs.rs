//! The loaded programs: RVS's own, those it is compared with, and the wrapper that runs them.

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, HashMap, Map, MapData, ProgramArray};
use aya::programs::{SchedClassifier, TestRunOptions, TestRunResult, Xdp};
use aya::{Ebpf, EbpfLoader, TestRun as _, include_bytes_aligned};
use rvs_bench_ebpf::{BARE, Control, INSERT, LOOK_UP, RVS};
use rvs_core::types::Family;
use rvs_tests_bpf::{Bench, ETH0, Hook};
use zerocopy::{FromBytes, IntoBytes};

use crate::frames;

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bench.bpf.o"));

/// The control block as a plain map value.
type Block = [u8; size_of::<Control>()];

/// What a test run said.
pub struct Run {
    /// Nanoseconds a packet, the wrapper included.
    pub nanos: f64,
    /// The last verdict.
    pub verdict: u32,
    /// The last frame.
    pub frame: Vec<u8>,
}

/// See the module.
pub struct Programs {
    ebpf: Ebpf,
    control: Array<MapData, Block>,
    hash4: HashMap<MapData, [u32; 4], [u64; 2]>,
    hash6: HashMap<MapData, [u32; 10], [u64; 2]>,
    /// The kernel empties a program array that no process holds.
    _arrays: [ProgramArray<MapData>; 2],
}

/// Verdict of a frame that was sent out of the interface by which it came: `XDP_TX`, and
/// `TC_ACT_REDIRECT`.
pub fn sent(hook: Hook) -> u32 {
    if hook == Hook::Xdp { 3 } else { 7 }
}

/// Verdict of a frame that is left to the host: `XDP_PASS`, and `TCX_NEXT`.
pub fn passed(hook: Hook) -> u32 {
    if hook == Hook::Xdp { 2 } else { u32::MAX }
}

impl Programs {
    /// Loads them; the hashes have room for `flows` flows.
    pub fn load(bench: &mut Bench, flows: u32) -> Result<Self> {
        let mut loader = EbpfLoader::new();
        loader.map_max_entries("HASH4", flows).map_max_entries("HASH6", flows);
        let mut ebpf = loader.load(OBJECT).context("load the benchmark's programs")?;
        let take = |ebpf: &mut Ebpf, name: &str| -> Result<Map> {
            ebpf.take_map(name).with_context(|| format!("no map {name}"))
        };
        let mut xdps = ProgramArray::try_from(take(&mut ebpf, "XDP_PROGRAMS")?)?;
        let mut tcs = ProgramArray::try_from(take(&mut ebpf, "TC_PROGRAMS")?)?;
        for (index, name) in [(BARE, "bare"), (LOOK_UP, "look_up"), (INSERT, "insert")] {
            xdps.set(index, xdp(&mut ebpf, &format!("{name}_xdp"))?.fd()?, 0)?;
            tcs.set(index, tc(&mut ebpf, &format!("{name}_tc"))?.fd()?, 0)?;
        }
        xdps.set(RVS, bench.object.xdp()?.fd()?, 0).context("enter rvs_xdp")?;
        tcs.set(RVS, bench.object.tc()?.fd()?, 0).context("enter rvs_tc")?;
        for family in ["4", "6"] {
            xdp(&mut ebpf, &format!("wrap_xdp{family}"))?;
            tc(&mut ebpf, &format!("wrap_tc{family}"))?;
        }
        Ok(Self {
            control: Array::try_from(take(&mut ebpf, "CONTROL")?)?,
            hash4: HashMap::try_from(take(&mut ebpf, "HASH4")?)?,
            hash6: HashMap::try_from(take(&mut ebpf, "HASH6")?)?,
            _arrays: [xdps, tcs],
            ebpf,
        })
    }

    /// Runs a measured program `repeat` times on the frames that `control` tells.
    pub fn run(
        &mut self,
        hook: Hook,
        family: Family,
        control: &Control,
        repeat: u32,
    ) -> Result<Run> {
        let len = frames::len(family);
        let block: Block = control.as_bytes().try_into().expect("its own size");
        self.control.set(0, block, 0)?;
        let mut out = vec![0; 256];
        // XDP: `data_end` and `ingress_ifindex` of `struct xdp_md`. TC: `ifindex` of `__sk_buff`.
        let mut context = vec![0; if hook == Hook::Xdp { 24 } else { 192 }];
        if hook == Hook::Xdp {
            context[4..8].copy_from_slice(&(len as u32).to_ne_bytes());
            context[12..16].copy_from_slice(&ETH0.to_ne_bytes());
        } else {
            context[40..44].copy_from_slice(&ETH0.to_ne_bytes());
        }
        let options = TestRunOptions {
            data_in: Some(&control.frame[..len]),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            repeat,
            ..Default::default()
        };
        let family = 4 + 2 * frames::index(family);
        let TestRunResult { return_value, duration, data_size_out, .. } = match hook {
            Hook::Xdp => loaded::<Xdp>(&mut self.ebpf, &format!("wrap_xdp{family}"))?
                .test_run(options)
                .context("test run")?,
            Hook::Tc => loaded::<SchedClassifier>(&mut self.ebpf, &format!("wrap_tc{family}"))?
                .test_run(options)
                .context("test run")?,
        };
        let after = Control::read_from_bytes(&self.control.get(&0, 0)?).expect("its own size");
        ensure!(after.failed == 0, "{} of {repeat} runs failed", after.failed);
        out.truncate(data_size_out as usize);
        // The kernel rounds down.
        let nanos = duration.as_nanos() as f64 + 0.5;
        Ok(Run { nanos, verdict: return_value, frame: out })
    }

    /// Enters flows into the hash of the template's family.
    pub fn enter(
        &mut self,
        family: Family,
        template: &Control,
        flows: std::ops::Range<u32>,
    ) -> Result<()> {
        for flow in flows {
            match family {
                Family::V4 => self.hash4.insert(frames::key(template, flow), [1, 0], 0)?,
                Family::V6 => self.hash6.insert(frames::key(template, flow), [1, 0], 0)?,
            }
        }
        Ok(())
    }

    /// Removes flows again.
    pub fn remove(
        &mut self,
        family: Family,
        template: &Control,
        flows: std::ops::Range<u32>,
    ) -> Result<()> {
        for flow in flows {
            match family {
                Family::V4 => self.hash4.remove(&frames::key(template, flow))?,
                Family::V6 => self.hash6.remove(&frames::key(template, flow))?,
            }
        }
        Ok(())
    }
}

/// A program that was loaded before.
fn loaded<'e, P>(ebpf: &'e mut Ebpf, name: &str) -> Result<&'e mut P>
where
    &'e mut P: TryFrom<&'e mut aya::programs::Program, Error = aya::programs::ProgramError>,
{
    let program = ebpf.program_mut(name).with_context(|| format!("no program {name}"))?;
    Ok(program.try_into()?)
}

fn xdp<'e>(ebpf: &'e mut Ebpf, name: &str) -> Result<&'e mut Xdp> {
    let program: &mut Xdp = loaded(ebpf, name)?;
    program.load().with_context(|| format!("load {name}"))?;
    Ok(program)
}

fn tc<'e>(ebpf: &'e mut Ebpf, name: &str) -> Result<&'e mut SchedClassifier> {
    let program: &mut SchedClassifier = loaded(ebpf, name)?;
    program.load().with_context(|| format!("load {name}"))?;
    Ok(program)
}
