"""A client of the older interface, IP_VS_SO_SET_* and IP_VS_SO_GET_*: every option, well-formed and not. Prints one JSON
object a call: what was asked, the errno, the bytes. Runs alone: on the kernel, and under `rvs run`."""
import json, socket, struct, sys
B = 64 + 1024 + 64
SET = dict(ADD=2, EDIT=3, DEL=4, FLUSH=5, ADDDEST=7, DELDEST=8, EDITDEST=9, TIMEOUT=10, STARTDAEMON=11, STOPDAEMON=12, ZERO=15)
GET = dict(VERSION=0, INFO=1, SERVICES=2, SERVICE=3, DESTS=4, TIMEOUT=6, DAEMON=7)
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 255)
def a(x): return socket.inet_aton(x)
def svc(addr='10.9.9.1', port=80, proto=6, fwmark=0, sched='rr', flags=0, timeout=0, mask='255.255.255.255'):
    return struct.pack('=H2x4sH2xI16sII4s', proto, a(addr), socket.htons(port), fwmark, sched.encode(), flags, timeout, a(mask))
def dest(addr='10.1.0.11', port=80, flags=0, weight=1, upper=0, lower=0): return struct.pack('=4sH2xIiII', a(addr), socket.htons(port), flags, weight, upper, lower)
def say(name, errno, data=None): print(json.dumps(dict(call=name, errno=errno, **({} if data is None else dict(length=len(data), data=data.hex())))), flush=True)
def put(what, name, data):
    try: s.setsockopt(0, B + SET[what], data); say(f'{what} {name}', 0)
    except OSError as e: say(f'{what} {name}', e.errno)
def get(what, name, data=b'', size=None):
    # Python cannot pass a request in; the C library can.
    import ctypes
    c = ctypes.CDLL(None, use_errno=True); size = len(data) if size is None else size
    buf = ctypes.create_string_buffer(bytes(data) + bytes(max(0, size - len(data))), max(size, 1)); n = ctypes.c_uint(size)
    r = c.getsockopt(s.fileno(), 0, B + GET[what], buf, ctypes.byref(n))
    if r: say(f'{what} {name}', ctypes.get_errno())
    else: say(f'{what} {name}', 0, buf.raw[:n.value])
def services(n): get('SERVICES', f'{n} entries', struct.pack('=I4x', n), 8 + 104 * n)
def dests(n, k, name): get('DESTS', f'{name}, {n} entries', k + struct.pack('=I', n) + bytes(4), 24 + 96 * n)
def key(addr='10.9.9.1', port=80, proto=6, fwmark=0): return struct.pack('=H2x4sH2xI', proto, a(addr), socket.htons(port), fwmark)
def entry(k): return k + bytes(104 - 16)
put('FLUSH', '', b'')
get('INFO', '', size=12); get('INFO', 'short', size=11); get('INFO', 'long', size=20); get('VERSION', '', size=64); get('VERSION', 'short', size=63)
services(0); get('TIMEOUT', '', size=12); get('DAEMON', '', size=48)
put('ADD', 'tcp', svc()); put('ADD', 'again', svc()); put('ADD', 'udp persistent', svc(port=53, proto=17, flags=1, timeout=300, mask='255.255.255.0'))
put('ADD', 'mark', svc(addr='0.0.0.0', port=0, proto=6, fwmark=5, sched='wlc'))
put('ADD', 'bad protocol', svc(proto=1)); put('ADD', 'bad protocol with a mark', svc(proto=0, fwmark=6)); put('ADD', 'no such scheduler', svc(port=81, sched='nosuch')); put('ADD', 'unterminated scheduler', svc(port=81, sched='x' * 16)); put('ADD', 'short', svc()[:43]); put('ADD', 'long', svc() + b'\0\0\0\0'); put('ADD', 'nothing', b'')
put('EDIT', 'scheduler', svc(sched='wrr')); put('EDIT', 'no such service', svc(port=99)); put('EDIT', 'no such scheduler', svc(sched='nosuch'))
put('ADDDEST', 'masquerading', svc() + dest()); put('ADDDEST', 'again', svc() + dest()); put('ADDDEST', 'direct routing', svc() + dest('10.1.0.12', flags=3, weight=5, upper=10, lower=3)); put('ADDDEST', 'tunneling', svc() + dest('10.1.0.13', flags=2)); put('ADDDEST', 'to the mark', svc(addr='0.0.0.0', port=0, fwmark=5) + dest('10.1.0.14', 0, 3))
put('ADDDEST', 'negative weight', svc() + dest('10.1.0.15', weight=-1)); put('ADDDEST', 'lower above upper', svc() + dest('10.1.0.15', upper=1, lower=2)); put('ADDDEST', 'multicast', svc() + dest('224.0.0.1')); put('ADDDEST', 'no such service', svc(port=99) + dest()); put('ADDDEST', 'short', svc() + dest()[:23]); put('ADDDEST', 'service alone', svc())
put('EDITDEST', 'weight', svc() + dest(weight=9)); put('EDITDEST', 'no such destination', svc() + dest('10.1.0.99')); put('EDITDEST', 'negative weight', svc() + dest(weight=-1))
get('INFO', 'with services', size=12); services(2); services(4)
for k, name in ((key(), 'tcp'), (key(port=53, proto=17), 'udp'), (key('0.0.0.0', 0, 6, 5), 'mark'), (key(port=99), 'none')): get('SERVICE', name, entry(k))
get('SERVICE', 'short', entry(key())[:103]); dests(3, key(), 'tcp'); dests(1, key('0.0.0.0', 0, 0, 5), 'mark'); dests(2, key(), 'tcp'); dests(0, key(port=99), 'none'); get('DESTS', 'short', key(), 20)
put('TIMEOUT', 'set', struct.pack('=iii', 700, 77, 200)); get('TIMEOUT', 'after', size=12); put('TIMEOUT', 'one', struct.pack('=iii', 0, 0, 250)); get('TIMEOUT', 'after', size=12); put('TIMEOUT', 'negative', struct.pack('=iii', -1, 0, 0)); put('TIMEOUT', 'huge', struct.pack('=iii', 0x7fffffff, 0, 0)); get('TIMEOUT', 'after', size=12); put('TIMEOUT', 'short', bytes(8)); get('TIMEOUT', 'short', size=8)
put('TIMEOUT', 'back', struct.pack('=iii', 900, 120, 300))
put('ZERO', 'one', svc()); put('ZERO', 'all', svc('0.0.0.0', 0, 0)); put('ZERO', 'no such service', svc(port=99)); put('ZERO', 'short', bytes(8))
put('DELDEST', '', svc() + dest('10.1.0.13')); put('DELDEST', 'again', svc() + dest('10.1.0.13')); dests(2, key(), 'tcp')
put('DEL', '', svc()); put('DEL', 'again', svc()); get('INFO', 'after', size=12); put('FLUSH', 'with data', b'abc'); put('FLUSH', '', b''); get('INFO', 'flushed', size=12)
