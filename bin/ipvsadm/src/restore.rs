//! `ipvsadm -R` and `ipvsadm-restore`: commands from standard input, one a line.

use std::io::{BufRead, BufReader, IsTerminal, Read, Write};

use indicatif::{ProgressBar, ProgressStyle};
use rvs_netlink::Client;
use rvs_netlink::client::Batch;

use crate::Failure;
use crate::command::{self, Command};
use crate::execute::{self, Subject, connect, execute, explain};

/// Lines to restore, and how many bytes they have if that is known.
pub struct Source {
    lines: Box<dyn BufRead>,
    len: Option<u64>,
}

/// Standard input, whose length is known if it is a file.
pub fn stdin() -> Result<Source, Failure> {
    use std::os::fd::AsFd;
    let failed = |e| Failure::new(1, format!("cannot read: {e}"));
    let file = std::fs::File::from(std::io::stdin().as_fd().try_clone_to_owned().map_err(failed)?);
    let len = file.metadata().ok().filter(|meta| meta.is_file()).map(|meta| meta.len());
    Ok(Source { lines: Box::new(BufReader::with_capacity(64 * 1024, file)), len })
}

/// `ipvsadm-restore`: reads all of its input, clears the table, and restores what is no comment.
/// Like the script of this name it takes no arguments and is not stopped by any.
pub fn program(args: &[String], out: &mut dyn Write) -> Result<(), Failure> {
    if let Some(arg) = args.first() {
        eprintln!("warning: {arg} is ignored: ipvsadm-restore takes no arguments");
    }
    let mut text = Vec::new();
    stdin()?
        .lines
        .read_to_end(&mut text)
        .map_err(|e| Failure::new(1, format!("cannot read: {e}")))?;
    // A comment keeps its place, so that lines are told by their number in the input.
    let lines = text.split_inclusive(|b| *b == b'\n');
    let rules = lines.flat_map(|line| if line.starts_with(b"#") { b"\n" } else { line });
    let rules: Vec<u8> = rules.copied().collect();
    let mut client = None;
    execute(&Command::Flush, out, &mut client)?;
    let len = Some(rules.len() as u64);
    restore(Source { lines: Box::new(std::io::Cursor::new(rules)), len }, out, &mut client)
}

/// Carries out the lines. As in ipvsadm a refused change or an unknown option is told and the rest
/// goes on; a line that makes no sense otherwise ends it, and so does a listing that fails.
pub fn restore(
    source: Source,
    out: &mut dyn Write,
    client: &mut Option<Client>,
) -> Result<(), Failure> {
    let mut waiting = Waiting::new(progress(source.len));
    let mut result = Ok(());
    for (index, line) in source.lines.split(b'\n').enumerate() {
        let number = index + 1;
        let step = match line {
            Ok(line) => {
                waiting.bar.inc(line.len() as u64 + 1);
                one(&String::from_utf8_lossy(&line), number, out, client, &mut waiting)
            }
            Err(error) => Err(Failure::new(1, format!("cannot read: {error}"))),
        };
        match step {
            Ok(Next::Line) => {}
            Ok(Next::End) => break,
            Err(failure) => {
                // What came before the bad line is done.
                result = waiting.send(client).and(Err(at(number, failure)));
                break;
            }
        }
    }
    let result = result.and_then(|()| waiting.send(client));
    waiting.bar.finish_and_clear();
    result?;
    match waiting.refused {
        0 => Ok(()),
        1 => Err(Failure::new(255, "1 line was refused")),
        n => Err(Failure::new(255, format!("{n} lines were refused"))),
    }
}

fn at(number: usize, failure: Failure) -> Failure {
    Failure { message: format!("line {number}: {}", failure.message), ..failure }
}

/// Whether to read on.
enum Next {
    Line,
    End,
}

fn one(
    line: &str,
    number: usize,
    out: &mut dyn Write,
    client: &mut Option<Client>,
    waiting: &mut Waiting,
) -> Result<Next, Failure> {
    let mut words: Vec<&str> = line.split_ascii_whitespace().collect();
    // The program's own name may stand before a command.
    if words.first() == Some(&"ipvsadm") {
        words.remove(0);
    }
    if words.is_empty() {
        return Ok(Next::Line);
    }
    let parsed = match command::parse(&words) {
        Err(failure) if !failure.ends_restore => {
            waiting.send(client)?;
            waiting.refuse(number, &failure.message);
            return Ok(Next::Line);
        }
        parsed => parsed?,
    };
    for warning in &parsed.warnings {
        waiting.say(&format!("line {number}: warning: {warning}"));
    }
    if let Some(change) = execute::change(&parsed.command) {
        let client = connect(client)?;
        waiting.batch.push(client, change.number, &change.attrs);
        waiting.lines.push((number, change.subject));
        if waiting.batch.is_full() {
            waiting.send_to(client)?;
        }
        return Ok(Next::Line);
    }
    waiting.send(client)?;
    if parsed.command == Command::Restore {
        return Err(Failure::new(255, "a restore within a restore"));
    }
    execute(&parsed.command, out, client)?;
    let ends = matches!(parsed.command, Command::Help | Command::Version);
    Ok(if ends { Next::End } else { Next::Line })
}

/// Changes that wait for more of them.
struct Waiting {
    bar: ProgressBar,
    batch: Batch,
    /// Line and subject of each change in the batch.
    lines: Vec<(usize, Subject)>,
    /// How many were refused so far.
    refused: usize,
}

impl Waiting {
    fn new(bar: ProgressBar) -> Self {
        Self { bar, batch: Batch::default(), lines: Vec::new(), refused: 0 }
    }

    /// Says something on stderr, above the bar.
    fn say(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }

    /// Counts a line that did nothing and says why.
    fn refuse(&mut self, number: usize, why: &str) {
        self.refused += 1;
        self.say(&format!("line {number}: {why}"));
    }

    fn send(&mut self, client: &mut Option<Client>) -> Result<(), Failure> {
        match client {
            Some(client) => self.send_to(client),
            None => Ok(()),
        }
    }

    fn send_to(&mut self, client: &mut Client) -> Result<(), Failure> {
        let lines = std::mem::take(&mut self.lines);
        let outcomes =
            self.batch.send(client).map_err(|e| Failure::new(255, explain(&e, Subject::Other)))?;
        for ((number, subject), outcome) in lines.into_iter().zip(outcomes) {
            if let Err(error) = outcome {
                self.refuse(number, &explain(&error, subject));
            }
        }
        Ok(())
    }
}

/// A bar on stderr, if that is a terminal and standard input is not.
fn progress(len: Option<u64>) -> ProgressBar {
    if std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match len {
        Some(len) => (ProgressBar::new(len), "{bar:40} {percent}% {eta}"),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} {elapsed}"),
    };
    // The templates are literals; a bad one would only leave the default.
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
