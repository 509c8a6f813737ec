//! Locality-based least connection with replication: connections to one address stay with a set of
//! destinations. The set grows by wlc's choice when its least loaded one is overloaded while another
//! is less than half full, and loses its most loaded one when it did not change for a time. Follows
//! `ip_vs_lblcr.c`.

use core::marker::PhantomData;

use super::cache::{self, GONE, Load, MEMBER, Place, SET};
use super::{NONE, row_of, wlc};
use crate::addr::Addr;
use crate::conn::{CACHE, Word};
use crate::env::{Tables, Visit};
use crate::layout::{Conn, Dest, Version};
use crate::sysctl::Sysctl;
use crate::table;
use crate::time::Tick;

/// More members than any set has.
const MEMBERS: u32 = 1 << 16;

#[inline(always)]
pub(super) fn pick<A: Addr, E: Tables<A>>(
    env: &E,
    version: &Version,
    place: Place,
    addr: A,
) -> u32 {
    let key = cache::key(addr, place.slot, version.state.get());
    let mut set = env.find(&key);
    if let Some(known) = table::entry::<A, E>(env, set) {
        cache::touch(env, known);
        let row = least(env, version, place, known);
        if row != NONE {
            return row;
        }
    }
    let picked = wlc::pick(env, version);
    if picked == NONE {
        return NONE;
    }
    let Some((row, dest)) = super::entry(env, version.first_row.get(), picked) else {
        return NONE;
    };
    if set == 0 {
        set = env.claim(&key);
        // Without room for a set the choice still stands.
        let Some(new) = table::entry::<A, E>(env, set) else { return picked };
        new.pair.set(0);
        cache::touch(env, new);
        cache::publish(env, place, new, SET);
    }
    insert(env, set, addr, row.dest, dest);
    picked
}

/// Walks a set: its least and its most loaded members, and whether there are several. Their number
/// would have a greater lower bound after each, and the verifier would follow each as a state of its
/// own.
struct Walk<E> {
    env: E,
    slot: u32,
    next: u32,
    some: bool,
    several: bool,
    least: u32,
    most: u32,
    least_load: Load,
    most_load: Load,
}

/// A [`Walk`] in one address family.
struct Members<A, E>(Walk<E>, PhantomData<A>);

impl<A: Addr, E: Tables<A>> Visit for Members<A, E> {
    #[inline(always)]
    fn visit(&mut self, _: u32) -> bool {
        let walk = &mut self.0;
        let env = walk.env;
        let number = walk.next;
        let Some(member) = table::entry::<A, E>(&env, number) else { return false };
        let word = Word(member.word.get());
        if !word.is_live() || !word.has(CACHE) {
            return false;
        }
        walk.next = member.pair.get();
        if word.state() != MEMBER {
            return true;
        }
        let index = member.dest.get();
        let Some(dest) = env.dest(index) else { return false };
        if !cache::means(member, dest) {
            lose(&env, member);
            return true;
        }
        walk.several = walk.some;
        walk.some = true;
        if dest.weight.get() == 0 {
            return true;
        }
        let load = Load::of(dest);
        if walk.most == 0 || load.exceeds(walk.most_load) {
            walk.most = number;
            walk.most_load = load;
        }
        let takes = dest.overload.get() == 0 && is_listed(dest, walk.slot);
        if takes && (walk.least == NONE || walk.least_load.exceeds(load)) {
            walk.least = index;
            walk.least_load = load;
        }
        true
    }
}

#[inline(always)]
fn walk<A: Addr, E: Tables<A>>(env: &E, set: &Conn<A>, slot: u32) -> Walk<E> {
    let walk = Walk {
        env: *env,
        slot,
        next: set.pair.get(),
        some: env.unknown(0) != 0,
        several: false,
        least: env.unknown(NONE),
        most: env.unknown(0),
        least_load: Load::unknown(env),
        most_load: Load::unknown(env),
    };
    let mut members = Members::<A, E>(walk, PhantomData);
    env.repeat(MEMBERS, &mut members);
    members.0
}

/// Looks for the member that is a destination: `next` is its number in the end, or 0.
struct Seek<A, E> {
    env: E,
    next: u32,
    dest: u32,
    family: PhantomData<A>,
}

impl<A: Addr, E: Tables<A>> Visit for Seek<A, E> {
    #[inline(always)]
    fn visit(&mut self, _: u32) -> bool {
        let Some(member) = table::entry::<A, E>(&self.env, self.next) else { return false };
        if member.dest.get() == self.dest && Word(member.word.get()) == cache::word(MEMBER) {
            return false;
        }
        self.next = member.pair.get();
        true
    }
}

/// Whether the service has the destination (`IP_VS_DEST_F_AVAILABLE`).
#[inline(always)]
fn is_listed(dest: &Dest, slot: u32) -> bool {
    dest.trash.get() == 0 && dest.family.get() != 0 && dest.slot.get() == slot
}

/// Takes a member out of its set; the sweeper unlinks it.
#[inline(always)]
fn lose<A: Addr, E: Tables<A>>(env: &E, member: &Conn<A>) {
    let word = Word(member.word.get());
    env.compare_exchange(&member.word, word.0, word.with_state(GONE).0);
}

/// The row of the set's least loaded member if that takes another connection. A set that is due
/// loses its most loaded one.
#[inline(always)]
fn least<A: Addr, E: Tables<A>>(env: &E, version: &Version, place: Place, set: &Conn<A>) -> u32 {
    let walk = walk(env, set, place.slot);
    let now = env.now();
    let deadline = Tick(set.control.get()).after(cache::timeout(env, Sysctl::LblcrExpiration));
    if walk.several
        && now.reached(deadline)
        && let Some(most) = table::entry::<A, E>(env, walk.most)
    {
        lose(env, most);
        set.control.set(now.0);
    }
    match env.dest(walk.least) {
        Some(dest) if walk.least != NONE && !cache::is_overloaded(env, version, dest) => {
            row_of(env, version, walk.least)
        }
        _ => NONE,
    }
}

/// Adds a destination to a set, unless it is in it or another CPU adds one at the same moment.
#[inline(always)]
fn insert<A: Addr, E: Tables<A>>(env: &E, number: u32, addr: A, index: u32, dest: &Dest) {
    let Some(set) = table::entry::<A, E>(env, number) else { return };
    let mut seek =
        Seek::<A, E> { env: *env, next: set.pair.get(), dest: index, family: PhantomData };
    env.repeat(MEMBERS, &mut seek);
    if seek.next != 0 {
        return;
    }
    let member_number = env.claim(&cache::member_key(addr, index));
    let Some(member) = table::entry::<A, E>(env, member_number) else { return };
    cache::remember(member, index, dest);
    member.control.set(number);
    let first = set.pair.get();
    member.pair.set(first);
    table::publish(env, member, cache::word(MEMBER));
    if env.compare_exchange(&set.pair, first, member_number) != first {
        // A member that names no set is the sweeper's to end.
        member.control.set(0);
    }
    set.control.set(env.now().0);
}
