"""More command lines of the real ipvsadm 1.31, in the form of the golden file: group, tool, argv, stdin, rc, stdout, stderr. Each group starts with an empty table."""
import json, subprocess
out = open('/out/cmdline.jsonl', 'w')
def run(group, tool, argv, stdin=None):
    p = subprocess.run([tool] + argv, input=stdin if stdin is not None else '', capture_output=True, text=True)
    stdout = None if 'Usage:' in p.stdout else p.stdout # a help text
    out.write(json.dumps(dict(group=group, tool=tool, argv=argv, stdin=stdin, rc=p.returncode, stdout=stdout, stderr=p.stderr)) + '\n'); out.flush()
def group(name, text):
    subprocess.run(['ipvsadm', '-C'])
    for line in text.strip().splitlines():
        words = [w.strip('"') for w in line.split()]
        run(name, 'ipvsadm', words)
def restore(name, stdin, tool='ipvsadm', argv=['-R']):
    run(name, tool, argv, stdin); run(name, 'ipvsadm', ['-Sn'])
A = '-A -t 10.9.1.1:'
group('daemon-more', '\n'.join('--start-daemon master --mcast-interface lo ' + o for o in [
 '--mcast-ttl 0', '--mcast-ttl 256', '--mcast-ttl -1', '--mcast-ttl x', '--mcast-port 0', '--mcast-port 65536', '--mcast-port x', '--sync-maxlen 0', '--sync-maxlen 65536', '--sync-maxlen x', '--mcast-group abc', '--mcast-group ""',
 '--syncid -1', '--syncid x', '-n', '-w 1', '--mcast-ttl 1 --mcast-ttl 2']) + '''
--start-daemon
--start-daemon master --mcast-interface lo --mcast-group 10.0.0.1
-L --daemon
--stop-daemon master
--start-daemon master --mcast-interface lo --sync-maxlen 1
-L --daemon
--stop-daemon master
--start-daemon master --mcast-interface lo --mcast-group ff05::81
-L --daemon
-Ln --daemon --stats
--stop-daemon master --syncid 3
--start-daemon backup --mcast-interface lo --mcast-ttl 255 --mcast-port 65535
-L --daemon
--stop-daemon backup --mcast-interface lo
--stop-daemon backup -n
--stop-daemon backup
--start-daemon=backup --mcast-interface=lo --syncid=9
-L --daemon
--stop-daemon=backup
--start-daemon master --mcast-interface averyveryverylonginterfacename
--start-daemon master lo
--start-daemon backup --syncid 5 --mcast-interface lo
--stop-daemon bogus
--stop-daemon backup
--stop-daemon master
''')
group('values', f'''
-A -t10.9.1.1:80 -srr
{A}81 -s rr -p50
{A}82 -s=rr
{A}83 --scheduler=rr --persistent=70
{A}84 -s rr -p 1
{A}85 -s rr -p 2678400
{A}86 -s rr -p 2678401
{A}87 -s rr --persistent 75
{A}88 -s rr -p --netmask 255.255.0.0
{A}89 -s rr -p 50 -M 0
{A}90 -s rr -p 50 -M 255.255.255.255
{A}91 -s rr -p 50 -M ""
{A}92 -s rr -p 50 -M 64.5
{A}93 -s rr -p 50 -M x
-A -t [fd09::1]:80 -s rr -p 50 -M 0
-A -t [fd09::1]:81 -s rr -p 50 -M 128
-A -t [fd09::1]:82 -s rr -p 50 -M 1
-A -t [fd09::1]:83 -s rr -p 50 -M -1
-A -t [fd09::1]:84 -s rr -p 50 -M x
-A -t [fd09::1%lo]:85 -s rr
-A -t [::ffff:10.0.0.1]:86 -s rr
-A -t [10.0.0.1]:87 -s rr
-A -t []:87 -s rr
-A -f 1 -6 -s rr -p 50 -M 64
-A -f 2 -s rr -p 50 -M 64
-A -6 -f 3 -s rr
-A -f 4 -s rr -6 -6
-A -f 5 -6 -s rr -f 6
-A -t 10.9.1.1:94 -6 -s rr
-A -f 0x10 -s rr
-A -f 010 -s rr
-A -f 1x -s rr
-A -f "" -s rr
-A -t "" -s rr
{A}95 -s ""
{A}0x50 -s rr
{A}080 -s rr
{A}+96 -s rr
{A}96x -s rr
-A -t 0x0a090101:97 -s rr
-A -t 012.9.1.1:98 -s rr
-A -t 10.9.1.1.1:99 -s rr
-A -t 10.9.1.1:99: -s rr
-A -t -s rr
-A -u 10.9.1.1:100 -s rr -o -p 50
-A -u 10.9.1.1:101 -s rr -o -o
-A -f 7 -s rr -o
-A --sctp-service 10.9.1.1:80 -s rr -o
{A}102 -s sh -b sh-port,sh-port
{A}103 -s sh -b sh-port,
{A}104 -s sh -b ""
{A}105 -s rr -b flag-1
{A}106 -s rr -b flag-3
{A}107 -b sh-port -s sh
{A}108 -s sh -b flag-4
{A}109 -s mh -b sh-port
{A}110 -b flag-2
{A}111 -p 5 -p 6
{A}112 --pe sip -s rr -p 5
-A -t 255.255.255.255:80 -s rr
-A -t 224.0.0.1:80 -s rr
-Ln
-Sn
-E -t 10.9.1.1:80
-E -t 10.9.1.1:81 -p 50
-E -t 10.9.1.1:82 -s bogus
-E -f 1 -6 -s wlc
-E -f 1 -s wlc
-Sn
''')
a = '-a -t 10.9.1.1:80 '
group('dests-more', f'''
{A}80 -s rr
{a}-r10.1.0.1 -m -w5
{a}-r 10.1.0.2:81 -m --weight=6 --u-threshold=9 --l-threshold=3
{a}-r 10.1.0.3 -m -w 0x10
{a}-r 10.1.0.4 -m -w 010
{a}-r 10.1.0.5 -m -w 2147483647
{a}-r 10.1.0.6 -m -x 2147483647
{a}-r 10.1.0.7 -m -x 2147483648
{a}-r 10.1.0.8 -m -x 65536 -y 65535
{a}-r 10.1.0.9 -m -y -1
{a}-r 10.1.0.10 -m -y x
{a}-r 10.1.0.11 -m -w ""
{a}-r 10.1.0.12 -m -w 5x
{a}-r 10.1.0.13 -m -w +5
{a}-r "" -m
{a}-r 10.1.0.14: -m
{a}-r 10.1.0.15:0 -m
{a}-r 10.1.0.16:0 -g
{a}-r :80 -m
{a}-r [fd01::1]:80 -i
{a}-r [fd01::1] -i
{a}-r fd01::2 -i
{a}-r 10.1.0.17 -i --tun-type gue --tun-port 0
{a}-r 10.1.0.18 -i --tun-type gue --tun-port 65536
{a}-r 10.1.0.19 -i --tun-type gue --tun-port x
{a}-r 10.1.0.20 -i --tun-type gre --tun-port 5
{a}-r 10.1.0.21 -i --tun-type gue --tun-port 5 --tun-csum --tun-remcsum
{a}-r 10.1.0.22 -i --tun-type gue --tun-port 5 --tun-csum --tun-nocsum
{a}-r 10.1.0.23 -i --tun-csum
{a}-r 10.1.0.24 -i --tun-type ipip --tun-nocsum
{a}-r 10.1.0.25 -g --tun-type ipip
{a}-r 10.1.0.26 -m --tun-csum
{a}-r 10.1.0.27 -i --tun-type gre --tun-nocsum
{a}-r 10.1.0.28 -i --tun-type gue --tun-type gre
{a}-r 10.1.0.29 -s rr
{a}-r 10.1.0.30 -p
{a}-r 10.1.0.31 -n
{a}-r 10.1.0.32 -r 10.1.0.33
{a}-r 10.1.0.34 -m -m
-a -r 10.1.0.35:80 -t 10.9.1.1:80 -m
-a -u 10.9.1.1:80 -r 10.1.0.36 -m
-Ln
-Ln --thresholds
-Ln --tun-info
-Sn
-d -t 10.9.1.1:80 -r 10.1.0.1 -m
-d -t 10.9.1.1:80 -r 10.1.0.1 -w 1
-d -t 10.9.1.1:80 -r 10.1.0.1:81
-d -t 10.9.1.1:80 -r [fd01::1]:80
-d -t 10.9.1.2:80 -r 10.1.0.1
-d -t 10.9.1.1:80 -r 224.0.0.1
-e -t 10.9.1.1:80 -r 10.1.0.2 -m
-e -t 10.9.1.1:80 -r 10.1.0.2:81 -i
-e -t 10.9.1.1:80 -r 10.1.0.2:81 -m -x 2 -y 5
-e -t 10.9.1.1:80 -r 10.1.0.2:81 -m -x 8 -y 5 -w 0
-e -t 10.9.1.1:80 -r 10.1.0.4 -i --tun-type gue --tun-port 9
-e -t 10.9.1.2:80 -r 10.1.0.4
-A -f 9 -s rr -p 5
-a -f 9 -r 10.1.0.1 -g
-a -f 9 -r 10.1.0.1:99 -i
-a -f 9 -r 10.1.0.1:80 -m
-a -f 9 -r [fd01::1]:80 -i
-a -f 9 -r fd01::2 -i
-A -t 10.9.1.3:0 -s rr -p
-a -t 10.9.1.3:0 -r 10.1.0.1:80 -m
-a -t 10.9.1.3:0 -r 10.1.0.2 -m
-a -t 10.9.1.3 -r 10.1.0.3:80 -g
-Ln
-Sn
-L -n --tun-info --thresholds
-L -n --tun-info --stats
-L -n --tun-info --persistent-conn
-L -n --rate --stats
-L -n --rate --thresholds
-L -n --stats --thresholds
-L -n --persistent-conn --stats
-Ln -t 10.9.1.1:80 --thresholds
-Ln -t 10.9.1.1:80 --tun-info
-Ln -t 10.9.1.1:80 --timeout
-Ln -t 10.9.1.1:80 --daemon
-Ln -t 10.9.1.1:80 -c
-Ln -f 9
-Ln -f 9 -6
-Ln -f 10
-Ln --timeout --stats
-Ln --daemon --nosort
-Ln --exact --thresholds
-Ln -n
-L -n -n
-Ln --stats --stats
-Ln -c -c
-Lnc -t 10.9.1.1:80 --rate
-Ln --daemon -c
-Ln --timeout --timeout
-Z extra
-C extra
-S extra
-S -n -n
-v extra
-v -n
-L -h
-L -v
-L -L
-h -L
-C -h
-Z -t 10.9.1.1:80 extra
-Z -f 9
-Z -f 10
-Z -u 10.9.1.1:80
-D -f 9 -6
-D -t 10.9.1.1:80 extra
--set
--set 1
--set 1 2 3 -n
--set -n 1 2 3
--set 1 -n 2 3
--set 1 2 x
--set 1 2 3 x
--set 2678400 2678400 2678400
-L --timeout
--set 2678401 2 3
--set 1 0 0
-L --timeout
--set 900 120 300
--set=1 2 3
--set "" 2 3
--set 0x10 010 9
-L --timeout
--set 900 120 300
-
--
-- -L
L
-t
-A --
-Ln --
--list --numeric
--lis
--list=5
-L --numeric=5
-Lt 10.9.1.1:80
-Lnt 10.9.1.1:80
-Lz
-LnZ
""
-Ln ""
''')
subprocess.run(['ipvsadm', '-C'])
for stdin in ['', '\n', '\n\n-A -t 10.9.2.1:1 -s rr\n', '   -A   -t  10.9.2.1:2\t-s rr  \n', '-A -t "10.9.2.1:3" -s \'rr\'\n', '-A -t 10.9.2.1:4 -s r\\r\n', '-A -t 10.9.2.1:5 -s "rr\n-A -t 10.9.2.1:6 -s rr\n', '-A -t 10.9.2.1:7 -s rr',
 '-A -t 10.9.2.1:8 -s rr # a comment\n-A -t 10.9.2.1:9 -s rr\n', '-A -t 10.9.2.1:10 -s rr\n-A -t 10.9.2.1:0 -s rr\n-A -t 10.9.2.1:11 -s rr\n', '-A -t 10.9.2.1:12 -s rr\n-a -t 10.9.2.1:12 -r 300.1.1.1 -m\n-A -t 10.9.2.1:13 -s rr\n',
 '-A -t 10.9.2.1:14 -s rr\n-a -t 10.9.2.1:99 -r 10.1.1.1 -m\n-A -t 10.9.2.1:15 -s rr\n', '-h\n-A -t 10.9.2.1:16 -s rr\n', '-v\n-A -t 10.9.2.1:17 -s rr\n', '-R\n-A -t 10.9.2.1:18 -s rr\n', '-S -n\n-A -t 10.9.2.1:19 -s rr\n', '-L -n --timeout\n',
 '/sbin/ipvsadm -A -t 10.9.2.1:20 -s rr\n', 'ipvsadm-x -A -t 10.9.2.1:21 -s rr\n', 'foo ipvsadm -A -t 10.9.2.1:22 -s rr\n', 'ipvsadm\n', '-A\t-t\t10.9.2.1:23\t-s\trr\r\n', '-A -t 10.9.2.1:24 -s rr ' + ' ' * 5000 + '-p 5\n', '-D -t 10.9.2.1:99\n-A -t 10.9.2.1:25 -s rr\n', '-Z -t 10.9.2.1:99\n-A -t 10.9.2.1:26 -s rr\n', '-L -n -t 10.9.2.1:99\n-A -t 10.9.2.1:27 -s rr\n', '-C\n--set 900 120 300\n-A -t 10.9.2.1:28 -s rr\n', '#\n', ' # x\n']:
    restore('restore-more', stdin)
for argv, stdin in [(['-n'], None), (['--help'], None), (['-h'], None), (['x'], None), (['-n', 'x'], None), (['-nx'], None)]: run('restore-more', 'ipvsadm-save', argv, stdin)
for argv, stdin in [([], '# a comment\n-A -t 10.9.3.1:1 -s rr\n#x\n-A -t 10.9.3.1:2 -s rr\n'), ([], '-A -t 10.9.3.1:3 -s rr\n # x\n-A -t 10.9.3.1:4 -s rr\n'), ([], ''), (['-h'], '-A -t 10.9.3.1:5 -s rr\n'), ([], '-A -t 10.9.3.1:6 -s rr\n-A -t 10.9.3.1:6 -s rr\n'), ([], 'garbage\n')]: restore('restore-tool', stdin, 'ipvsadm-restore', argv)
