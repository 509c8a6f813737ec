"""Runs in the oracle VM, in /in, where rvsd and ipvsadm are: rvsd tunnels to a namespace whose kernel decapsulates.

 client 10.0.1.2 fd01::2 -- 10.0.1.1 fd01::1 director 10.0.2.1 fd02::1 -- rs 10.0.2.2, .3 fd02::2, ::3
    `-- 10.0.7.2 fd07::2 ------------------ replies ------------------------- 10.0.7.1 fd07::1 --'

The receivers at .2 take packets without GRE checksums, those at .3 only packets with them."""
import hashlib, os, socket, threading
from vm import PORTS, bracket, inside, rvsd, sh

VIP = {4: '10.9.9.9', 6: 'fd99::9'}
CLIENT = {4: '10.0.1.2', 6: 'fd01::2'}
GUE = '--tun-type gue --tun-port 6080 '
OPTIONS = ['', GUE + '--tun-nocsum', GUE + '--tun-csum', GUE + '--tun-remcsum', '--tun-type gre --tun-nocsum', '--tun-type gre --tun-csum']
BULK = bytes(i * 7 & 255 for i in range(300_000))


def network():
    sh('''ip netns add client; ip netns add rs
for n in client rs; do for k in ipv4.conf.all.rp_filter=0 ipv4.conf.default.rp_filter=0 ipv6.conf.default.accept_dad=0; do ip netns exec $n sysctl -qw net.$k; done; ip -n $n link set lo up; done
ip link add v-client type veth peer name eth0 netns client
ip link add v-rs type veth peer name eth0 netns rs
ip -n client link add eth1 type veth peer name eth1 netns rs
for d in v-client v-rs; do ip link set $d up; done
for n in client rs; do for d in eth0 eth1; do ip -n $n link set $d up; done; done
ip addr add 10.0.1.1/24 dev v-client; ip addr add fd01::1/64 dev v-client nodad
ip addr add 10.0.2.1/24 dev v-rs; ip addr add fd02::1/64 dev v-rs nodad
ip addr add 10.9.9.9/32 dev lo; ip addr add fd99::9/128 dev lo nodad
ip -n client addr add 10.0.1.2/24 dev eth0; ip -n client addr add fd01::2/64 dev eth0 nodad
ip -n client addr add 10.0.7.2/24 dev eth1; ip -n client addr add fd07::2/64 dev eth1 nodad
ip -n client route add default via 10.0.1.1; ip -n client -6 route add default via fd01::1
for a in 2 3; do ip -n rs addr add 10.0.2.$a/24 dev eth0; ip -n rs addr add fd02::$a/64 dev eth0 nodad; done
ip -n rs addr add 10.0.7.1/24 dev eth1; ip -n rs addr add fd07::1/64 dev eth1 nodad
ip -n rs addr add 10.9.9.9/32 dev lo; ip -n rs addr add fd99::9/128 dev lo nodad
ip -n rs route add 10.0.1.2 via 10.0.7.2; ip -n rs -6 route add fd01::2 via fd07::2''')


def receivers():
    """The kernel's own: IP in IP, GUE on top of it, GRE with and without checksums."""
    for module in 'ipip sit ip6_tunnel fou ip_gre ip6_gre'.split():
        sh('modprobe ' + module)
    sh('''ip -n rs link add any6 type ip6tnl mode any local fd02::2 remote fd02::1
ip -n rs link add sum4 type gre local 10.0.2.3 remote 10.0.2.1 icsum
ip -n rs link add sum6 type ip6gre local fd02::3 remote fd02::1 icsum
ip -n rs fou add port 6080 gue; ip -n rs fou add port 6080 gue -6
for d in tunl0 sit0 any6 gre0 ip6gre0 sum4 sum6; do ip -n rs link set $d up; ip netns exec rs sysctl -qw net.ipv4.conf.$d.rp_filter=0; done''')


def receiver(options, family, outer):
    """The server's address and the device that decapsulates."""
    if 'gre' not in options:
        return ('10.0.2.2', 'tunl0' if family == 4 else 'sit0') if outer == 4 else ('fd02::2', 'any6')
    if '--tun-csum' in options:
        return ('10.0.2.3', 'sum4') if outer == 4 else ('fd02::3', 'sum6')
    return ('10.0.2.2', 'gre0') if outer == 4 else ('fd02::2', 'ip6gre0')


