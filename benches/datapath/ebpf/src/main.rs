//! The wrapper around a measured program, and the programs that RVS is compared with.
//!
//! `BPF_PROG_TEST_RUN` repeats a program on the packet as the last run left it. So it repeats a
//! wrapper, which undoes whatever happened to the packet, writes the frame of the next flow over it,
//! and tail-calls the measured program.
#![no_std]
#![no_main]

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_TX};
use aya_ebpf::btf_maps::{Array, HashMap, PerCpuArray, ProgramArray};
use aya_ebpf::cty::{c_long, c_void};
use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_loop, bpf_redirect, bpf_xdp_adjust_head};
use aya_ebpf::macros::{btf_map, classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use rvs_bench_ebpf::{BATCH, Control, LEN4, LEN6, PROGRAMS, addr, port};

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The measured programs are GPL-compatible, and so must be who calls them.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

const MMAPABLE: usize = 1 << 10;
/// `TC_ACT_SHOT`
const SHOT: i32 = 2;

type Key4 = [u32; 4];
type Key6 = [u32; 10];

#[btf_map]
static CONTROL: Array<Control, 1, MMAPABLE> = Array::new();
#[btf_map]
static XDP_PROGRAMS: ProgramArray<PROGRAMS> = ProgramArray::new();
#[btf_map]
static TC_PROGRAMS: ProgramArray<PROGRAMS> = ProgramArray::new();
#[btf_map]
static HASH4: HashMap<Key4, [u64; 2], 1> = HashMap::new();
#[btf_map]
static HASH6: HashMap<Key6, [u64; 2], 1> = HashMap::new();

/// Writes a 16-bit field of the template.
#[inline(always)]
fn put(control: &mut Control, offset: u32, value: u16) {
    let at = (offset >> 1) as usize & 63;
    // SAFETY: the template has 64 such fields, aligned as the map's value is.
    unsafe { *control.frame.as_mut_ptr().cast::<u16>().add(at) = value.to_be() };
}

/// Chooses the next flow and writes its frame to `data`, where `LEN` bytes are known to be.
#[inline(always)]
fn write<const LEN: usize>(control: &mut Control, data: usize) {
    let number = if control.in_turn != 0 {
        control.next += 1;
        control.next - 1
    } else {
        let mut x = control.random;
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        control.random = x;
        x
    };
    let flow = control.first + (number & control.mask);
    put(control, control.port, port(flow));
    put(control, control.port_inverse, !port(flow));
    put(control, control.header_inverse, !addr(flow));
    put(control, control.addr_inverse, !addr(flow));
    put(control, control.addr, addr(flow));
    let (from, to) = (control.frame.as_ptr().cast::<u64>(), data as *mut u64);
    for word in 0..LEN / 8 {
        // SAFETY: `LEN` is at most the template's length; the caller has checked the packet's.
        unsafe { *to.add(word) = *from.add(word) };
    }
}

#[inline(always)]
fn control() -> Option<&'static mut Control> {
    // SAFETY: one run at a time uses it; user space looks at it between runs.
    CONTROL.get_ptr_mut(0).map(|control| unsafe { &mut *control })
}

#[inline(always)]
fn wrap_xdp<const LEN: usize>(ctx: &XdpContext) -> u32 {
    let Some(control) = control() else { return XDP_ABORTED };
    let extra = (ctx.data_end() - ctx.data()) as i32 - LEN as i32;
    // SAFETY: the context is valid; the helper checks the length.
    if extra != 0 && unsafe { bpf_xdp_adjust_head(ctx.ctx, extra) } != 0 {
        return XDP_ABORTED;
    }
    if ctx.data() + LEN > ctx.data_end() {
        return XDP_ABORTED;
    }
    write::<LEN>(control, ctx.data());
    // SAFETY: the context is this program's own. It returns only if the call failed.
    unsafe { XDP_PROGRAMS.tail_call(ctx, control.program) };
    XDP_ABORTED
}

#[inline(always)]
fn wrap_tc<const LEN: usize>(ctx: &TcContext) -> i32 {
    let Some(control) = control() else { return SHOT };
    if ctx.data() + LEN > ctx.data_end() {
        return SHOT;
    }
    write::<LEN>(control, ctx.data());
    // SAFETY: as for XDP.
    unsafe { TC_PROGRAMS.tail_call(ctx, control.program) };
    SHOT
}

#[xdp(frags)]
pub fn wrap_xdp4(ctx: XdpContext) -> u32 {
    wrap_xdp::<LEN4>(&ctx)
}

#[xdp(frags)]
pub fn wrap_xdp6(ctx: XdpContext) -> u32 {
    wrap_xdp::<LEN6>(&ctx)
}

#[classifier]
pub fn wrap_tc4(ctx: TcContext) -> i32 {
    wrap_tc::<LEN4>(&ctx)
}

#[classifier]
pub fn wrap_tc6(ctx: TcContext) -> i32 {
    wrap_tc::<LEN6>(&ctx)
}

/// The least that a program for XDP can do.
#[xdp(frags)]
pub fn bare_xdp(_: XdpContext) -> u32 {
    XDP_TX
}

/// The least that forwards by TC.
#[classifier]
pub fn bare_tc(ctx: TcContext) -> i32 {
    // SAFETY: the context is valid for the whole run.
    unsafe { bpf_redirect((*ctx.skb.skb).ifindex, 0) as i32 }
}

/// What a flow is found by.
enum Parsed {
    V4(Key4),
    V6(Key6),
}

