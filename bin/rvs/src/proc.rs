//! `rvs proc`: what a kernel with ip_vs has in `/proc/net`.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use rvs_compat::proc::File;

/// Prints one of the files.
pub fn print(socket: &Path, name: &str) -> Result<()> {
    let names = || File::ALL.map(File::name).join(", ");
    let file =
        File::from_name(name).with_context(|| format!("no file {name}; there are {}", names()))?;
    let mut client = crate::connect(socket)?;
    let text = file.text(&mut client).context("cannot read the director's tables")?;
    std::io::stdout().write_all(&text).context("cannot write")
}
