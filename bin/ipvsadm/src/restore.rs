//! `ipvsadm -R`: commands from standard input, one a line.

use std::io::{BufRead, Write};

use rvs_netlink::Client;

use crate::command::{self, Command};
use crate::execute::execute;
use crate::{Failure, parse};

/// Carries out the lines. As in ipvsadm a refused change is told and the rest goes on; a line that
/// is no command ends it.
pub fn restore(out: &mut dyn Write, client: &mut Option<Client>) -> Result<(), Failure> {
    for (number, line) in std::io::stdin().lock().lines().enumerate() {
        let at = |failure: Failure| {
            Failure::new(failure.code, format!("line {}: {}", number + 1, failure.message))
        };
        let line = line.map_err(|e| at(Failure::new(1, format!("cannot read: {e}"))))?;
        let mut words = parse::words(&line).map_err(at)?;
        // The program's own name may stand before a command.
        if words.first().is_some_and(|word| word == "ipvsadm" || word.ends_with("/ipvsadm")) {
            words.remove(0);
        }
        if words.is_empty() {
            continue;
        }
        let command = command::parse(&words).map_err(at)?;
        if command == Command::Restore {
            return Err(at(Failure::usage("a restore within a restore")));
        }
        if let Err(failure) = execute(&command, out, client) {
            if client.is_none() {
                return Err(failure);
            }
            eprintln!("{}", at(failure).message);
        }
    }
    Ok(())
}
