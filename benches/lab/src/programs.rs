//! The generator, the sink and the bare redirect: XDP programs of the lab.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, MapData, PerCpuArray};
use aya::programs::{
    Program, ProgramError, SchedClassifier, TcAttachType, TestRunAttrs, TestRunOptions, Xdp,
    XdpMode, tc,
};
use aya::{Ebpf, EbpfLoader, TestRun as _, include_bytes_aligned};
use rvs_bench_ebpf::{BATCH, Control, LEN4};
use rvs_core::types::Protocol;
use rvs_tests_bpf::frame::{Flags, build};
use zerocopy::{FromZeros, IntoBytes};

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bench.bpf.o"));

/// The control block as a plain map value.
type Block = [u8; size_of::<Control>()];

/// See the module. What it attaches stays as long as it lives.
pub struct Programs {
    ebpf: Ebpf,
    control: Array<MapData, Block>,
    count: PerCpuArray<MapData, u64>,
}

impl Programs {
    /// Loads them.
    pub fn load() -> Result<Self> {
        let mut ebpf = EbpfLoader::new().load(OBJECT).context("load the lab's programs")?;
        for name in ["generate_xdp", "count_xdp", "redirect_xdp"] {
            program::<Xdp>(&mut ebpf, name)?.load().with_context(|| format!("load {name}"))?;
        }
        program::<SchedClassifier>(&mut ebpf, "redirect_tc")?.load().context("load redirect_tc")?;
        let mut take = |name: &str| ebpf.take_map(name).with_context(|| format!("no map {name}"));
        let control = Array::try_from(take("CONTROL")?)?;
        let count = PerCpuArray::try_from(take("COUNT")?)?;
        Ok(Self { ebpf, control, count })
    }

    /// Makes an interface of this namespace a sink.
    pub fn sink(&mut self, interface: &str) -> Result<()> {
        program::<Xdp>(&mut self.ebpf, "count_xdp")?
            .attach(interface, XdpMode::Driver)
            .with_context(|| format!("count at {interface}"))?;
        Ok(())
    }

    /// Sends what arrives at an interface of this namespace out of another, by TC or by XDP.
    pub fn redirect(&mut self, interface: &str, way_out: u32, by_tc: bool) -> Result<()> {
        let map = self.ebpf.map_mut("WAY_OUT").context("no map WAY_OUT")?;
        Array::<_, u32>::try_from(map)?.set(0, way_out, 0)?;
        if by_tc {
            // A kernel without TCX needs the qdisc; others do not mind.
            let _ = tc::qdisc_add_clsact(interface);
            program::<SchedClassifier>(&mut self.ebpf, "redirect_tc")?
                .attach(interface, TcAttachType::Ingress)
                .with_context(|| format!("redirect at {interface}"))?;
            return Ok(());
        }
        program::<Xdp>(&mut self.ebpf, "redirect_xdp")?
            .attach(interface, XdpMode::Driver)
            .with_context(|| format!("redirect at {interface}"))?;
        Ok(())
    }

    /// What the sinks have counted.
    pub fn counted(&self) -> Result<u64> {
        Ok(self.count.get(&0, 0)?.iter().sum())
    }

    /// Chooses what is sent from now on: to `dst`, from as many flows (a power of two).
    pub fn flows(&mut self, dst: SocketAddr, flows: u32) -> Result<()> {
        let control = Control { first: flows, mask: flows - 1, ..template(dst) };
        let block: Block = control.as_bytes().try_into().expect("its own size");
        Ok(self.control.set(0, block, 0)?)
    }

    /// The flows one after the other, or else drawn at random.
    pub fn in_turn(&mut self, in_turn: bool) -> Result<()> {
        self.change(std::mem::offset_of!(Control, in_turn), u32::from(in_turn))
    }

    /// Sends so many packets a second from now on, if it can: infinitely many are as many as it can.
    pub fn pace(&mut self, rate: f64) -> Result<()> {
        let gap = f64::from(BATCH) * 1e9 / rate;
        self.change(std::mem::offset_of!(Control, gap), gap as u32)
    }

    fn change(&mut self, place: usize, value: u32) -> Result<()> {
        let mut block = self.control.get(&0, 0)?;
        block[place..place + 4].copy_from_slice(&value.to_ne_bytes());
        Ok(self.control.set(0, block, 0)?)
    }

    /// Sends packets from an interface of this namespace; how long that took. The call takes some
    /// 20 ms more, in which nothing is sent: a test run waits for RCU as it begins and ends.
    pub fn send(&mut self, interface: u32, packets: u32) -> Result<Duration> {
        let block = self.control.get(&0, 0)?;
        let mut context = [0; 24];
        context[4..8].copy_from_slice(&(LEN4 as u32).to_ne_bytes());
        context[12..16].copy_from_slice(&interface.to_ne_bytes());
        let options = TestRunOptions {
            data_in: Some(&block[..LEN4]),
            ctx_in: Some(&context),
            repeat: packets,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..Default::default()
        };
        let run = program::<Xdp>(&mut self.ebpf, "generate_xdp")?
            .test_run(options)
            .context("send live frames")?;
        // The kernel tells the time of one, rounded down.
        let one = run.duration.as_secs_f64() + 0.5e-9;
        Ok(Duration::from_secs_f64(one * f64::from(packets)))
    }
}

fn program<'e, P>(ebpf: &'e mut Ebpf, name: &str) -> Result<&'e mut P>
where
    &'e mut P: TryFrom<&'e mut Program, Error = ProgramError>,
{
    Ok(ebpf.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?)
}

/// Small UDP packets to `dst`; the flow is told by the low half of the client's address and its
/// port, and payload and identification balance them in the checksums.
fn template(dst: SocketAddr) -> Control {
    let frame = build(
        Protocol::Udp,
        "172.16.0.0:0".parse().expect("a literal"),
        dst,
        Flags::default(),
        &[0; LEN4 - 42],
    );
    let mut control = Control::new_zeroed();
    control.frame[..LEN4].copy_from_slice(&frame);
    control.port = 34;
    control.addr = 28;
    control.port_inverse = 42;
    control.addr_inverse = 44;
    control.header_inverse = 18;
    control.random = 0x9e37_79b9;
    control
}

/// The index of an interface of this namespace.
pub fn index(interface: &str) -> Result<u32> {
    let output =
        std::process::Command::new("ip").args(["-o", "link", "show", interface]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "no interface {interface}");
    Ok(text.split(':').next().context("a line of ip(8)")?.trim().parse()?)
}
