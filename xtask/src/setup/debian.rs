//! Debian's packages.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Once;

use anyhow::{Context, Result, bail};

use crate::sh::{find_program, quietly, say, stdout};

/// Whether this machine could install the package: it has apt, and apt knows it.
pub fn offers(package: &str) -> bool {
    if find_program("apt-get").is_none() {
        return false;
    }
    if is_root() && !has_candidate(package) {
        update();
    }
    has_candidate(package)
}

/// Whether the machine has dpkg and one of the packages is not installed.
pub fn lacks(packages: &[&str]) -> bool {
    find_program("dpkg-query").is_some() && !missing(packages).is_empty()
}

/// Installs what is missing of the packages, saying so.
pub fn install(what: &str, packages: &[&str]) -> Result<()> {
    let packages = missing(packages);
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if find_program("apt-get").is_none() {
        bail!("{what}: please install what Debian has in the packages {list}");
    }
    if !is_root() {
        bail!("{what}: please run `apt-get install {list}`, or this command as root");
    }
    update();
    say(&format!("installing {what}: {list}"));
    let _no_services = NoServices::begin()?;
    let mut command = apt();
    command.args(["install", "-y", "-q", "--no-install-recommends"]).args(&packages);
    quietly(&mut command).with_context(|| format!("cannot install {what}"))
}

/// Unpacks a package into a folder without installing it.
pub fn unpack(package: &str, into: &Path) -> Result<()> {
    std::fs::create_dir_all(into)?;
    if is_root() {
        update();
    }
    quietly(apt().args(["download", "-q", package]).current_dir(into))?;
    let prefix = format!("{package}_");
    let is_archive = |name: &str| name.starts_with(&prefix) && name.ends_with(".deb");
    for entry in std::fs::read_dir(into)? {
        let path = entry?.path();
        if path.file_name().and_then(|name| name.to_str()).is_some_and(is_archive) {
            quietly(Command::new("dpkg").arg("-x").arg(&path).arg(into))?;
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// While it lives, Debian's packages start no service (`/usr/sbin/policy-rc.d`, see invoke-rc.d(8)).
struct NoServices {
    made: bool,
}

/// What decides whether a package may start its services.
const POLICY: &str = "/usr/sbin/policy-rc.d";

impl NoServices {
    fn begin() -> Result<Self> {
        // A machine that has one has its reasons.
        if Path::new(POLICY).exists() {
            return Ok(Self { made: false });
        }
        let made = Self { made: true };
        let forbid =
            "#!/bin/sh\n# Made by cargo xtask setup, for as long as it installs.\nexit 101\n";
        std::fs::write(POLICY, forbid).with_context(|| format!("cannot write {POLICY}"))?;
        std::fs::set_permissions(POLICY, std::fs::Permissions::from_mode(0o755))?;
        Ok(made)
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.made {
            let _ = std::fs::remove_file(POLICY);
        }
    }
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    // Another apt at work is waited for.
    command.args(["-o", "DPkg::Lock::Timeout=300"]);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Fetches the lists of packages, once; old lists may do, so a failure is only told.
fn update() {
    static UPDATED: Once = Once::new();
    UPDATED.call_once(|| {
        say("updating the lists of Debian's packages");
        if let Err(error) = quietly(apt().args(["update", "-q"])) {
            say(&format!("{error:#}"));
        }
    });
}

fn has_candidate(package: &str) -> bool {
    let policy = stdout(Command::new("apt-cache").args(["policy", package])).unwrap_or_default();
    policy.lines().any(|line| {
        line.trim().strip_prefix("Candidate: ").is_some_and(|version| version != "(none)")
    })
}

fn missing<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    let installed = |package: &str| {
        let format = "--showformat=${db:Status-Status}";
        let status = stdout(Command::new("dpkg-query").args(["--show", format, package]));
        status.as_deref() == Some("installed")
    };
    packages.iter().copied().filter(|package| !installed(package)).collect()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
