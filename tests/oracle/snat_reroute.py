"""snat_reroute: by which way replies of masqueraded servers leave, with rules by source, old and new, and by interface.
The client 10.2.0.5 (fd02::5) is behind gateways that tables name, and whose MAC addresses tell which: main c1, 100 c3, 101 c4, 102 c5."""
from lib import *
b = Bench('snat_reroute')
WAYS = {'from_vip': (100, '10.0.0.3', 'fd00::3', 'c3'), 'from_server': (101, '10.0.0.4', 'fd00::4', 'c4'), 'by_interface': (102, '10.0.0.77', 'fd00::77', 'c5')}
for name, (t, g, g6, m) in WAYS.items():
    for f, via, net, host in (('-4', g, '10.2.0.0/16', '10.2.0.5'), ('-6', g6, 'fd02::/16', 'fd02::5')):
        sh(f'ip {f} neigh replace {via} lladdr 02:00:00:00:00:{m} dev dc nud permanent; ip {f} route add {net} via {via} dev dc table {t}')
for f in ('all', 'dc', 'dr'): sysctl(f'net.ipv4.conf.{f}.rp_filter', 0)
n, port = 40000, 100
for fam in (4, 6):
    cl, vip, r0 = ('10.2.0.5', V, rs(0)) if fam == 4 else ('fd02::5', V6, rs6(0)); h = 20 if fam == 4 else 40; U = (3, 3) if fam == 4 else (1, 4)
    for rules in ((), ('from_vip',), ('from_server',), ('by_interface',), ('from_vip', 'from_server'), ('from_server', 'by_interface'), ('from_vip', 'by_interface')):
        what = dict(from_vip=f'from {vip}', from_server=f'from {r0}', by_interface='iif dr')
        for k, x in enumerate(rules): sh(f'ip -{fam} rule add pref {100 + k} {what[x]} lookup {WAYS[x][0]}')
        for reroute in (1, 0):
            vs('snat_reroute', reroute)
            for proto in ('tcp', 'udp'):
                n += 1; port += 1; o = '-t' if proto == 'tcp' else '-u'; sh('ipvsadm -C'); sh('ipvsadm -R', f'-A {o} {q(vip)}:{port} -s rr\n-a {o} {q(vip)}:{port} -r {q(r0)}:{port} -m -w 1\n')
                k = dict(family=fam, rules=list(rules), snat_reroute=reroute, protocol=proto, port=port)
                send = (lambda s, sp, d, dp, fl, **x: tcp(s, sp, d, dp, fl, **x)) if proto == 'tcp' else (lambda s, sp, d, dp, fl, **x: udp(s, sp, d, dp, **x))
                b.case('opens', 'c', send(cl, n, vip, port, 'S'), **k); b.case('reply', 'r', send(r0, port, cl, n, 'SA'), **k); b.case('again', 'c', send(cl, n, vip, port, 'A'), **k)
                fwd = send(cl, n, r0, port, 'A'); b.case('error', 'r', icmp(r0, cl, *U, 0, fwd[:h + 8], ttl=50), **k)
                if proto == 'udp' and fam == 4:
                    d = udp(r0, port, cl, n, pl=bytes(range(200)) * 2, df=0)
                    for at, mf in ((0, 1), (200, 0)): b.case(f'fragment at {at}', 'r', ip(r0, cl, 17, d[20:][at:at + 200 if mf else None], df=0, frag=at // 8, mf=mf), **k)
        for k in range(len(rules)): sh(f'ip -{fam} rule del pref {100 + k}')
