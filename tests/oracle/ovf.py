"""ovf when a destination is given weight while all others are overloaded: the row of schedulers.jsonl
(ovf, tcpsyn-midweight, packet 10) that says "none"."""
from lib import *
c, r = setup(); rec = Rec('ovf')
sh(f'ipvsadm -A -t {V}:80 -s ovf')
for i, w in enumerate([1, 2, 3, 0]): sh(f'ipvsadm -a -t {V}:80 -r {rs(i)}:80 -m -w {w}')
for k in range(20):
    if k == 10: sh(f'ipvsadm -e -t {V}:80 -r {rs(3)}:80 -m -w 4')
    c.send(fromc(tcp(C, 20000 + k, V, 80, 'S')))
    out = [f for f in r.recv(0.05) if f[36:38] == b'\0\x50']
    c.recv(0.001)
    to = socket.inet_ntoa(out[0][30:34]) if out else '-'
    rec(packet=k, to=to, dests=[dests()[80, rs(i), 80][1:] for i in range(4)])
    print(k, to, [dests()[80, rs(i), 80] for i in range(4)], flush=True)