/// The addresses and ports of a TCP packet without options or extension headers.
#[inline(always)]
fn parse(data: usize, end: usize) -> Option<Parsed> {
    if data + 14 + 20 + 20 > end {
        return None;
    }
    // SAFETY: 54 bytes are there; the kernel has packets at even addresses at least.
    let half = |offset: usize| unsafe { *((data + offset) as *const u16) };
    // SAFETY: as above, for offsets of at most 50; x86 and arm64 take any alignment.
    let word = |offset: usize| unsafe { *((data + offset) as *const u32) };
    match u16::from_be(half(12)) {
        0x0800 if half(14).to_be() >> 8 == 0x45 && half(22).to_be() as u8 == 6 => {
            Some(Parsed::V4([word(26), word(30), word(34), 6]))
        }
        0x86dd if data + 14 + 40 + 20 <= end && half(20).to_be() >> 8 == 6 => {
            let mut key = [6; 10];
            for (index, place) in key.iter_mut().enumerate().take(9) {
                // SAFETY: 36 bytes from the addresses on are there.
                *place = unsafe { *((data + 22 + index * 4) as *const u32) };
            }
            Some(Parsed::V6(key))
        }
        _ => None,
    }
}

/// Parses, and looks the flow up. The value is read and checked, as one that matters would be.
#[inline(always)]
fn found(data: usize, end: usize) -> bool {
    let value = match parse(data, end) {
        // SAFETY: nothing changes the elements while they are read.
        Some(Parsed::V4(key)) => unsafe { HASH4.get(key) },
        // SAFETY: as above.
        Some(Parsed::V6(key)) => unsafe { HASH6.get(key) },
        None => None,
    };
    value.is_some_and(|value| value[0] == 1)
}

#[inline(always)]
fn inserted(data: usize, end: usize) -> bool {
    const NO_EXIST: u64 = 1;
    match parse(data, end) {
        Some(Parsed::V4(key)) => HASH4.insert(key, [1, 0], NO_EXIST).is_ok(),
        Some(Parsed::V6(key)) => HASH6.insert(key, [1, 0], NO_EXIST).is_ok(),
        None => false,
    }
}

#[cold]
#[inline(never)]
fn fail() {
    if let Some(control) = control() {
        control.failed += 1;
    }
}

macro_rules! reference {
    ($xdp:ident, $tc:ident, $operation:ident) => {
        #[xdp(frags)]
        pub fn $xdp(ctx: XdpContext) -> u32 {
            if !$operation(ctx.data(), ctx.data_end()) {
                fail();
            }
            XDP_TX
        }
        #[classifier]
        pub fn $tc(ctx: TcContext) -> i32 {
            if !$operation(ctx.data(), ctx.data_end()) {
                fail();
            }
            // SAFETY: the context is valid for the whole run.
            unsafe { bpf_redirect((*ctx.skb.skb).ifindex, 0) as i32 }
        }
    };
}
reference!(look_up_xdp, look_up_tc, found);
reference!(insert_xdp, insert_tc, inserted);

/// Packets that [`count_xdp`] has seen.
#[btf_map]
static COUNT: PerCpuArray<u64, 1> = PerCpuArray::new();
/// Where [`redirect_xdp`] and [`redirect_tc`] send to: an interface index.
#[btf_map]
static WAY_OUT: Array<u32, 1> = Array::new();

/// The generator of the lab: sends the frame of the next flow out of the interface by which the
/// live frame claims to have come.
#[xdp(frags)]
pub fn generate_xdp(ctx: XdpContext) -> u32 {
    let Some(control) = control() else { return XDP_ABORTED };
    if ctx.data() + LEN4 > ctx.data_end() {
        return XDP_ABORTED;
    }
    write::<LEN4>(control, ctx.data());
    if control.made % BATCH == 0 && control.gap != 0 {
        wait(control);
    }
    control.made = control.made.wrapping_add(1);
    XDP_TX
}

/// Waits until the generator's batch is due. One that is late does not make up for more than a batch.
#[inline(always)]
fn wait(control: &mut Control) {
    extern "C" fn is_due(_: u32, due: *mut c_void) -> c_long {
        // SAFETY: `wait` passes a number that outlives the loop; a helper without pointers.
        unsafe { (bpf_ktime_get_ns() >= *due.cast::<u64>()) as c_long }
    }
    // SAFETY: a helper without pointers.
    let now = unsafe { bpf_ktime_get_ns() };
    let gap = u64::from(control.gap);
    control.due = (control.due + gap).max(now.saturating_sub(gap));
    let mut due = control.due;
    // SAFETY: `is_due` gets the number back.
    unsafe { bpf_loop(1 << 20, is_due as *mut c_void, (&raw mut due).cast(), 0) };
}

/// The sink of the lab.
#[xdp(frags)]
pub fn count_xdp(_: XdpContext) -> u32 {
    if let Some(count) = COUNT.get_ptr_mut(0) {
        // SAFETY: this CPU's own, and the program is not interrupted by itself.
        unsafe { *count += 1 };
    }
    XDP_DROP
}

/// The least that forwards between two interfaces by XDP.
#[xdp(frags)]
pub fn redirect_xdp(_: XdpContext) -> u32 {
    let Some(way_out) = WAY_OUT.get(0) else { return XDP_ABORTED };
    // SAFETY: a helper without pointers.
    unsafe { bpf_redirect(*way_out, 0) as u32 }
}

/// The least that forwards between two interfaces by TC.
#[classifier]
pub fn redirect_tc(_: TcContext) -> i32 {
    let Some(way_out) = WAY_OUT.get(0) else { return SHOT };
    // SAFETY: a helper without pointers.
    unsafe { bpf_redirect(*way_out, 0) as i32 }
}
