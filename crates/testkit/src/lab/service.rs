//! Servers of a lab that are threads of this process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// The time after which a server that waits for input looks at its [`Stop`].
pub(super) const TICK: Duration = Duration::from_millis(20);

/// Says to a server thread that it is to end.
#[derive(Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Whether to end.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A server thread, started by [`Host::serve`](super::Host::serve). It goes on when this value is
/// dropped, until the lab is.
#[derive(Clone)]
pub struct Service {
    stop: Stop,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Service {
    pub(super) fn start(run: impl FnOnce(&Stop) + Send + 'static) -> Self {
        let stop = Stop::default();
        let seen = stop.clone();
        let thread = std::thread::spawn(move || run(&seen));
        Self { stop, thread: Arc::new(Mutex::new(Some(thread))) }
    }

    /// Ends it and waits for that: its sockets are closed afterwards.
    pub fn stop(&self) {
        self.stop.0.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.lock().expect("no panic while locked").take() {
            // A panic of the server has been printed; the test fails by what it then misses.
            let _ = thread.join();
        }
    }
}
