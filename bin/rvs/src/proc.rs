//! `rvs proc`: what a kernel with ip_vs has in `/proc/net`.

use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use rvs_compat::proc::File;

/// Prints one of the files.
pub fn print(socket: &Path, name: &str) -> Result<()> {
    let names = || File::ALL.map(File::name).join(", ");
    let file =
        File::from_name(name).with_context(|| format!("no file {name}; there are {}", names()))?;
    let mut client = crate::connect(socket)?;
    let mut stdout = BufWriter::new(std::io::stdout().lock());
    let mut written = Ok(());
    let asked = file.pieces(&mut client, &mut |piece| {
        written = stdout.write_all(piece);
        written.is_ok()
    });
    asked.context("cannot read the director's tables")?;
    written.and_then(|()| stdout.flush()).context("cannot write")
}
