"""Runs in the oracle VM, in /in: RVS in the root namespace and the kernel's IPVS in namespace `k`, with the same services, tell each other
of connections. One LAN; the VIPs are routed to the director whose turn it is.

 client 10.0.0.2 (masquerading), 10.0.0.22 (direct routing, tunnels) fd00::2, ::22 | RVS 10.0.0.1 fd00::1 | kernel 10.0.0.3 fd00::3 | server 10.0.0.11 fd00::11"""
import os, select, socket, sys, threading, time
from vm import inside, rvsd, sh

VIP, VIP6 = '10.9.9.9', 'fd99::9'


def network():
    sh('for m in ip_vs ip_vs_rr ipip; do modprobe $m; done; ip netns add sw; ip netns exec sw sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1; ip link set lo up')
    sh('sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_redirects=0 net.ipv6.conf.default.accept_redirects=0 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1')
    hosts = dict(client=(2, 22), k=(3,), rs=(11,))
    for name, last in [('', (1,)), *hosts.items()]:
        n = f'ip netns exec {name} ' if name else ''
        ip = f'ip -n {name} ' if name else 'ip '
        if name:
            sh(f'ip netns add {name}; {ip} link set lo up; {n} sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_redirects=0 net.ipv6.conf.default.accept_redirects=0 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0')
            sh(f'ip -n sw link add p-{name} type veth peer name lan netns {name}')
        else:
            sh('ip -n sw link add p-rvs type veth peer name lan netns 1')
        sh(f'ip -n sw link set p-{name or "rvs"} up; {ip} link set lan up; {n} ethtool -K lan tx off gso off gro off tso off')
        for x in last:
            sh(f'{ip} addr add 10.0.0.{x}/24 dev lan; {ip} addr add fd00::{x}/64 dev lan nodad')
    sh(f'ip netns exec k sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1; ip netns exec k sysctl -qw net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.lan.send_redirects=0')
    for ip in ('ip ', 'ip -n k '):
        sh(f'{ip} addr add {VIP}/32 dev lo; {ip} addr add {VIP6}/128 dev lo nodad')
    sh(f'ip -n rs link set tunl0 up; ip netns exec rs sysctl -qw net.ipv4.conf.tunl0.rp_filter=0; ip -n rs addr add {VIP}/32 dev lo; ip -n rs addr add {VIP6}/128 dev lo nodad')


PORTS = {}


def plug(name):
    """Connects a port of the hub: this kernel has no bridges."""
    port = inside('sw', lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)))
    port.bind(('p-' + name, 3))
    PORTS[name] = port


def hub():
    while True:
        # Between two rounds ports are unplugged at any moment.
        try:
            for port in select.select(list(PORTS.values()), [], [], 0.2)[0]:
                frame, (_, _, kind, *_) = port.recvfrom(65536)
                if kind != socket.PACKET_OUTGOING:
                    for other in [p for p in PORTS.values() if p is not port]:
                        other.send(frame)
        except (OSError, ValueError):
            pass


SERVICES = f'''-A -t {VIP}:80 -s rr
-a -t {VIP}:80 -r 10.0.0.11:8080 -m
-A -t {VIP}:81 -s rr
-a -t {VIP}:81 -r 10.0.0.11:81 -g
-A -t {VIP}:82 -s rr
-a -t {VIP}:82 -r 10.0.0.11:82 -i
-A -u {VIP}:53 -s rr
-a -u {VIP}:53 -r 10.0.0.11:5353 -m
-A -t {VIP}:90 -s rr -p 200
-a -t {VIP}:90 -r 10.0.0.11:90 -g
-A -t [{VIP6}]:80 -s rr
-a -t [{VIP6}]:80 -r [fd00::11]:8080 -m
-A -t [{VIP6}]:81 -s rr
-a -t [{VIP6}]:81 -r [fd00::11]:81 -g
'''


