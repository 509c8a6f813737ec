//! A director on a socket, over a data path that is a table, and our programs run against it.

#[path = "../../../../crates/director/tests/memory/mod.rs"]
mod memory;

use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub use memory::{Links, Memory};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept, bind,
    listen, recv, send, socket_with,
};
use rvs_core::control::Datapath;
use rvs_director::Director;

/// A director that serves until the test ends.
pub struct Lab {
    socket: PathBuf,
}

/// How a program ended: exit code, stdout, stderr.
pub type Ended = (i32, String, String);

impl Lab {
    /// A socket's name that nobody listens at.
    pub fn nobody(name: &str) -> Self {
        let socket = std::env::temp_dir().join(format!("rvs-{name}-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&socket);
        Self { socket }
    }

    /// Starts a director.
    #[allow(dead_code, reason = "not every test that shares this file needs it")]
    pub fn new(name: &str, datapath: Memory) -> Self {
        let director = Director::new(datapath).with_daemons(Box::new(Links::new()));
        Self::start(name, director, |_| {})
    }

    /// Starts a director; before each client it does what is to be done.
    pub fn start<D: Datapath + Send + 'static>(
        name: &str,
        mut director: Director<D>,
        before: impl Fn(&mut Director<D>) + Send + 'static,
    ) -> Self {
        let lab = Self::nobody(name);
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .expect("a socket");
        bind(&socket, &SocketAddrUnix::new(&lab.socket).expect("a short path")).expect("a name");
        listen(&socket, 8).expect("a bound socket");
        std::thread::spawn(move || {
            while let Ok(client) = accept(&socket) {
                before(&mut director);
                converse(&mut director, &client);
            }
        });
        lab
    }

    /// The socket.
    #[allow(dead_code, reason = "not every test that shares this file needs it")]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Runs `ipvsadm`.
    pub fn ipvsadm(&self, args: &[&str], stdin: Option<&str>) -> Ended {
        self.run(env!("CARGO_BIN_EXE_ipvsadm"), args, stdin)
    }

    /// Runs one of our programs.
    pub fn run(&self, program: &str, args: &[&str], stdin: Option<&str>) -> Ended {
        finish(Command::new(program).args(args).env("RVS_SOCKET", &self.socket), stdin)
    }
}

/// Runs a command to its end with a text as its input.
pub fn finish(command: &mut Command, stdin: Option<&str>) -> Ended {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program");
    let mut input = child.stdin.take().expect("a pipe");
    // It may end without having read everything.
    let _ = input.write_all(stdin.unwrap_or_default().as_bytes());
    drop(input);
    let output = child.wait_with_output().expect("a child");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
    }
}

fn converse<D: Datapath>(director: &mut Director<D>, client: &OwnedFd) {
    let mut buffer = vec![0; 65_536];
    while let Ok((len, _)) = recv(client, &mut *buffer, RecvFlags::empty()) {
        if len == 0 {
            break;
        }
        for reply in director.handle(&buffer[..len]) {
            if send(client, &reply, SendFlags::NOSIGNAL).is_err() {
                return;
            }
        }
    }
}
