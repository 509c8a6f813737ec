//! Names of the files that ip_vs adds to `/proc`.

use std::path::Path;

use crate::proc::File;
use crate::sysctl;

/// A file or folder that a kernel has only with ip_vs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// A file of `/proc/net`.
    Proc(File),
    /// A file of `/proc/sys/net/ipv4/vs`, by its name.
    Setting(&'static str),
    /// `/proc/sys/net/ipv4/vs` itself.
    Settings,
}

impl Node {
    /// What an absolute path names, whatever it is spelled like: `/proc/net/ip_vs`,
    /// `/proc/self/net/ip_vs`, `/proc/7//net/ip_vs`.
    pub fn at(path: &Path) -> Option<Self> {
        let rest = path.strip_prefix("/proc").ok()?;
        if let Ok(setting) = rest.strip_prefix("sys/net/ipv4/vs") {
            let Some(name) = setting.to_str().filter(|name| !name.is_empty()) else {
                return Some(Self::Settings);
            };
            return sysctl::names().find(|known| *known == name).map(Self::Setting);
        }
        let mut names = rest.iter().map(|name| name.to_str().unwrap_or_default());
        let mut first = names.next()?;
        if matches!(first, "self" | "thread-self") || first.parse::<u32>().is_ok() {
            first = names.next()?;
        }
        let (folder, file, end) = (first, names.next()?, names.next());
        if folder != "net" || end.is_some() {
            return None;
        }
        File::from_name(file).map(Self::Proc)
    }

    /// Its path, free of links (realpath(3)).
    pub fn path(self) -> String {
        match self {
            // `/proc/net` is a link to `self/net`.
            Self::Proc(file) => format!("/proc/{}/net/{}", std::process::id(), file.name()),
            Self::Setting(name) => format!("/proc/sys/net/ipv4/vs/{name}"),
            Self::Settings => "/proc/sys/net/ipv4/vs".to_owned(),
        }
    }

    /// Whether a path, absolute or not, may name one of these, by the looks of its end.
    pub fn may_be(path: &Path) -> bool {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| {
            name == "vs" || File::from_name(name).is_some() || sysctl::names().any(|n| n == name)
        })
    }

    /// What a path names that is relative to the folder which `link` leads to, such as
    /// `/proc/self/cwd` or `/proc/self/fd/7`.
    pub fn below(link: &Path, path: &Path) -> Option<Self> {
        if path.is_absolute() || !Self::may_be(path) {
            return Self::at(path);
        }
        Self::at(&std::fs::read_link(link).ok()?.join(path))
    }

    /// A file or folder of every kernel that is of the same kind and mode.
    pub fn stand_in(self) -> &'static std::ffi::CStr {
        match self {
            Self::Proc(_) => c"/proc/net/dev",
            Self::Setting(_) => c"/proc/sys/net/ipv4/ip_forward",
            Self::Settings => c"/proc/sys/net/ipv4",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_all_their_names() {
        let at = |path: &str| Node::at(Path::new(path));
        for path in ["/proc/net/ip_vs", "/proc/self/net/ip_vs", "/proc//17/net/./ip_vs"] {
            assert_eq!(at(path), Some(Node::Proc(File::Services)), "{path}");
        }
        let setting = at("/proc/sys/net/ipv4/vs/conn_reuse_mode");
        assert_eq!(setting, Some(Node::Setting("conn_reuse_mode")));
        assert_eq!(at("/proc/sys/net/ipv4/vs/"), Some(Node::Settings));
        for path in [
            "/proc/net/dev",
            "proc/net/ip_vs",
            "/proc/net/ip_vs/x",
            "/proc/sys/net/ipv4/vs/x",
            "/proc/x/net/ip_vs",
            "/net/ip_vs",
        ] {
            assert_eq!(at(path), None, "{path}");
        }
    }
}
