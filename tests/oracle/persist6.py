"""Persistence over IPv6 and of UDP: rows, prefixes, port 0, replies. Commands are recorded, too."""
from lib import *
b = Bench('persist6'); T0 = time.monotonic(); S = rs6(0)
def now(): return round(time.monotonic() - T0, 1)
def cmd(c): b.rec(cmd=c, t=now()); sh('ipvsadm ' + c); print('$', c)
def note(case): b.rec(case=case, t=now(), lnc=sh('ipvsadm -Lnc').splitlines()[2:], conns=conns(), dests={f'{a[1]}|{a[2]}': v for a, v in dests().items() if v}); print('##', case); print(sh('ipvsadm -Lnc'))
def go(cl, cp, vip, p, fl='S'):
    b.drain(); b.c.send(fromc(udp(cl, cp, vip, p) if fl == 'udp' else tcp(cl, cp, vip, p, fl))); fr, fc = b.r.recv(), b.c.recv()
    to = [([socket.inet_ntop(10, f[38:54]), f[56] << 8 | f[57]] if f[12:14] == b'\x86\xdd' else [socket.inet_ntoa(f[30:34]), f[36] << 8 | f[37]]) for f in fr]
    b.rec(packet=[cl, cp, vip, p, fl], t=now(), to=to, to_client=[ftxt(f) for f in fc]); print(' ', cl, cp, vip, p, fl, '=>', to); return to
def reply(to, cl, cp):
    b.drain(); b.r.send(fromr(udp(to[0], to[1], cl, cp), int(to[0].split(':')[-1].split('.')[-1]) - 11)); fc = b.c.recv(); b.rec(reply=[to[0], to[1], cl, cp], t=now(), to_client=[ftxt(f) for f in fc]); print('  reply', [ftxt(f) for f in fc])
cmd('-A -t 10.9.9.9:9 -s rr')
for v in ('[fd09::1]:2001 -s rr -p 60', '[fd09::1]:2002 -s rr -p 60 -M 64', '[fd09::1]:2003 -s rr -p 60 -M 120', '[fd09::1]:2005 -s rr -p 60 -M 20'):
    cmd('-A -t ' + v); [cmd(f'-a -t {v.split()[0]} -r [{rs6(i)}]:{v.split()[0].split(":")[-1]} -m') for i in range(3)]
for cl, cp in (('fd00::2', 40000), ('fd00::2', 40001), ('fd00::77', 40000), ('fd02::2', 40000)): go(cl, cp, V6, 2001)
note('-p 60')
for cl in ('fd00::2', 'fd00::77', 'fd02::2', 'fd02::1:0:0:0:2', 'fd02::ffff'): go(cl, 40000, V6, 2002)
note('-M 64')
for cl in ('fd00::2', 'fd00::77', 'fd02::2', 'fd02::102', 'fd02::1ff'): go(cl, 40000, V6, 2003)
note('-M 120')
for cl in ('fd00::2', 'fd00:fff::2', 'fd00:1000::2', 'fd02::2'): go(cl, 40000, V6, 2005)
note('-M 20')
go('fd00::2', 40000, V6, 2001, 'A'); note('data')
for v, s, r in (('[fd09::1]:2004', '-u', '[fd01::%d]:2004'), ('10.9.1.1:2004', '-u', '10.1.0.%d:2004')):
    cmd(f'-A {s} {v} -s rr -p 60'); [cmd(f'-a {s} {v} -r {r % (11 + i)} -m') for i in range(3)]
for cl, v in ((C6, V6), (C, V)):
    to = go(cl, 40000, v, 2004, 'udp'); go(cl, 40001, v, 2004, 'udp'); note('udp before a reply'); reply(to[0], cl, 40000); note('udp after a reply')
cmd('-A -t [fd09::1]:0 -s rr -p 60'); cmd('-a -t [fd09::1]:0 -r [fd01::14]:0 -m'.replace('::14', '::14')); cmd('-a -t [fd09::1]:0 -r [fd01::15]:0 -m')
go(C6, 40000, V6, 7001); go(C6, 40001, V6, 7002); go('fd00::77', 40001, V6, 7002); go(C6, 40009, V6, 2001); note('port 0')
cmd('-e -t [fd09::1]:2001 -r [fd01::13]:2001 -m -w 0'); go(C6, 40002, V6, 2001); go('fd02::9', 40000, V6, 2001)
cmd('-d -t [fd09::1]:2001 -r [fd01::13]:2001'); go(C6, 40003, V6, 2001); go(C6, 40000, V6, 2001, 'A'); note('deleted')
