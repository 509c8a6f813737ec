//! The sockets of sync daemons, as `make_send_sock` and `make_receive_sock` set them up.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};

use rvs_director::SyncDaemon;
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, Socket, Type};

/// Room for messages that a backup has not read yet, unless `sync_sock_size` names one: who reads
/// them also serves clients, and a master that has just started tells of everything.
const RECEIVE_BUFFER: usize = 4 << 20;

/// One socket a port, each connected to the group, on the interface with this index.
pub fn senders(
    daemon: &SyncDaemon,
    interface: u32,
    buffer: Option<usize>,
) -> io::Result<Vec<UdpSocket>> {
    let open = |addr: SocketAddr| {
        let socket = open(daemon, addr)?;
        match addr {
            SocketAddr::V4(_) => {
                socket.set_multicast_ttl_v4(daemon.ttl.into())?;
                socket.set_multicast_loop_v4(false)?;
            }
            SocketAddr::V6(_) => {
                socket.set_multicast_hops_v6(daemon.ttl.into())?;
                socket.set_multicast_loop_v6(false)?;
                socket.set_multicast_if_v6(interface)?;
            }
        }
        if let Some(size) = buffer {
            socket.set_send_buffer_size(size)?;
        }
        socket.connect(&SockAddr::from(addr))?;
        Ok(socket.into())
    };
    addrs(daemon, interface).map(open).collect()
}

/// One socket a port, each in the group on the interface with this index, and for nothing else.
pub fn receivers(
    daemon: &SyncDaemon,
    interface: u32,
    buffer: Option<usize>,
) -> io::Result<Vec<UdpSocket>> {
    let open = |addr: SocketAddr| {
        let socket = open(daemon, addr)?;
        socket.set_reuse_address(true)?;
        match buffer {
            Some(size) => socket.set_recv_buffer_size(size)?,
            // More than `rmem_max` takes CAP_NET_ADMIN in the first user namespace: else less it is.
            None => {
                use rustix::net::sockopt::set_socket_recv_buffer_size_force as force;
                let _ = force(&socket, RECEIVE_BUFFER);
            }
        }
        socket.bind(&SockAddr::from(addr))?;
        match addr.ip() {
            IpAddr::V4(group) => {
                socket.join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(interface))?;
            }
            IpAddr::V6(group) => socket.join_multicast_v6(&group, interface)?,
        }
        Ok(socket.into())
    };
    addrs(daemon, interface).map(open).collect()
}

/// A socket that sends and receives on the daemon's interface only, and never waits.
fn open(daemon: &SyncDaemon, addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.bind_device(Some(daemon.interface.as_bytes()))?;
    Ok(socket)
}

/// The group at each of the daemon's ports.
fn addrs(daemon: &SyncDaemon, interface: u32) -> impl Iterator<Item = SocketAddr> {
    let (group, first) = (daemon.group, daemon.port);
    (0..daemon.ports).map(move |number| {
        let port = first.wrapping_add(number);
        match group {
            IpAddr::V4(_) => SocketAddr::new(group, port),
            IpAddr::V6(group) => scoped(group, port, interface).into(),
        }
    })
}

fn scoped(group: Ipv6Addr, port: u16, interface: u32) -> SocketAddrV6 {
    SocketAddrV6::new(group, port, 0, interface)
}
