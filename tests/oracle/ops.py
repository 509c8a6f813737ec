"""One-packet scheduling: each datagram is scheduled by itself; replies; counts; persistence beside it."""
from lib import *
b = Bench('ops')
def state(): return dict(dests={f'{k[1]}:{k[2]}': list(v) for k, v in dests().items() if k[0] == 53}, conns=conns(), stats=[l for l in sh('ipvsadm -Ln --stats --exact').splitlines() if '10.' in l])
for name, o in (('NAT', '-m'), ('DR', '-g'), ('TUN', '-i')):
    for extra in ('', ' -p 50'):
        sh('ipvsadm -C'); sh(f'ipvsadm -A -u {V}:53 -s rr -o{extra}')
        for i in range(3): sh(f'ipvsadm -a -u {V}:53 -r {rs(i)}:{5353 if o == "-m" else 53} {o} -w 1')
        T = f'{name}{" persistent" if extra else ""}'
        for n in range(4):
            b.case(f'{T}: datagram {n} of one flow', 'c', udp(C, 40000, V, 53, pl=b'q%d' % n))
        if o == '-m': b.case(f'{T}: a reply', 'r', udp(rs(0), 5353, C, 40000, pl=b'a'))
        b.rec(case=f'{T}: afterwards', **state()); print(T, state(), flush=True)
sh('ipvsadm -C'); sh(f'ipvsadm -A -u {V}:53 -s rr -o'); 
for i in range(2): sh(f'ipvsadm -a -u {V}:53 -r {rs(i)}:53 -m -w 1 -x 1')
for n in range(3): b.case(f'thresholds of 1: datagram {n}', 'c', udp(C, 40000, V, 53, pl=b'q'))
b.rec(case='thresholds of 1: afterwards', **state())
x = shx(f'ipvsadm -A -t {V}:53 -s rr -o'); b.rec(case='TCP service', **x); print(x)
sh('ipvsadm -C'); sh(f'ipvsadm -A -u {V}:53 -s rr'); sh(f'ipvsadm -a -u {V}:53 -r {rs(0)}:53 -m'); b.case('without -o: first', 'c', udp(C, 40001, V, 53, pl=b'q'))
sh(f'ipvsadm -E -u {V}:53 -s rr -o'); sh(f'ipvsadm -a -u {V}:53 -r {rs(1)}:53 -m')
for n in range(3): b.case(f'-E -o: datagram {n} of a flow with a connection', 'c', udp(C, 40001, V, 53, pl=b'q'))
b.rec(case='-E -o: afterwards', **state())
