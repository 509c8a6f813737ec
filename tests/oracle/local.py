"""The director itself as a client and as a real server, and a real server as its own client: what real sockets see.
 client ns c 10.0.0.2 fd00::2 -- dc 10.0.0.1 fd00::1, director, dr 10.1.0.1 fd01::1 -- ns s 10.1.0.11 fd01::11
 VIP 10.9.1.1 fd09::1: on the director's lo, on its interface dr, or on neither ('none': routed to the client's side).
 s has the VIP on lo for direct routing and tunneling only, and tunl0 and ip6tnl0. Servers on ports 80 and 18080 of both answer who they are, and both ends of the connection."""
import json, os, socket, subprocess, sys, time
def sh(c, check=True):
    p = subprocess.run(c, shell=True, capture_output=True, text=True)
    if check and p.returncode: raise Exception('%s: %s%s' % (c, p.stdout, p.stderr))
    return p.stdout
SERVER = '''
import socket, threading, sys
def one(c, name):
    try: c.recv(1); c.sendall(('%s %s %s' % (name, c.getsockname()[:2], c.getpeername()[:2])).encode())
    except OSError: pass
    c.close()
def serve(f, any, port):
    s = socket.socket(f); s.setsockopt(1, 2, 1)
    if f == 10: s.setsockopt(41, 26, 1)
    s.bind((any, port)); s.listen(50)
    while 1: threading.Thread(target=one, args=(s.accept()[0], sys.argv[1])).start()
for f, any in ((2, '0.0.0.0'), (10, '::')):
    for port in (80, 18080): threading.Thread(target=serve, args=(f, any, port)).start()
'''
CLIENT = '''
import socket, sys
s = socket.socket(10 if ':' in sys.argv[1] else 2); s.settimeout(1.2)
try:
    if sys.argv[2] != '-': s.bind((sys.argv[2], 0))
    s.connect((sys.argv[1], 80)); s.sendall(b'?'); print('ok', s.recv(200).decode())
except OSError as e: print('failed', e)
'''
open('/tmp/server.py', 'w').write(SERVER); open('/tmp/client.py', 'w').write(CLIENT)
for m in ('tunl0:ipip', 'ip6tnl0:ip6_tunnel'): sh('modprobe ' + m.split(':')[1], False)
for d in ('all', 'default'): sh(f'sysctl -w net.ipv6.conf.{d}.accept_dad=0 net.ipv4.conf.{d}.rp_filter=0 net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1')
sh('ip link set lo up')
for ns, d, peer, net in (('c', 'dc', 'c0', 0), ('s', 'dr', 's0', 1)):
    sh(f'ip netns add {ns}; ip -n {ns} link set lo up; ip netns exec {ns} sysctl -w net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2')
    host = '2' if ns == 'c' else '11'
    sh(f'ip link add {d} type veth peer name {peer} netns {ns}; ip link set {d} up; ip -n {ns} link set {peer} up')
    sh(f'ip addr add 10.{net}.0.1/24 dev {d}; ip addr add fd0{net}::1/64 dev {d} nodad; ip -n {ns} addr add 10.{net}.0.{host}/24 dev {peer}; ip -n {ns} addr add fd0{net}::{host}/64 dev {peer} nodad; ip -n {ns} route add default via 10.{net}.0.1; ip -n {ns} -6 route add default via fd0{net}::1')
sh('ip -n s link set tunl0 up; ip -n s link set ip6tnl0 up; ip netns exec s sysctl -w net.ipv4.conf.tunl0.rp_filter=0', False)
time.sleep(2)
for pre, name in (('', 'director'), ('ip netns exec s ', 'server')): subprocess.Popen(f'{pre}python3 /tmp/server.py {name}', shell=True, stdin=subprocess.DEVNULL)
time.sleep(2)
V, OWN, RS, LOOP = ('10.9.1.1', 'fd09::1'), ('10.1.0.1', 'fd01::1'), ('10.1.0.11', 'fd01::11'), ('127.0.0.1', '::1')
def at(a, p): return f'[{a}]:{p}' if ':' in a else f'{a}:{p}'
out = open('/out/local.jsonl', 'w')
def row(**k): out.write(json.dumps(k) + '\n'); out.flush(); print(json.dumps(k), flush=True)
def vip_on_server(f, on): sh(f'ip -n s addr {"add" if on else "del"} {V[f]}/{(32, 128)[f]} dev lo' + (' nodad' if f and on else ''), False)
METHODS = dict(NAT='-m', DR='-g', TUN='-i')
def ask(f, client, source, server, port, method, **k):
    vip_on_server(f, method != 'NAT' and client != 'server'); sh('ipvsadm -C'); sh(f'ipvsadm -A -t {at(V[f], 80)} -s rr')
    p = subprocess.run(f'ipvsadm -a -t {at(V[f], 80)} -r {at(server, port)} {METHODS[method]}', shell=True, capture_output=True, text=True)
    pre = '' if client == 'director' else 'ip netns exec %s ' % dict(client='c', server='s')[client]
    answer = sh(f'{pre}python3 /tmp/client.py {V[f]} {source}').strip()
    listing = [l.split() for l in sh('ipvsadm -Ln').splitlines() if '  -> ' in l and 'Remote' not in l]
    row(family=(4, 6)[f], client=client, source=source, server=server, port=port, method=method, answer=answer, listing=listing, **k, **(dict(refused=p.stderr) if p.returncode else {}))
for f in (0, 1):
    for place in ('lo', 'dr', 'none'):
        length = (32, 128)[f]
        if place == 'none': sh(f'ip route add {V[f]} via {("10.0.0.2", "fd00::2")[f]}')
        else: sh(f'ip addr add {V[f]}/{length} dev {place}' + (' nodad' if f else ''))
        for client, source in (('director', '-'), ('director', OWN[f]), ('client', '-')):
            for server, port, methods in ((OWN[f], 80, METHODS), (OWN[f], 18080, ['NAT']), (LOOP[f], 80, METHODS), (LOOP[f], 18080, ['NAT']), (RS[f], 80, METHODS), (RS[f], 18080, ['NAT'])):
                for method in methods: ask(f, client, source, server, port, method, vip=place)
        if place == 'lo':
            for accept in (0, 1):
                sh(f'ip netns exec s sysctl -w net.ipv4.conf.all.accept_local={accept}')
                ask(f, 'server', '-', RS[f], 80, 'NAT', vip=place, accept_local=accept)
                ask(f, 'server', '-', OWN[f], 80, 'NAT', vip=place, accept_local=accept)
                ask(f, 'server', '-', OWN[f], 18080, 'NAT', vip=place, accept_local=accept)
            sh('ip netns exec s sysctl -w net.ipv4.conf.all.accept_local=0')
        if place == 'none': sh(f'ip route del {V[f]}')
        else: sh(f'ip addr del {V[f]}/{length} dev {place}')
os._exit(0)
