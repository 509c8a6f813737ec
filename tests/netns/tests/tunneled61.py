"""Runs in the oracle VM, in /in, where rvsd, ipvsadm and rvs are: which decapsulated packets are balanced, with and without
`ignore_tunneled`, first by the kernel's IPVS, then by rvsd.

 client 10.0.1.2 fd01::2 -- 10.0.1.1 fd01::1 director 10.0.2.1 -- rs 10.0.2.2
   and by tunnels between the same two: 10.50.N.2 -- 10.50.N.1, which is the way to 10.9.9.9 (N is 0: none)

A line says who answers a datagram to 10.9.9.9, what became of 100 kB by TCP there, and by TCP to the director's 10.50.N.1."""
import hashlib, socket, threading, time
from vm import inside, rvsd, sh

VIP, SERVER = '10.9.9.9', '10.0.2.2'
FOU = 'encap fou encap-sport 7777 encap-dport 7777'
# What a device is, and its outer family.
DEVICES = {
    'none': None,
    'ipip': ('ipip', 4),
    'gre': ('gre', 4),
    'gretap': ('gretap', 4),
    'gretap by UDP': (f'gretap key 9 {FOU}', 4),
    'ip6tnl': ('ip6tnl mode any', 6),
    'ip6gre': ('ip6gre', 6),
    'ip6gretap': ('ip6gretap', 6),
}
BULK = bytes(i * 7 & 255 for i in range(100_000))


def network():
    for module in 'ipip ip_gre ip6_tunnel ip6_gre fou ip_vs ip_vs_rr'.split():
        sh('modprobe ' + module)
    sh('''ip netns add client; ip netns add rs
sysctl -qw net.ipv6.conf.default.accept_dad=0
for k in ipv4.conf.all.rp_filter=0 ipv4.conf.default.rp_filter=0 ipv4.ip_forward=1; do sysctl -qw net.$k; done
for n in client rs; do ip netns exec $n sysctl -qw net.ipv6.conf.default.accept_dad=0; ip -n $n link set lo up; ip netns exec $n sysctl -qw net.ipv4.conf.all.rp_filter=0; done
ip link set lo up
ip link add v-client type veth peer name eth0 netns client; ip link add v-rs type veth peer name eth0 netns rs
for d in v-client v-rs; do ip link set $d up; done; for n in client rs; do ip -n $n link set eth0 up; done
ip addr add 10.0.1.1/24 dev v-client; ip addr add 10.0.2.1/24 dev v-rs; ip addr add 10.9.9.9/32 dev lo
ip addr add fd01::1/64 dev v-client nodad; ip -n client addr add fd01::2/64 dev eth0 nodad
ip -n client addr add 10.0.1.2/24 dev eth0; ip -n client route add default via 10.0.1.1
ip -n rs addr add 10.0.2.2/24 dev eth0; ip -n rs route add default via 10.0.2.1''')
    sh('ip fou add port 7777 ipproto 47; ip -n client fou add port 7777 ipproto 47')
    for number, (name, device) in enumerate(DEVICES.items()):
        if device is None:
            continue
        kind, outer = device
        ends = ('10.0.1.2', '10.0.1.1') if outer == 4 else ('fd01::2', 'fd01::1')
        for namespace, local, remote, host in (('-n client', *ends, 2), ('', *ends[::-1], 1)):
            kind_, _, options = kind.partition(' ')
            sh(f'ip {namespace} link add tun{number} type {kind_} local {local} remote {remote} {options}')
            sh(f'ip {namespace} addr add 10.50.{number}.{host}/24 dev tun{number}; ip {namespace} link set tun{number} up')


def opened(kind, port, to):
    """A socket of the client's, connected."""
    sock = inside('client', lambda: socket.socket(socket.AF_INET, kind))
    sock.bind(('0.0.0.0', port))
    sock.settimeout(20)
    sock.connect(to)
    return sock


def answer(ask, *args):
    try:
        return ask(*args)
    except ConnectionRefusedError:
        return 'the host'
    except OSError as error:
        return str(error)


def datagram(port):
    sock = opened(socket.SOCK_DGRAM, port, (VIP, 53))
    sock.send(b'who')
    return sock.recv(100).decode()


def bulk(port, to):
    with opened(socket.SOCK_STREAM, port, to) as stream:
        stream.sendall(BULK)
        stream.shutdown(socket.SHUT_WR)
        name, _, digest = stream.makefile().read().partition(' ')
        return name if digest == hashlib.sha256(BULK).hexdigest() else f'{name}, damaged'


def look(who, set_):
    for setting in (0, 1, 0):
        set_(setting)
        time.sleep(1)
        for number, name in enumerate(DEVICES):
            look.port += 1
            own = f'10.50.{number}.1' if number else '10.0.1.1'
            sh(f'ip -n client route replace {VIP} via {own} src {own[:-1]}2')
            udp, tcp = answer(datagram, look.port), answer(bulk, look.port, (VIP, 80))
            host = answer(bulk, look.port + 1000, (own, 80))
            print(f'{who}, {setting}: {name}: {udp}, {tcp}, {host}', flush=True)


look.port = 4000


def serve():
    def datagrams(sock):
        while True:
            _, peer = sock.recvfrom(100)
            sock.sendto(b'server', peer)

    def streams(name, listener):
        while True:
            threading.Thread(target=digest, args=(name, listener.accept()[0]), daemon=True).start()

    def digest(name, stream):
        got = hashlib.sha256()
        while piece := stream.recv(65536):
            got.update(piece)
        stream.sendall(f'{name} {got.hexdigest()}'.encode())
        stream.close()

    sock = inside('rs', lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sock.bind((SERVER, 53))
    threading.Thread(target=datagrams, args=(sock,), daemon=True).start()
    own = [f'10.50.{number}.1' if number else '10.0.1.1' for number in range(len(DEVICES))]
    for name, namespace, addrs in ('server', 'rs', [SERVER]), ('director', '', own):
        for addr in addrs:
            listener = inside(namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            listener.bind((addr, 80))
            listener.listen(8)
            threading.Thread(target=streams, args=(name, listener), daemon=True).start()


def rules(program):
    for service in f'-u {VIP}:53', f'-t {VIP}:80':
        sh(f'{program} -A {service} -s rr; {program} -a {service} -r {SERVER} -m')


print(sh('uname -sr'), end='')
network()
serve()
rules('/sbin/ipvsadm')
look('kernel', lambda value: sh(f'sysctl -qw net.ipv4.vs.ignore_tunneled={value}'))
sh('/sbin/ipvsadm -C')
daemon = rvsd()
rules('./ipvsadm')
look('rvsd', lambda value: sh(f'./rvs sysctl ignore_tunneled={value}'))
print(open('/run/rvsd.log').read())
daemon.terminate()
daemon.wait()
