//! rvsd, the director process: loads or adopts the data path, attaches it, serves the control
//! socket, and does what the packets leave for later: expiry, rates, routes and neighbours.
#![forbid(unsafe_code)]

mod args;
mod config;
mod control;
mod folder;
mod interfaces;
mod local;
mod marked;
mod neighbours;
mod privileges;
mod proc;
mod server;
mod slow;
mod sync;
mod tracked;

use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use rvs_datapath::pin::PinFolder;
use rvs_datapath::sweeper::Sweeper;
use rvs_datapath::{BpfDatapath, Maps, Object};
use rvs_director::Director;
use rvs_host::{Host, Monitor};
use tracing_subscriber::EnvFilter;

use args::{Args, Parsed};

fn main() -> ExitCode {
    let parsed = match args::parse() {
        Ok(parsed) => parsed,
        Err(error) => {
            eprintln!("rvsd: {error}; try rvsd --help");
            return ExitCode::from(2);
        }
    };
    let result = match parsed {
        Parsed::Help => {
            print!("{}", args::HELP);
            return ExitCode::SUCCESS;
        }
        Parsed::Version => {
            println!("rvsd {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Parsed::Run(args) => run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rvsd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(colours);
    log.with_env_filter(filter).init();

    let config = args.config.as_deref().map(config::Config::read).transpose()?.unwrap_or_default();
    let pins = PinFolder::make(&args.pin)
        .with_context(|| format!("cannot keep pins in {}", args.pin.display()))?;
    if flock(&pins, FlockOperation::NonBlockingLockExclusive).is_err() {
        bail!("another rvsd runs with --pin {}", args.pin.display());
    }
    let mut host = Host::open()?;
    let monitor = Monitor::open()?;
    let (mut object, maps) = Object::load(pins.path(), &args.sizes)?;
    let device = slow::open(&mut object);
    let loopback = &maps.config().loopback;
    loopback.set(rvs_host::prepare_loopback(loopback.get())?);
    let mut datapath = BpfDatapath::adopt(maps);
    let mut interfaces = interfaces::Interfaces::new(object, args);
    interfaces.refresh(&mut host, datapath.maps())?;
    let listener = control::Listener::bind(&args.socket)?;
    let folder = folder::Unserved::make();
    privileges::give_up(args.proc.is_some())?;
    start_sweeper(pins.path())?;
    device.map(|device| slow::start(device, pins.path())).transpose()?;
    // Unmounted when it is dropped.
    let _proc = args.proc.as_deref().map(|dir| proc::mount(dir, &args.socket)).transpose()?;
    let folder = folder.and_then(|folder| folder.serve(&args.socket));
    let folder =
        folder.inspect_err(|error| tracing::warn!("`rvs run` changes no settings: {error:#}"));
    let sync = sync::Sync::new(Host::open()?, pins.path());
    if let Err(error) = datapath.translate_by(Box::new(tracked::Table::default())) {
        tracing::error!("tracked connections get nowhere: {error}");
    }
    let mut director = Director::new(datapath).with_daemons(Box::new(sync.clone()));
    config.apply(&mut director)?;
    let folder = folder.ok();
    let server = server::Server { director, sync, host, monitor, interfaces, listener, folder };
    server.run()
}

/// Starts the thread that ends expired connections. It has its own view of the maps.
fn start_sweeper(pin: &Path) -> Result<()> {
    let pin = pin.to_owned();
    let (ready, opened) = std::sync::mpsc::channel();
    std::thread::Builder::new().name("sweeper".into()).spawn(move || {
        let maps = Maps::open(&pin);
        let maps = match maps {
            Ok(maps) => {
                let _ = ready.send(Ok(()));
                maps
            }
            Err(error) => {
                let _ = ready.send(Err(error));
                return;
            }
        };
        let mut forgetting = tracked::Forgetting::default();
        let mut sweeper = Sweeper::default();
        loop {
            if let Some(pass) = sweeper.step(&maps) {
                forgetting.forget(&pass.tracked);
                tracing::trace!(live = pass.live, cleared = pass.cleared, "swept");
            }
            std::thread::sleep(Sweeper::STEP);
        }
    })?;
    Ok(opened.recv().context("the sweeper did not start")??)
}
