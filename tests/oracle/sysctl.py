"""Every file of /proc/sys/net/ipv4/vs: its default, and what writing does to it. Values are put back after each write."""
import errno, os
from lib import Rec, sh
sh('modprobe ip_vs')
rec, D = Rec('sysctl'), '/proc/sys/net/ipv4/vs/'
VALUES = ['0', '1', '2', '3', '4', '5', '7', '10', '50', '100', '255', '256', '1024', '65536', '86400', '2147483647', '2147483648', '4294967295', '4294967296', '-1', '-2', '-2147483648', '-2147483649',
    '', ' ', ' 1', '1 ', '1\n', '1 2', '1\t2', '3 50', '50 3', '0 0', '0 1', '1 1', '1 0', '-1 50', '3 -1', '3 x', 'x', '1x', '0x1', '010', '+1', '1.5', '1,2']
def write(name, value):
    f = os.open(D + name, os.O_WRONLY)
    try: return os.write(f, value.encode()), None
    except OSError as e: return None, errno.errorcode[e.errno]
    finally: os.close(f)
def read(name): return open(D + name).read()
for name in sorted(os.listdir(D)):
    default = read(name)
    rec(name=name, default=default, mode=oct(os.stat(D + name).st_mode & 0o7777))
    for value in VALUES:
        n, e = write(name, value); after = read(name)
        rec(name=name, write=value, written=n, errno=e, after=after)
        w = write(name, default)
        if read(name) != default: rec(name=name, write=default, written=w[0], errno=w[1], after=read(name))
rec(sysctl=sh('sysctl net.ipv4.vs'), all=sorted(os.listdir(D)))
