//! `-a`, `-e`, `-d`: a destination.

use rvs_core::types::{DestConfig, DestKey, Family, ForwardMethod, ServiceKey};

use super::options::Options;
use crate::Failure;
use crate::flags::Opt;

/// Names of tunnel types, by number (`IP_VS_CONN_F_TUNNEL_TYPE_*`).
pub(super) const TUNNELS: [&str; 3] = ["ipip", "gue", "gre"];

impl Options {
    /// The real server; its port is the service's unless given, and always so where packets keep
    /// their destination port.
    fn dest_key(&mut self, forward: ForwardMethod) -> Result<DestKey, Failure> {
        let server = self.server.ok_or_else(|| Failure::usage("no real server given"))?;
        let ServiceKey::Address { port: service, .. } = self.key()? else {
            return Ok(DestKey { addr: server.addr, port: server.port.unwrap_or_default() });
        };
        let asked = server.port.unwrap_or(service);
        if asked == service || forward == ForwardMethod::Masquerade {
            return Ok(DestKey { addr: server.addr, port: asked });
        }
        let how = if forward == ForwardMethod::Tunnel { "tunneling" } else { "direct routing" };
        self.warn(format!("port {asked} is ignored: {how} keeps the service's port {service}"));
        Ok(DestKey { addr: server.addr, port: service })
    }

    /// What `-d` names: by its port as given, however it forwards.
    pub(super) fn dest_to_delete(&mut self) -> Result<DestKey, Failure> {
        self.dest_key(ForwardMethod::Masquerade)
    }

    /// The destination that the options describe.
    pub(super) fn full_dest(&mut self) -> Result<DestConfig, Failure> {
        let forward = self.forward.unwrap_or(ForwardMethod::DirectRoute);
        let key = self.dest_key(forward)?;
        if Family::of(key.addr) != self.key()?.family() && forward != ForwardMethod::Tunnel {
            let text = "Different address family is allowed only for tunneling servers";
            return Err(Failure::usage(text));
        }
        let (tunnel_type, tunnel_port, tunnel_flags) = self.tunnel(forward)?;
        Ok(DestConfig {
            key,
            forward,
            weight: self.weight.unwrap_or(1),
            upper_threshold: self.upper,
            lower_threshold: self.lower,
            tunnel_type,
            tunnel_port,
            tunnel_flags,
        })
    }

    /// Tunnel type, port and flags (`IP_VS_TUNNEL_ENCAP_FLAG_*`).
    fn tunnel(&self, forward: ForwardMethod) -> Result<(u8, u16, u16), Failure> {
        let checksums = [(Opt::TunNocsum, 0), (Opt::TunCsum, 1), (Opt::TunRemcsum, 2)];
        let chosen: Vec<(Opt, u16)> =
            checksums.into_iter().filter(|(opt, _)| self.has(*opt)).collect();
        let given = self.tunnel_type.is_some() || self.tunnel_port.is_some() || !chosen.is_empty();
        if given && forward != ForwardMethod::Tunnel {
            return Err(Failure::usage("Tunnel options conflict with forward method"));
        }
        let kind = self.tunnel_type.unwrap_or_default();
        let name = TUNNELS.get(usize::from(kind)).unwrap_or(&"");
        if kind == 1 && self.tunnel_port.is_none() {
            let text = "You need to supply the 'tun-port' option for the 'gue' tunnel type";
            return Err(Failure::usage(text));
        }
        let refused: &[Opt] = match kind {
            0 => &[Opt::TunPort, Opt::TunNocsum, Opt::TunCsum, Opt::TunRemcsum],
            1 => &[],
            _ => &[Opt::TunPort, Opt::TunRemcsum],
        };
        if let Some(opt) = refused.iter().find(|opt| self.has(**opt)) {
            let text = format!("Illegal '{}' option with the '{name}' tunnel type", opt.name());
            return Err(Failure::usage(text));
        }
        if let [(first, _), (second, _), ..] = chosen.as_slice() {
            return Err(Failure::usage(format!(
                "The option '{}' conflicts with the '{}' option in the '{name}' tunnel type",
                second.name(),
                first.name()
            )));
        }
        let flags = chosen.first().map_or(0, |(_, flag)| *flag);
        Ok((kind, self.tunnel_port.unwrap_or_default(), flags))
    }
}

#[cfg(test)]
mod tests {
    use crate::command::parse;

    #[test]
    fn a_port_that_is_ignored_is_told() {
        let warnings = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            parse(&words).expect("a command").warnings.len()
        };
        assert_eq!(warnings("-a -t 1.2.3.4:80 -r 1.2.3.5:8080 -g"), 1);
        assert_eq!(warnings("-a -t 1.2.3.4:80 -r 1.2.3.5:8080 -i"), 1);
        assert_eq!(warnings("-a -t 1.2.3.4:80 -r 1.2.3.5:8080 -m"), 0);
        assert_eq!(warnings("-a -t 1.2.3.4:80 -r 1.2.3.5:80 -g"), 0);
        assert_eq!(warnings("-a -t 1.2.3.4:80 -r 1.2.3.5"), 0);
        assert_eq!(warnings("-d -t 1.2.3.4:80 -r 1.2.3.5:8080"), 0);
    }
}
