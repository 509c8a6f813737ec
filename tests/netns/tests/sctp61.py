"""Runs in the oracle VM, in /in, where rvsd, ipvsadm and rvs are: SCTP associations of two of the kernel's own stacks by way of rvsd.

 client 10.0.1.2 fd01::2 -- 10.0.1.1 fd01::1 director 10.0.2.1 fd02::1 -- nat 10.0.2.2 fd02::2, port 9000
    |                                                 10.0.3.1 fd03::1 -- dr 10.0.3.2 fd03::2, port 80 of the virtual address
    `-- 10.0.7.2 fd07::2 ------------------ replies ---------------------- 10.0.7.1 fd07::1 --'"""
import hashlib, os, re, socket, threading, time
from vm import PORTS, bracket, inside, rvsd, sh

VIP = {4: '10.9.9.9', 6: 'fd99::9'}
CLIENT = {4: '10.0.1.2', 6: 'fd01::2'}
NAT = {4: '10.0.2.2', 6: 'fd02::2'}
DR = {4: '10.0.3.2', 6: 'fd03::2'}
OWN = {4: '10.0.2.1', 6: 'fd02::1'}
SCTP = 132
UP = bytes(i * 7 & 255 for i in range(200_000))
DOWN = bytes(i * 11 & 255 for i in range(150_000))


def network():
    sh('modprobe sctp; modprobe ipip; modprobe ip6_tunnel; modprobe sit')
    sh('for n in client nat dr; do ip netns add $n; for k in ipv4.conf.all.rp_filter=0 ipv4.conf.default.rp_filter=0 ipv6.conf.default.accept_dad=0; do ip netns exec $n sysctl -qw net.$k; done; ip -n $n link set lo up; done')
    for i, n in enumerate(('client', 'nat', 'dr'), 1):
        sh(f'''ip link add v-{n} type veth peer name eth0 netns {n}; ip link set v-{n} up; ip -n {n} link set eth0 up
ip addr add 10.0.{i}.1/24 dev v-{n}; ip addr add fd0{i}::1/64 dev v-{n} nodad
ip -n {n} addr add 10.0.{i}.2/24 dev eth0; ip -n {n} addr add fd0{i}::2/64 dev eth0 nodad
ip -n {n} route add default via 10.0.{i}.1; ip -n {n} -6 route add default via fd0{i}::1''')
    sh('''ip addr add 10.9.9.9/32 dev lo; ip addr add fd99::9/128 dev lo nodad
ip -n client link add eth1 type veth peer name eth1 netns dr
for n in client dr; do ip -n $n link set eth1 up; done
ip -n client addr add 10.0.7.2/24 dev eth1; ip -n client addr add fd07::2/64 dev eth1 nodad
ip -n dr addr add 10.0.7.1/24 dev eth1; ip -n dr addr add fd07::1/64 dev eth1 nodad
ip -n dr addr add 10.9.9.9/32 dev lo; ip -n dr addr add fd99::9/128 dev lo nodad
ip -n dr route add 10.0.1.2 via 10.0.7.2; ip -n dr -6 route add fd01::2 via fd07::2
ip -n dr link add any6 type ip6tnl mode any local fd03::2 remote fd03::1
for d in tunl0 any6; do ip -n dr link set $d up; ip netns exec dr sysctl -qw net.ipv4.conf.$d.rp_filter=0; done''')


def association(namespace, family, addr, port):
    """A socket with one address only, so that no INIT lists others."""
    sock = inside(namespace, lambda: socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_STREAM, SCTP))
    sock.settimeout(30)
    sock.bind((addr, port))
    return sock


def receive(sock, length):
    got = b''
    while len(got) < length:
        piece = sock.recv(65536)
        if not piece:
            break
        got += piece
    return got


def send(sock, data):
    for at in range(0, len(data), 20_000):
        sock.sendall(data[at:at + 20_000])


def serve():
    """Takes `UP` and answers with its hash, then sends `DOWN`."""
    def answer(sock):
        send(sock, hashlib.sha256(receive(sock, len(UP))).digest())
        send(sock, DOWN)
        sock.recv(1)
        sock.close()

    def listen(listener):
        while True:
            threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    for namespace, addrs, port in (('nat', NAT, 9000), ('dr', VIP, 80), ('', OWN, 9100)):
        for family in (4, 6):
            listener = association(namespace, family, addrs[family], port)
            listener.settimeout(None)
            listener.listen(8)
            threading.Thread(target=listen, args=(listener,), daemon=True).start()