def serve():
    """TCP: answers with what it got, hashed. UDP: echo. Both families."""
    def tcp(listener):
        while True:
            stream, _ = listener.accept()
            threading.Thread(target=answer, args=(stream,), daemon=True).start()

    def answer(stream):
        got = hashlib.sha256()
        while piece := stream.recv(65536):
            got.update(piece)
        stream.sendall(got.hexdigest().encode())
        stream.close()

    def udp(sock):
        while True:
            data, peer = sock.recvfrom(65536)
            sock.sendto(data, peer)

    for family, any_ in ((socket.AF_INET, '10.9.9.9'), (socket.AF_INET6, 'fd99::9')):
        listener = inside('rs', lambda: socket.socket(family, socket.SOCK_STREAM))
        listener.bind((any_, 80))
        listener.listen(16)
        echo = inside('rs', lambda: socket.socket(family, socket.SOCK_DGRAM))
        echo.bind((any_, 80))
        threading.Thread(target=tcp, args=(listener,), daemon=True).start()
        threading.Thread(target=udp, args=(echo,), daemon=True).start()


def counted(device, what):
    return int(sh(f'ip netns exec rs cat /sys/class/net/{device}/statistics/rx_{what}'))


def errors():
    """Checksum errors that the server's kernel found in UDP and TCP."""
    out = sh('ip netns exec rs nstat -asz UdpInCsumErrors TcpInCsumErrors Udp6InCsumErrors')
    return sum(int(line.split()[1]) for line in out.splitlines() if line[0] != '#')


def socket_of(family, kind):
    sock = inside('client', lambda: socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, kind))
    sock.settimeout(60)
    sock.bind((CLIENT[family], next(PORTS)))
    return sock


def upload(family):
    with socket_of(family, socket.SOCK_STREAM) as stream:
        stream.connect((VIP[family], 80))
        stream.sendall(BULK)
        stream.shutdown(socket.SHUT_WR)
        got = b''
        while piece := stream.recv(4096):
            got += piece
    return got.decode() == hashlib.sha256(BULK).hexdigest()


def echo(family, checksum):
    with socket_of(family, socket.SOCK_DGRAM) as sock:
        if not checksum:
            sock.setsockopt(socket.SOL_SOCKET, 11, 1)
        question = os.urandom(1201)
        sock.settimeout(5)
        # As senders of UDP do: emulated on a busy host, one of 144 datagrams got lost once.
        for _ in range(4):
            sock.sendto(question, (VIP[family], 80))
            try:
                return sock.recv(65536) == question
            except TimeoutError:
                pass
        return False


def attempt(ask):
    try:
        return 'ok' if ask() else 'WRONG'
    except OSError as error:
        return f'{error}'


def round_(name):
    for options in OPTIONS:
        for family in (4, 6):
            for outer in (4, 6):
                server, device = receiver(options, family, outer)
                vip = bracket(VIP[family])
                for proto in 'tu':
                    sh(f'./ipvsadm -A -{proto} {vip}:80 -s rr && ./ipvsadm -a -{proto} {vip}:80 -r {bracket(server)}:80 -i {options}')
                packets, refused, wrong = counted(device, 'packets'), counted(device, 'crc_errors'), errors()
                tcp = attempt(lambda: upload(family))
                udp = attempt(lambda: echo(family, True))
                bare = attempt(lambda: echo(family, False)) if family == 4 else 'ok'
                packets, refused = counted(device, 'packets') - packets, counted(device, 'crc_errors') - refused
                print(f'{name} {family}in{outer} {options or "--tun-type ipip"}: tcp {tcp}, udp {udp}, udp without checksum {bare}, '
                      f'{"decapsulated" if packets > 3 else "NOTHING"} by {device}, UDP and TCP checksum errors {errors() - wrong}, GRE {refused}', flush=True)
                for proto in 'tu':
                    sh(f'./ipvsadm -D -{proto} {vip}:80')


os.chmod('rvsd', 0o755)
os.chmod('ipvsadm', 0o755)
print(sh('uname -sr').strip())
network()
receivers()
serve()
daemon = rvsd('v-client', 'v-rs', mode='tc')
round_('super-packets')
# What leaves is cut and summed up by the kernel, as for a network card that can do neither.
sh('ethtool -K v-rs tx off tso off gso off')
round_('segments')
daemon.terminate()
daemon.wait()
# XDP: senders finish their checksums, receivers poll.
for n in 'client', 'rs':
    sh(f'ip netns exec {n} ethtool -K eth0 tx off gro on')
rvsd('v-client', 'v-rs', mode='xdp')
round_('xdp')
