//! Servers of the demo that are processes of their own, so that a lab that is kept outlives the
//! process that made it. Not for people: no word of it in `--help`.

use std::path::Path;

use anyhow::{Context, Result, bail};
use lexopt::prelude::*;
use rvs_testkit::lab::{Checksums, builtin_http, decapsulate};

/// `helper decap [--strict]`, or `helper http NAME FOLDER PORT`, in the current namespace, for ever.
pub fn run(mut parser: lexopt::Parser) -> Result<()> {
    let mut words = Vec::new();
    let mut checksums = Checksums::Complete;
    while let Some(arg) = parser.next()? {
        match arg {
            Long("strict") => checksums = Checksums::Keep,
            Value(word) => words.push(word.string()?),
            _ => return Err(arg.unexpected().into()),
        }
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["decap"] => decapsulate(checksums).context("cannot decapsulate"),
        ["http", name, folder, port] => {
            builtin_http(name, Path::new(folder), port.parse()?).context("cannot serve HTTP")
        }
        _ => bail!("no such helper"),
    }
}
