//! `rvs run`: starts a program that was made for the kernel's ip_vs, so that it talks to rvsd.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use object::LittleEndian;
use object::elf::{FileHeader64, PT_INTERP};
use object::read::elf::{FileHeader, ProgramHeader};

use crate::supervise;

/// File name of the library.
const LIBRARY: &str = "librvs_ipvs.so";
/// How many scripts may name each other as their interpreters.
const DEPTH: usize = 4;

/// Replaces this process by the program; returns only if that fails.
pub fn run(socket: &Path, program: &OsStr, args: &[OsString]) -> Result<()> {
    let library = library()?;
    let path = find(program)?;
    check(&path, DEPTH)?;
    crate::connect(socket)?;
    let mut command = command(socket, &path, program, args);
    command.env("LD_PRELOAD", preload(library));
    Err(command.exec()).with_context(|| format!("cannot start {}", path.display()))
}

/// The same for any program, under supervision.
pub fn run_static(socket: &Path, program: &OsStr, args: &[OsString]) -> Result<()> {
    let path = find(program)?;
    crate::connect(socket)?;
    let mut command = command(socket, &path, program, args);
    supervise::begin(socket)?;
    Err(command.exec()).with_context(|| format!("cannot start {}", path.display()))
}

fn command(socket: &Path, path: &Path, program: &OsStr, args: &[OsString]) -> Command {
    let mut command = Command::new(path);
    command.arg0(program).args(args).env("RVS_SOCKET", socket);
    command
}

/// What is preloaded: the library, and what is preloaded anyway.
fn preload(library: PathBuf) -> OsString {
    let mut preload = library.into_os_string();
    if let Some(others) = std::env::var_os("LD_PRELOAD").filter(|others| !others.is_empty()) {
        preload.push(":");
        preload.push(others);
    }
    preload
}

/// Finds the library beside this program, or in `lib` beside its folder.
fn library() -> Result<PathBuf> {
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    let folder = program.parent().unwrap_or(Path::new("/"));
    let places = [folder.join(LIBRARY), folder.join("../lib").join(LIBRARY)];
    let Some(place) = places.iter().find(|place| place.is_file()) else {
        let [beside, lib] = places;
        bail!("{LIBRARY} is neither at {} nor at {}", beside.display(), lib.display());
    };
    let library = std::fs::canonicalize(place)?;
    if library.as_os_str().as_bytes().iter().any(|byte| matches!(byte, b' ' | b':')) {
        bail!("{}: the dynamic linker takes no path with blanks or colons", library.display());
    }
    Ok(library)
}

/// Finds a program as a shell does.
fn find(program: &OsStr) -> Result<PathBuf> {
    let is_program = |path: &Path| {
        path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    if program.as_bytes().contains(&b'/') {
        let path = PathBuf::from(program);
        std::fs::metadata(&path).with_context(|| format!("no program {}", path.display()))?;
        return Ok(path);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|path| is_program(path))
        .with_context(|| format!("no program {} in $PATH", program.to_string_lossy()))
}

/// Refuses programs into which nothing can be preloaded.
fn check(path: &Path, depth: usize) -> Result<()> {
    let mut file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let meta = file.metadata()?;
    if gains_rights(path, &meta) {
        bail!(
            "{} runs with other rights than the caller's (setuid, setgid or capabilities): the \
             dynamic linker preloads nothing into it; run it as the user that it changes to",
            path.display()
        );
    }
    let mut start = [0; 256];
    let length = file.read(&mut start)?;
    let start = start.get(..length).unwrap_or_default();
    if let Some(interpreter) = start.strip_prefix(b"#!") {
        let line = interpreter.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let mut words = line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|w| !w.is_empty());
        let Some(name) = words.next() else { return Ok(()) };
        if depth == 0 {
            bail!("{}: a script of a script of a script", path.display());
        }
        return check(Path::new(OsStr::from_bytes(name)), depth - 1);
    }
    if start.starts_with(b"\x7fELF") && !is_dynamic(path)? {
        bail!(
            "{} is statically linked: nothing can be preloaded into it; use rvs run --static",
            path.display()
        );
    }
    Ok(())
}

/// Whether starting the program changes whose rights it has: then nothing is preloaded.
fn gains_rights(path: &Path, meta: &Metadata) -> bool {
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    let mode = meta.permissions().mode();
    let setuid = mode & 0o4000 != 0 && meta.uid() != user.as_raw();
    let setgid = mode & 0o2010 == 0o2010 && meta.gid() != group.as_raw();
    let mut none: [u8; 0] = [];
    let capable =
        !user.is_root() && rustix::fs::getxattr(path, "security.capability", &mut none).is_ok();
    setuid || setgid || capable
}

/// Whether an ELF program names a dynamic linker.
fn is_dynamic(path: &Path) -> Result<bool> {
    let bytes = std::fs::read(path)?;
    let header = FileHeader64::<LittleEndian>::parse(bytes.as_slice());
    let header = header.with_context(|| format!("{} is not for this machine", path.display()))?;
    let segments = header.program_headers(LittleEndian, bytes.as_slice())?;
    Ok(segments.iter().any(|segment| segment.p_type(LittleEndian) == PT_INTERP))
}
