"""conntrack: what netfilter knows of connections with the setting on, by method and protocol, with and without a MASQUERADE of what nat
PREROUTING marked by its virtual address (as kube-proxy does); what the packets look like at both ends; what is left once a connection expired,
its destination is gone (expire_nodest_conn), or a SYN asks for it anew (conn_reuse_mode)."""
from lib import *
b = Bench('conntrack')
sh('modprobe nf_conntrack; modprobe nf_conntrack_netlink; modprobe nf_nat', check=False)
vs('conntrack', 1)
NAT = '''table inet t { chain pre { type nat hook prerouting priority dstnat; ip daddr 10.9.1.1 meta mark set 0x4000; ip6 daddr fd09::1 meta mark set 0x4000; }
 chain post { type nat hook postrouting priority srcnat; meta mark 0x4000 masquerade; }
}'''
ANY = 'table inet t { chain post { type nat hook postrouting priority srcnat; ip daddr 10.99.9.9 masquerade; }\n}'
NUMBERS = dict(S=dict(seq=1000), SA=dict(seq=5000, ack=1001), A=dict(seq=1001, ack=5001), R=dict(seq=1001))
def send(proto, *a): return tcp(*a, **NUMBERS[a[4]]) if proto == 'tcp' else udp(*a[:4])
def step(what, frm, p, **k):
    c, r = b.case(what, frm, p, **k); b.rec(case=what + ': tracked', rows=tracked(), **k); print(tracked()); return c, r
n = 41000
for masq in (0, 1):
    sh('nft -f -', NAT if masq else ANY)
    for fam in (4, 6):
        cl, vip, r0 = (C, V, rs(0)) if fam == 4 else (C6, V6, rs6(0))
        for proto in ('tcp', 'udp'):
            for method in 'mgi':
                n += 1; o = '-t' if proto == 'tcp' else '-u'; port = 80 if method != 'm' else 8080
                sh('ipvsadm -C'); sh('ipvsadm -R', f'-A {o} {q(vip)}:80 -s rr\n-a {o} {q(vip)}:80 -r {q(r0)}:{port} -{method}\n')
                k = dict(masquerade=masq, family=fam, protocol=proto, method=method, cport=n)
                _, out = step('opens', 'c', send(proto, cl, n, vip, 80, 'S'), **k)
                if method != 'm': continue
                f = out[0][14:]; h = 20 if fam == 4 else 40; src = socket.inet_ntop(socket.AF_INET if fam == 4 else socket.AF_INET6, f[12:16] if fam == 4 else f[8:24]); sp = int.from_bytes(f[h:h + 2], 'big')
                step('reply', 'r', send(proto, r0, port, src, sp, 'SA'), **k); step('again', 'c', send(proto, cl, n, vip, 80, 'A'), **k)
                time.sleep(4.2); b.rec(case='stats', stats=sh('ipvsadm -Ln --stats --exact'), conns=conns(), **k)
        # Expiry.
        for proto in ('tcp', 'udp'):
            n += 1; o = '-t' if proto == 'tcp' else '-u'; sh('ipvsadm -C; ipvsadm --set 2 2 2'); sh('ipvsadm -R', f'-A {o} {q(vip)}:80 -s rr\n-a {o} {q(vip)}:80 -r {q(r0)}:80 -m\n')
            k = dict(masquerade=masq, family=fam, protocol=proto, cport=n, expires=1)
            step('opens', 'c', send(proto, cl, n, vip, 80, 'S'), **k)
            if proto == 'tcp': step('resets', 'c', send(proto, cl, n, vip, 80, 'R'), **k)
            time.sleep(14); b.rec(case='expired', rows=tracked(), conns=conns(), **k)
        # Another connection in its place.
        sh('ipvsadm -C; ipvsadm --set 900 120 300'); sh('ipvsadm -R', ''.join([f'-A -t {q(vip)}:80 -s rr\n'] + [f'-a -t {q(vip)}:80 -r {q(x)}:80 -m\n' for x in ((rs(0), rs(1)) if fam == 4 else (rs6(0), rs6(1)))]))
        n += 1; k = dict(masquerade=masq, family=fam, cport=n, anew=1)
        for what, fl in (('opens', 'S'), ('resets', 'R'), ('anew', 'S'), ('anew again', 'S')): step(what, 'c', send('tcp', cl, n, vip, 80, fl), **k)
        vs('expire_nodest_conn', 1); n += 1; k = dict(masquerade=masq, family=fam, cport=n, nodest=1)
        sh('ipvsadm -C'); sh('ipvsadm -R', f'-A -u {q(vip)}:80 -s rr\n-a -u {q(vip)}:80 -r {q(r0)}:80 -m\n'); r1 = rs(1) if fam == 4 else rs6(1)
        step('opens', 'c', udp(cl, n, vip, 80), **k); sh(f'ipvsadm -a -u {q(vip)}:80 -r {q(r1)}:80 -m; ipvsadm -d -u {q(vip)}:80 -r {q(r0)}:80')
        step('gone', 'c', udp(cl, n, vip, 80), **k); step('gone, again', 'c', udp(cl, n, vip, 80), **k); vs('expire_nodest_conn', 0)
    sh('nft delete table inet t')