def serve():
    def answer(stream):
        try:
            while data := stream.recv(4096):
                stream.sendall(data[::-1])
        except ConnectionResetError:
            pass  # the end of a round
        stream.close()

    def tcp(listener):
        while True:
            threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    def udp(sock):
        while True:
            data, peer = sock.recvfrom(4096)
            sock.sendto(data[::-1], peer)

    for family, ports in ((socket.AF_INET, (8080, 81, 82, 90)), (socket.AF_INET6, (8080, 81))):
        for port in ports:
            listener = inside('rs', lambda: socket.socket(family, socket.SOCK_STREAM))
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1) if family == socket.AF_INET6 else None
            listener.bind(('', port))
            listener.listen(16)
            threading.Thread(target=tcp, args=(listener,), daemon=True).start()
    echo = inside('rs', lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    echo.bind(('10.0.0.11', 5353))
    threading.Thread(target=udp, args=(echo,), daemon=True).start()


def turn(last):
    """Routes packets for the VIPs, and what is masqueraded back, through the director .1 or .3."""
    sh(f'ip -n client route replace {VIP} via 10.0.0.{last}; ip -n client -6 route replace {VIP6} via fd00::{last}')
    sh(f'ip -n rs route replace 10.0.0.2 via 10.0.0.{last}; ip -n rs -6 route replace fd00::2 via fd00::{last}')


def connect(kind, source, vip, port):
    family = socket.AF_INET6 if ':' in vip else socket.AF_INET
    sock = inside('client', lambda: socket.socket(family, kind))
    sock.settimeout(60)
    sock.bind((source, 0))
    sock.connect((vip, port))
    return sock


def ask(sock, times):
    for n in range(times):
        question = b'question %d' % n
        sock.send(question)
        if sock.recv(4096) != question[::-1]:
            return False
    return True


def rows(text):
    """Connections and templates, without where they come from and when they expire."""
    return sorted(' '.join(line.split()[:8]) for line in text.splitlines()[1:])


def counts(text):
    return sorted(' '.join(line.split()[1:]) for line in text.splitlines() if '->' in line and 'Remote' not in line)


class Kernel:
    last = 3
    def adm(s, words): return sh('ip netns exec k /usr/sbin/ipvsadm ' + words)
    def conns(s): return inside('k', lambda: open('/proc/thread-self/net/ip_vs_conn_sync').read())
    def start(s, role, more): s.adm(f'--start-daemon {role} --mcast-interface lan --syncid 7 {more}')
    def version(s, v): sh(f'ip netns exec k sysctl -qw net.ipv4.vs.sync_version={v}')


class Rvs:
    last = 1
    def adm(s, words): return sh('./ipvsadm ' + words)
    def conns(s): return sh('./rvs proc ip_vs_conn_sync')
    def start(s, role, more): s.adm(f'--start-daemon {role} --mcast-interface lan --syncid 7 {more}')
    def version(s, v): sh(f'./rvs sysctl net.ipv4.vs.sync_version={v}')


def round_(master, backup, version, more, name):
    for d in master, backup:
        d.adm('-C')
        open('/run/rules', 'w').write(SERVICES)
        d.adm('-R < /run/rules')
        d.version(version)
    master.start('master', more)
    backup.start('backup', more)
    turn(master.last)
    v6 = [('10.0.0.2', VIP, 80)] if version == 0 else [('fd00::2', VIP6, 80), ('fd00::22', VIP6, 81)]
    tcp = [('10.0.0.2', VIP, 80), ('10.0.0.2', VIP, 80), ('10.0.0.22', VIP, 81), ('10.0.0.22', VIP, 82), ('10.0.0.22', VIP, 90)]
    socks = [connect(socket.SOCK_STREAM, *to) for to in tcp + (v6 if version else [])] + [connect(socket.SOCK_DGRAM, '10.0.0.2', VIP, 53)]
    for s in socks:
        try:
            answered = ask(s, 4)
        except OSError as error:
            answered = error
        if answered is not True:
            sys.exit(f'{name}: {s.getpeername()} from {s.getsockname()}: {answered}; {rows(master.conns())}')
    # One that ends: masqueraded, closed by the client, TIME_WAIT.
    closed = connect(socket.SOCK_STREAM, '10.0.0.2', VIP, 80)
    ask(closed, 4)
    closed.close()
    end = time.time() + 20
    while True:
        ours, theirs = rows(master.conns()), rows(backup.conns())
        if ours == theirs and (counts(master.adm('-Ln')) == counts(backup.adm('-Ln'))) or time.time() > end:
            break
        time.sleep(0.3)
    same = f'{len(ours)} rows the same' if ours == theirs else f'DIFFERENT {ours} {theirs}'
    a, b = counts(master.adm('-Ln')), counts(backup.adm('-Ln'))
    same += ', counts the same' if a == b else f', DIFFERENT {a} {b}'
    synced = [line for line in backup.conns().splitlines()[1:] if ' SYNC ' not in line]
    if synced:
        same += f', NOT SYNC {synced}'
    turn(backup.last)
    went = []
    for s in socks:
        try:
            went.append(ask(s, 3))
        except OSError as error:
            went.append(f'{s.getpeername()}: {error}')
    print(f'{name}: {same}, {"all go on" if all(x is True for x in went) else went}', flush=True)
    master.adm('--stop-daemon master')
    backup.adm('--stop-daemon backup')
    # The next round begins with other addresses in use: what is left must not look like its own.
    for s in socks:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\1\0\0\0\0\0\0\0') if s.type == socket.SOCK_STREAM else None
        s.close()


for name in 'rvsd', 'ipvsadm', 'rvs':
    os.chmod(name, 0o755)
print(sh('uname -sr').strip())
network()
for name in 'rvs', 'client', 'k', 'rs':
    plug(name)
threading.Thread(target=hub, daemon=True).start()
serve()
kernel, rvs = Kernel(), Rvs()
for version, more, name in ((1, '', 'version 1'), (0, '', 'version 0'), (1, '--mcast-group ff02::81', 'ff02::81')):
    for master, backup, who in ((kernel, rvs, 'kernel to rvs'), (rvs, kernel, 'rvs to kernel')):
        # Both begin without connections: a namespace and a data path of their own for each round.
        daemon = rvsd('lan')
        round_(master, backup, version, more, f'{who}, {name}')
        daemon.terminate()
        daemon.wait()
        sh('./rvs down', check=False)
        sh('ip netns exec k /usr/sbin/ipvsadm -C; ip netns del k')
        PORTS.pop('k').close()
        sh('ip -n sw link del p-k', check=False)
        sh('ip netns add k; ip -n k link set lo up; ip netns exec k sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_redirects=0 net.ipv6.conf.default.accept_redirects=0 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0')
        sh('''ip -n sw link add p-k type veth peer name lan netns k; ip -n sw link set p-k up; ip -n k link set lan up; ip netns exec k ethtool -K lan tx off gso off gro off tso off; ip -n k addr add 10.0.0.3/24 dev lan; ip -n k addr add fd00::3/64 dev lan nodad
ip netns exec k sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.lan.send_redirects=0''')
        sh(f'ip -n k addr add {VIP}/32 dev lo; ip -n k addr add {VIP6}/128 dev lo nodad')
        plug('k')
        sh('ip -n client neigh flush dev lan; ip -n rs neigh flush dev lan; ip neigh flush dev lan')
