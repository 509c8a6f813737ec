//! A device that packets with certain marks are routed to, whatever their destination: ip-rule(8).

use std::collections::HashSet;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteScope, RouteType};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rvs_core::types::Family;

use crate::{Host, HostError};

/// The device.
pub const MARKED: &str = "rvs0";
/// The table with the route to it.
const TABLE: u32 = 7475;
/// The kernel's table of the host's own addresses.
const LOCAL: u32 = 255;
/// Its MTU, the loopback's: super-packets are not cut before the programs see them.
const MTU: u32 = 65_536;

/// Packets of a family with a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mark {
    /// The family.
    pub family: Family,
    /// The mark.
    pub mark: u32,
    /// Which of its bits matter.
    pub mask: u32,
}

/// A mark and its mask.
type Bits = (u32, u32);

fn family(family: Family) -> AddressFamily {
    if family == Family::V4 { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// A rule of preference `preference`: packets with `mark`, or all, look into `table`.
fn rule(family: AddressFamily, preference: u32, mark: Option<Bits>, table: u32) -> RuleMessage {
    let mut rule = RuleMessage::default();
    rule.header.family = family;
    rule.header.action = RuleAction::ToTable;
    // With the attribute, the header's field says nothing.
    rule.attributes.push(RuleAttribute::Table(table));
    rule.attributes.push(RuleAttribute::Priority(preference));
    if let Some((mark, mask)) = mark {
        rule.attributes.push(RuleAttribute::FwMark(mark));
        rule.attributes.push(RuleAttribute::FwMask(mask));
    }
    rule
}

/// What comes by the loopback is not routed to the device again: the stack has what the programs
/// left to it there.
fn way_back(family: AddressFamily) -> RuleMessage {
    let mut rule = RuleMessage::default();
    rule.header.family = family;
    rule.header.action = RuleAction::Goto;
    rule.attributes.push(RuleAttribute::Goto(1));
    rule.attributes.push(RuleAttribute::Priority(0));
    rule.attributes.push(RuleAttribute::Iifname("lo".to_owned()));
    rule
}

/// The rules that there are.
#[derive(Default)]
struct Rules {
    /// Marks that are routed to the device.
    marks: HashSet<Bits>,
    /// Preferences, 0 or 1, of those for the host's own addresses.
    locals: Vec<u32>,
    /// Whether [`way_back`] is one of them.
    has_way_back: bool,
}

impl Host {
    /// Makes the device, up, if it is not there; its index.
    pub fn make_marked_device(&mut self) -> Result<u32, HostError> {
        if let Some(index) = self.marked_device()? {
            return Ok(index);
        }
        let mut made = Ok(());
        // Either drops what it is to send: packets are gone by then.
        for kind in [InfoKind::Dummy, InfoKind::Ifb] {
            let mut message = LinkMessage::default();
            message.header.flags = LinkFlags::Up;
            message.header.change_mask = LinkFlags::Up;
            message.attributes.push(LinkAttribute::IfName(MARKED.to_owned()));
            message.attributes.push(LinkAttribute::Mtu(MTU));
            message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]));
            let message = RouteNetlinkMessage::NewLink(message);
            let what = "make a device for marked packets (dummy or ifb)";
            made = self.request(what, message, NLM_F_CREATE | NLM_F_EXCL).map(drop);
            if made.is_ok() {
                break;
            }
        }
        made?;
        Ok(self.marked_device()?.unwrap_or_default())
    }

    fn marked_device(&mut self) -> Result<Option<u32>, HostError> {
        let interfaces = self.interfaces()?;
        Ok(interfaces.into_iter().find(|i| i.name == MARKED).map(|i| i.index))
    }

    /// Routes packets with exactly these marks to the device with this index. The table of the
    /// host's own addresses, the first to be asked otherwise, comes after:
    ///
    /// ```text
    /// 0: from all iif lo goto 1
    /// 0: from all fwmark 0x5 lookup 7475
    /// 1: from all lookup local
    /// ```
    pub fn route_marked(&mut self, device: u32, marks: &HashSet<Mark>) -> Result<(), HostError> {
        for version in [Family::V4, Family::V6] {
            let wanted = marks.iter().filter(|mark| mark.family == version);
            let wanted: HashSet<Bits> = wanted.map(|mark| (mark.mark, mark.mask)).collect();
            let family = family(version);
            let Rules { marks: ours, locals, has_way_back } = self.rules(family)?;
            if wanted == ours && has_way_back != wanted.is_empty() {
                continue;
            }
            if !wanted.is_empty() {
                self.add_route(family, device)?;
                self.prefer(family, &locals, 1)?;
                if !has_way_back {
                    self.add_rule(way_back(family))?;
                }
            }
            for mark in wanted.difference(&ours) {
                self.add_rule(rule(family, 0, Some(*mark), TABLE))?;
            }
            for mark in ours.difference(&wanted) {
                self.del_rule(rule(family, 0, Some(*mark), TABLE))?;
            }
            if wanted.is_empty() {
                if has_way_back {
                    self.del_rule(way_back(family))?;
                }
                self.prefer(family, &locals, 0)?;
            }
        }
        Ok(())
    }

    /// Takes everything away that [`route_marked`](Self::route_marked) and
    /// [`make_marked_device`](Self::make_marked_device) made.
    pub fn forget_marked(&mut self) -> Result<(), HostError> {
        let Some(device) = self.marked_device()? else { return Ok(()) };
        self.route_marked(device, &HashSet::new())?;
        let mut message = LinkMessage::default();
        message.header.index = device;
        let message = RouteNetlinkMessage::DelLink(message);
        self.request("remove the device for marked packets", message, 0).map(drop)
    }

    fn rules(&mut self, family: AddressFamily) -> Result<Rules, HostError> {
        let mut message = RuleMessage::default();
        message.header.family = family;
        let message = RouteNetlinkMessage::GetRule(message);
        let mut rules = Rules::default();
        for answer in self.request("list rules", message, NLM_F_DUMP)? {
            let RouteNetlinkMessage::NewRule(rule) = answer else { continue };
            let (mut table, mut mark, mut preference) = (u32::from(rule.header.table), None, 0);
            let mut mask = u32::MAX;
            let mut goes_back = false;
            for attribute in &rule.attributes {
                match attribute {
                    RuleAttribute::Table(number) => table = *number,
                    RuleAttribute::FwMark(number) => mark = Some(*number),
                    RuleAttribute::FwMask(number) => mask = *number,
                    RuleAttribute::Priority(number) => preference = *number,
                    RuleAttribute::Goto(1) => goes_back = true,
                    _ => {}
                }
            }
            rules.has_way_back |= goes_back && preference == 0;
            match (table, mark) {
                (TABLE, Some(mark)) => drop(rules.marks.insert((mark, mask))),
                (LOCAL, None) if preference < 2 => rules.locals.push(preference),
                _ => {}
            }
        }
        Ok(rules)
    }

    /// Gives the rule for the host's own addresses this preference, 0 or 1. There is one at any
    /// moment.
    fn prefer(
        &mut self,
        family: AddressFamily,
        locals: &[u32],
        preference: u32,
    ) -> Result<(), HostError> {
        if !locals.contains(&preference) {
            self.add_rule(rule(family, preference, None, LOCAL))?;
        }
        if locals.contains(&(1 - preference)) {
            self.del_rule(rule(family, 1 - preference, None, LOCAL))?;
        }
        Ok(())
    }

    fn add_rule(&mut self, rule: RuleMessage) -> Result<(), HostError> {
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        self.request("add a rule", RouteNetlinkMessage::NewRule(rule), flags).map(drop)
    }

    fn del_rule(&mut self, rule: RuleMessage) -> Result<(), HostError> {
        self.request("remove a rule", RouteNetlinkMessage::DelRule(rule), 0).map(drop)
    }

    fn add_route(&mut self, family: AddressFamily, device: u32) -> Result<(), HostError> {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        message.header.kind = RouteType::Unicast;
        message.header.scope =
            if family == AddressFamily::Inet { RouteScope::Link } else { RouteScope::Universe };
        message.attributes.push(RouteAttribute::Table(TABLE));
        message.attributes.push(RouteAttribute::Oif(device));
        let message = RouteNetlinkMessage::NewRoute(message);
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        self.request("route marked packets", message, flags).map(drop)
    }
}