def errors():
    """Checksum errors that the ends found in SCTP packets."""
    files = ''.join(sh(f'ip netns exec {n} cat /proc/net/sctp/snmp') for n in ('client', 'nat', 'dr')) + open('/proc/net/sctp/snmp').read()
    return sum(int(line.split()[1]) for line in files.splitlines() if line.startswith('SctpChecksumErrors'))


def failed():
    """Packets that could not be put into a tunnel."""
    return int(re.search(r'drop.rewrite_failed +(\d+)', sh('./rvs status --reasons')).group(1))


def state(port):
    """The state of the association from this port of the client. Others that are over are listed for a while."""
    rows = [line.split() for line in sh('./ipvsadm -Lnc').splitlines() if line.startswith('SCTP')]
    return ' '.join(row[2] for row in rows if row[3].endswith(f':{port}')) or 'none'


def talk(family, namespace='client', addrs=CLIENT):
    port = next(PORTS)
    with association(namespace, family, addrs[family], port) as sock:
        sock.connect((VIP[family], 80))
        send(sock, UP)
        hashed = receive(sock, 32)
        up = 'ok' if hashed == hashlib.sha256(UP).digest() else 'WRONG'
        down = 'ok' if receive(sock, len(DOWN)) == DOWN else 'WRONG'
        return f'up {up}, down {down}, state {state(port)}', port


def round_(name, methods, families=(4, 6)):
    for method in methods:
        for family in families:
            service = f'--sctp-service {bracket(VIP[family])}:80'
            dest = f'{bracket(NAT[family])}:9000' if method == '-m' else f'{bracket(DR[family])}:80'
            try_(f'{name} IPv{family} {method}', service, f'{dest} {method}', family)


def try_(label, service, dest, *client):
    """One association by way of a service with one destination."""
    sh(f'./ipvsadm -A {service} -s rr && ./ipvsadm -a {service} -r {dest}')
    wrong, lost = errors(), failed()
    try:
        said, port = talk(*client)
    except OSError as error:
        said, port = f'{error}', 0
    time.sleep(0.5)
    print(f'{label}: {said}, then {state(port)}, checksum errors {errors() - wrong}, lost {failed() - lost}', flush=True)
    sh(f'./ipvsadm -D {service}')


def local():
    """The director as a real server, as a client, and as both; then a service by mark."""
    # SCTP does not cut again what it cut for the loopback's MTU: IP does, and fragments are the host's.
    sh('ip link set lo mtu 1500')
    for family in (4, 6):
        service = f'--sctp-service {bracket(VIP[family])}:80'
        own, nat = f'{bracket(OWN[family])}:9100 -m', f'{bracket(NAT[family])}:9000 -m'
        try_(f'local IPv{family} server', service, own, family)
        try_(f'local IPv{family} client', service, nat, family, '', OWN)
        try_(f'local IPv{family} both', service, own, family, '', OWN)
        sh(f'./rvs mark add --dst {VIP[family]} --proto sctp --dport 80 5')
        mark = '-f 5' + ' -6' * (family == 6)
        sh(f'./rvs mark add --dst {VIP[family]} --proto sctp 6')
        try_(f'marked IPv{family}', mark, f'{bracket(DR[family])}:0 -g', family)
        sh('./rvs mark flush')


for program in ('rvsd', 'ipvsadm', 'rvs'):
    os.chmod(program, 0o755)
print(sh('uname -sr').strip())
network()
serve()
daemon = rvsd('v-client', 'v-nat', 'v-dr', mode='tc')
# Senders leave checksums, and the cutting of messages into packets, to a device.
round_('super-packets', ['-m', '-g', '-i'])
local()
# What leaves is cut and summed up by the kernel, as for a network card that can do neither.
sh('for d in v-client v-nat v-dr; do ethtool -K $d tx off gso off; done')
round_('segments', ['-m', '-g', '-i'])
daemon.terminate()
daemon.wait()
# XDP passes on what has no checksum yet.
daemon = rvsd('v-client', 'v-nat', 'v-dr', mode='xdp')
round_('punted', ['-m', '-g'])
# Errors about packets whose checksum a device finishes.
round_('told of the MTU', ['-i'], [4])
for n in 'client', 'nat', 'dr':
    sh(f'ip netns exec {n} ethtool -K eth0 tx off gro on')
round_('xdp', ['-m', '-g', '-i'])
print(sh('./rvs status --reasons'))
