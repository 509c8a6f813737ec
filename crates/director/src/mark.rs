//! Rules that mark packets: what `rvs mark` asks for, as text both ways.

use rvs_core::control::Datapath;
use rvs_core::layout::MarkRule;
use rvs_netlink::attr::{Attrs, Writer};
use rvs_netlink::errno::{EINVAL, ENOENT};
use rvs_netlink::ipvs::{cmd_attr, command};

use crate::reply::Answers;
use crate::{Director, Refusal};

/// The rule that a request names.
fn asked(attrs: &Attrs<'_>) -> Result<MarkRule, Refusal> {
    let text = attrs.text(cmd_attr::MARK).ok_or(EINVAL)?;
    text.parse().map_err(|error| Refusal::new(EINVAL, format!("{error}")))
}

impl<D: Datapath> Director<D> {
    fn marks(&self) -> Vec<MarkRule> {
        let mut rules = Vec::new();
        self.datapath.for_each_mark(&mut |rule| rules.push(*rule));
        rules
    }

    pub(crate) fn dump_marks(&self) -> Answers {
        let row = |rule: MarkRule| {
            let mut row = Writer::new();
            row.text(cmd_attr::MARK, &rule.to_string());
            (command::GET_MARK, row)
        };
        self.marks().into_iter().map(row).collect()
    }

    pub(crate) fn new_mark(&mut self, attrs: &Attrs<'_>) -> Result<(), Refusal> {
        let mut rules = self.marks();
        rules.push(asked(attrs)?);
        Ok(self.datapath.set_marks(&rules)?)
    }

    pub(crate) fn del_mark(&mut self, attrs: &Attrs<'_>) -> Result<(), Refusal> {
        let (mut rules, rule) = (self.marks(), asked(attrs)?);
        let found = rules.iter().position(|other| *other == rule);
        rules.remove(found.ok_or_else(|| Refusal::new(ENOENT, format!("no rule {rule}")))?);
        Ok(self.datapath.set_marks(&rules)?)
    }

    pub(crate) fn flush_marks(&mut self) -> Result<(), Refusal> {
        Ok(self.datapath.set_marks(&[])?)
    }
}
