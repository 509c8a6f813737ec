"""What the scripts in the oracle VM have in common: commands, sockets in namespaces, rvsd."""
import ctypes, itertools, os, subprocess, sys, time

libc = ctypes.CDLL(None, use_errno=True)
# Clients' ports, none taken twice: a connection outlives its destination, and drops what its client sends, as in the kernel.
PORTS = itertools.count(20000)


def sh(line, check=True):
    """What the shell's command printed; ends the script if it fails."""
    done = subprocess.run(line, shell=True, capture_output=True, text=True)
    if check and done.returncode:
        sys.exit(f'{line}: {done.stdout}{done.stderr}')
    return done.stdout


def inside(name, make):
    """What `make` returns, called in the namespace; here if it has no name."""
    if not name:
        return make()
    own, other = os.open('/proc/self/ns/net', 0), os.open('/run/netns/' + name, 0)
    libc.setns(other, 0x40000000)
    try:
        return make()
    finally:
        libc.setns(own, 0x40000000)
        os.close(own)
        os.close(other)


def bracket(addr):
    return f'[{addr}]' if ':' in addr else addr


def rvsd(*interfaces, mode='auto'):
    """Starts ./rvsd and waits until it is ready: emulated, the verifier takes a minute."""
    os.makedirs('/run/rvs', exist_ok=True)
    log = open('/run/rvsd.log', 'w')
    command = f'./rvsd --mode {mode} --connections 4096 --services 256 --destinations 1024'.split()
    daemon = subprocess.Popen([*command, *(f'--interface={name}' for name in interfaces)], stderr=log)
    for _ in range(4000):
        if 'rvsd: ready' in open('/run/rvsd.log').read():
            return daemon
        if daemon.poll() is not None:
            break
        time.sleep(0.1)
    sys.exit(f'rvsd is not ready, {daemon.poll()}: ' + open('/run/rvsd.log').read())


# Neighbours may take half a minute to answer instead of three seconds, in every namespace made from
# now on: this VM is emulated, on a host that may be busy.
for family in 'ipv4', 'ipv6':
    for kind in 'mcast', 'ucast':
        sh(f'sysctl -qw net.{family}.neigh.default.{kind}_solicit=30')
