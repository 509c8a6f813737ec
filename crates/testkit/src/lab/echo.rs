//! A UDP echo server.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use super::service::TICK;
use super::{Host, LabError, Service, Stop};

impl Host {
    /// Starts a UDP server that answers each datagram with the host's name, a colon, and what it
    /// was sent. Each address gets a socket of its own, so that the answer comes from it: a virtual
    /// address on `lo` has to be named. Returns when it can be reached.
    pub fn serve_udp_echo(&self, addresses: &[SocketAddr]) -> Result<Service, LabError> {
        let prefix = format!("{}:", self.name()).into_bytes();
        let bind = || addresses.iter().map(bind).collect::<io::Result<Vec<UdpSocket>>>();
        self.serve(bind, move |sockets, stop| {
            std::thread::scope(|scope| {
                for socket in &sockets {
                    scope.spawn(|| echo(socket, &prefix, stop));
                }
            });
        })
    }
}

fn bind(address: &SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    socket.set_read_timeout(Some(TICK))?;
    Ok(socket)
}

fn echo(socket: &UdpSocket, prefix: &[u8], stop: &Stop) {
    let mut buffer = vec![0; 65_536];
    while !stop.is_set() {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        let answer = [prefix, &buffer[..length]].concat();
        // Nothing to do about an answer that cannot be sent: the test sees that it is missing.
        let _ = socket.send_to(&answer, from);
    }
}
