//! The host's limits of ICMP errors hold for those of the real rvsd, as they are and once they change.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use rvs_testkit::lab::{Director, Host, LabError, wait_until};
use rvs_testkit::need_lab;
use rvs_tests_netns::{DIRECTOR, at, lab};

/// Sends so many datagrams to where nobody serves; how many errors came back.
fn refusals(host: &Host, to: &str, count: usize) -> Result<usize, LabError> {
    let to: SocketAddr = to.parse().expect("an address");
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    host.enter(move || {
        let socket = UdpSocket::bind(any).expect("a port");
        socket.connect(to).expect("a route");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        let refused = |result: std::io::Result<usize>| {
            result.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        };
        let send = || refused(socket.send(b"?")) || refused(socket.recv(&mut [0; 8]));
        (0..count).filter(|_| send()).count()
    })
}

#[test]
fn errors_are_limited_as_the_host_s_own() -> Result<(), LabError> {
    need_lab!();
    let lab = lab()?;
    let host = lab.host("director");
    // With IPv6 a neighbour gets four times as many.
    host.sysctls(&[("net.ipv4.icmp_ratelimit", "6000"), ("net.ipv6.icmp.ratelimit", "24000")])?;
    let director = Director::start(&host, &[])?;
    for vip in DIRECTOR {
        let to = at(vip, 5353);
        director.ipvsadm(&format!("-A -u {to} -s rr"))?;
        assert_eq!(refusals(&lab.host("client"), &to, 20)?, 6, "{vip}");
    }
    // rvsd looks once a second.
    host.sysctls(&[("net.ipv4.icmp_ratemask", "0"), ("net.ipv6.icmp.ratemask", "2-3")])?;
    for vip in DIRECTOR {
        let to = at(vip, 5353);
        wait_until("the new mask", Duration::from_secs(10), || {
            Ok(refusals(&lab.host("client"), &to, 10)? == 10)
        })?;
    }
    Ok(())
}
