"""Connections that are open when a fwmark service takes their mark: who answers then, and who answers new ones.
 client ns c 10.0.0.2 fd00::2 -- dc 10.0.0.1 fd00::1, director, dr 10.1.0.1 fd01::1 -- ns s 10.1.0.11 fd01::11
 VIP 10.9.1.1 fd09::1 on the director's lo. Director and s echo with their names on TCP port 80; on UDP port 53 the director has a socket that is connected to the client's, s any.
 Clients: c to the VIP (with the director's own socket), and the director itself to s and to the VIP.
 The mark is netfilter's, in prerouting and on the way out, of all that is for the VIP or s; the service's destination is s."""
import json, os, socket, subprocess, sys, threading, time, ctypes
libc = ctypes.CDLL(None, use_errno=True)
def sh(c, check=True):
    p = subprocess.run(c, shell=True, capture_output=True, text=True)
    if check and p.returncode: raise Exception('%s: %s%s' % (c, p.stdout, p.stderr))
    return p.stdout
def inside(name, make):
    own = os.open('/proc/self/ns/net', 0)
    if name: libc.setns(os.open('/run/netns/' + name, 0), 0x40000000)
    try: return make()
    finally: libc.setns(own, 0x40000000); os.close(own)
for d in ('all', 'default'): sh(f'sysctl -w net.ipv6.conf.{d}.accept_dad=0 net.ipv4.conf.{d}.rp_filter=0 net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1')
sh('ip link set lo up')
for ns, d, peer, net in (('c', 'dc', 'c0', 0), ('s', 'dr', 's0', 1)):
    sh(f'ip netns add {ns}; ip -n {ns} link set lo up; ip netns exec {ns} sysctl -w net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0')
    host = '2' if ns == 'c' else '11'
    sh(f'ip link add {d} type veth peer name {peer} netns {ns}; ip link set {d} up; ip -n {ns} link set {peer} up')
    sh(f'ip addr add 10.{net}.0.1/24 dev {d}; ip addr add fd0{net}::1/64 dev {d} nodad; ip -n {ns} addr add 10.{net}.0.{host}/24 dev {peer}; ip -n {ns} addr add fd0{net}::{host}/64 dev {peer} nodad; ip -n {ns} route add default via 10.{net}.0.1; ip -n {ns} -6 route add default via fd0{net}::1')
sh('ip addr add 10.9.1.1/32 dev lo; ip addr add fd09::1/128 dev lo nodad; modprobe ip_vs')
V, C, RS = ('10.9.1.1', 'fd09::1'), ('10.0.0.2', 'fd00::2'), ('10.1.0.11', 'fd01::11')
FAM = (socket.AF_INET, socket.AF_INET6)
def one(c, name):
    # 'bye' is answered by closing first, which leaves TIME_WAIT here.
    try:
        while 1:
            got = c.recv(100)
            if not got or got == b'bye': break
            c.sendall(name)
    except OSError: pass
    c.close()
def tcp(f, ns, name):
    s = inside(ns, lambda: socket.socket(FAM[f], socket.SOCK_STREAM)); s.setsockopt(1, 2, 1); f and s.setsockopt(41, 26, 1); s.bind((('0.0.0.0', '::')[f], 80)); s.listen(50)
    while 1: threading.Thread(target=one, args=(s.accept()[0], name), daemon=True).start()
def udp(f, ns, name, local, peer):
    s = inside(ns, lambda: socket.socket(FAM[f], socket.SOCK_DGRAM)); s.setsockopt(1, 2, 1); s.bind((local, 53))
    if peer: s.connect(peer)
    while 1:
        try: _, a = s.recvfrom(100); s.sendto(name, a) if not peer else s.send(name)
        except OSError: pass
for f in (0, 1):
    for ns, name in (('', b'director'), ('s', b'server')): threading.Thread(target=tcp, args=(f, ns, name), daemon=True).start()
    threading.Thread(target=udp, args=(f, '', b'director', V[f], (C[f], 4000)), daemon=True).start()
    threading.Thread(target=udp, args=(f, 's', b'server', RS[f], None), daemon=True).start()
time.sleep(1)
def client(f, ns, kind, to, port=0):
    s = inside(ns, lambda: socket.socket(FAM[f], kind)); s.settimeout(3); s.setsockopt(1, 2, 1)
    if port: s.bind((('0.0.0.0', '::')[f], port))
    s.connect((to, 80 if kind == socket.SOCK_STREAM else 53)); return s
def ask(s):
    try:
        if isinstance(s, OSError): raise s
        s.send(b'who'); return s.recv(100).decode()
    except OSError as e: return 'failed'
def new(*a):
    try: return client(*a)
    except OSError as e: return e
def nft():
    rules = 'ip daddr { 10.9.0.0/16, 10.1.0.11 } meta mark set 5; ip6 daddr { fd09::/16, fd01::11 } meta mark set 5;'
    text = ''.join(f'chain {name} {{ type {kind} hook {hook} priority mangle; {rules} }}\n' for name, kind, hook in (('in', 'filter', 'prerouting'), ('out', 'route', 'output')))
    subprocess.run(['nft', f'table inet marks {{ {text} }}'], check=True)
out = open('/out/taken.jsonl', 'w')
def row(**k): out.write(json.dumps(k) + '\n'); out.flush(); print(json.dumps(k), flush=True)
T, U = socket.SOCK_STREAM, socket.SOCK_DGRAM
for f in (0, 1):
    sh('ipvsadm -C; nft flush ruleset')
    cases = (('client', 'vip', 'tcp', 'c', T, V[f], 0), ('client', 'vip', 'udp', 'c', U, V[f], 4000), ('director', 'vip', 'tcp', '', T, V[f], 0), ('director', 'server', 'tcp', '', T, RS[f], 0))
    opened = [client(f, *c[3:]) for c in cases]; before = [ask(s) for s in opened]
    waiting = client(f, 'c', T, V[f], 5000); over = ask(waiting); waiting.send(b'bye'); waiting.recv(1); waiting.close(); time.sleep(0.2)
    nft(); opt = ('', '-6')[f]
    sh(f'ipvsadm -A -f 5 {opt} -s rr; ipvsadm -a -f 5 {opt} -r {("10.1.0.11:0", "[fd01::11]:0")[f]} -m')
    for (who, to, proto, *args), s, b in zip(cases, opened, before):
        row(family=(4, 6)[f], client=who, to=to, protocol=proto, before=b, after=ask(s), again=ask(s), new=ask(new(f, *args[:-1], 0)) if proto == 'tcp' else ask(s))
    row(family=(4, 6)[f], client='client', to='vip', protocol='tcp', before=over, time_wait=True, after=ask(new(f, 'c', T, V[f], 5000)))
print(sh('ipvsadm -Lnc; ipvsadm -Ln --stats'))
os._exit(0)
